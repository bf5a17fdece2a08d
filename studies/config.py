"""What a study is, as plain data: what it trains, how trials are chosen and judged.

No torch and no Optuna here. A study's folder holds this object as ``study.yaml``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import yaml

from nasbench_at.config import DS_NET_FIELDS, ResolvedConfig, config_from_mapping
from nasbench_at.config.run_config import EXTRA_FIELDS
from nasbench_at.evaluation.options import ATTACK_NAMES
from studies.space import SearchSpace

__all__ = [
    "DIRECTIONS",
    "Label",
    "Objective",
    "PlannedRun",
    "PrunerName",
    "SamplerName",
    "StudyConfig",
    "study_folder",
]

Label: TypeAlias = bool | int | float | str | None
Objective = Literal["robust", "natural", "parameters", "seconds_per_step"]
SamplerName = Literal["tpe", "random", "nsga2", "gp", "qmc", "brute_force"]
PrunerName = Literal["none", "hyperband", "successive_halving", "median"]

DIRECTIONS: Mapping[Objective, Literal["maximize", "minimize"]] = {
    "robust": "maximize",
    "natural": "maximize",
    "parameters": "minimize",
    "seconds_per_step": "minimize",
}
"""Objectives: accuracies on held-out validation images (never on test images), and costs."""


@dataclass(frozen=True)
class PlannedRun:
    """One run of a study that lists its runs.

    Attributes:
        labels: What tells the run apart in the study: the parameters of its Optuna trial.
        config: The run.
        attacks: Attacks on the test images beside the study's own.
    """

    labels: Mapping[str, Label]
    config: ResolvedConfig
    attacks: tuple[str, ...] = ()


@dataclass(frozen=True)
class StudyConfig:
    """Everything that decides which runs a study makes and how they are judged.

    Attributes:
        name: Name of the study and of its folder.
        recipe: Name of the recipe that made it.
        base: The run that all trials start from.
        runs: The runs of a study that lists them; empty for a search.
        space: Where a search looks; None for a list of runs.
        num_trials: Trials of a search; of a list, the number of its runs.
        objectives: What trials are judged by; several make a Pareto front.
        sampler: Optuna sampler of a search.
        sampler_options: Its arguments, a seed among them.
        pruner: Optuna pruner of a search with one objective; it looks at every epoch.
        pruner_options: Its arguments.
        attacks: Attacks on the test images after training, for the tables; none of them chooses.
        aa_samples: Let AutoAttack see so many of the test images.
    """

    name: str
    recipe: str
    base: ResolvedConfig
    runs: tuple[PlannedRun, ...] = ()
    space: SearchSpace | None = None
    num_trials: int = 0
    objectives: tuple[Objective, ...] = ("robust",)
    sampler: SamplerName = "tpe"
    sampler_options: Mapping[str, Any] = field(default_factory=dict)
    pruner: PrunerName = "none"
    pruner_options: Mapping[str, Any] = field(default_factory=dict)
    attacks: tuple[str, ...] = ("fgsm", "pgd", "cw")
    aa_samples: int | str | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", self.name):
            raise ValueError(
                f"a study's name must be letters, digits, '.', '_' and '-', got {self.name!r}"
            )
        if bool(self.runs) == (self.space is not None):
            raise ValueError(f"study {self.name!r} must list runs or have a space to search")
        if self.runs:
            object.__setattr__(self, "num_trials", len(self.runs))
            self._check_runs()
        if self.num_trials < 1:
            raise ValueError(f"num_trials must be at least 1, got {self.num_trials}")
        for name in self.objectives:
            if name not in DIRECTIONS:
                known = ", ".join(DIRECTIONS)
                raise ValueError(f"objective must be one of {known}, got {name!r}")
        if not self.objectives:
            raise ValueError("objectives must name at least one")
        if self.space is not None and self.base.select_on == "test":
            raise ValueError(
                "a search is judged on held-out images, never on test images: select_on must be "
                "validation or last, got 'test'"
            )
        self._check_choices()

    def _check_runs(self) -> None:
        keys = {tuple(planned.labels) for planned in self.runs}
        if len(keys) > 1:
            raise ValueError(f"the runs of a study must have the same labels, got {sorted(keys)}")
        seen: dict[str, Mapping[str, Label]] = {}
        for planned in self.runs:
            twin = seen.setdefault(planned.config.run_id, planned.labels)
            if twin is not planned.labels:
                raise ValueError(
                    f"two runs of the study are one and the same: {dict(twin)} and "
                    f"{dict(planned.labels)}"
                )

    def _check_choices(self) -> None:
        for what, value, allowed in (
            ("sampler", self.sampler, get_args(SamplerName)),
            ("pruner", self.pruner, get_args(PrunerName)),
        ):
            if value not in allowed:
                raise ValueError(f"{what} must be one of {', '.join(allowed)}, got {value!r}")
        if self.pruner != "none" and len(self.objectives) > 1:
            raise ValueError(
                f"pruner {self.pruner!r} goes with one objective, got {len(self.objectives)}"
            )
        more = (attack for planned in self.runs for attack in planned.attacks)
        for attack in (*self.attacks, *more):
            if attack not in ATTACK_NAMES:
                known = ", ".join(ATTACK_NAMES)
                raise ValueError(f"attacks must be some of {known}, got {attack!r}")

    def to_dict(self) -> dict[str, Any]:
        """Returns YAML-ready data; a run is written as what differs from the base."""
        base = _write(self.base)
        plain = {f.name: getattr(self, f.name) for f in fields(self)}
        plain["base"] = base
        plain["space"] = None if self.space is None else asdict(self.space)
        plain["runs"] = [
            {
                "labels": dict(planned.labels),
                "changes": _difference(_write(planned.config), base),
                **({"attacks": planned.attacks} if planned.attacks else {}),
            }
            for planned in self.runs
        ]
        restored: dict[str, Any] = json.loads(json.dumps(plain))
        return restored

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> StudyConfig:
        """Restores a study from :meth:`to_dict`.

        Raises:
            ValueError: If the data are no study.
        """
        try:
            values = dict(data)
            base = _read_run(values.pop("base"))
            plain_base = base.to_dict()
            runs = tuple(
                PlannedRun(
                    planned["labels"],
                    _read_run(_apply(planned["changes"], plain_base)),
                    tuple(planned.get("attacks", ())),
                )
                for planned in values.pop("runs")
            )
            space = values.pop("space")
            for name in ("objectives", "attacks"):
                values[name] = tuple(values[name])
            return cls(
                base=base,
                runs=runs,
                space=None if space is None else SearchSpace.from_dict(space),
                **values,
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"this is no study: {error}") from None

    def to_yaml(self) -> str:
        """Returns the study as YAML text."""
        text: str = yaml.safe_dump(self.to_dict(), sort_keys=False, default_flow_style=None)
        return text

    def differences(self, other: StudyConfig) -> list[str]:
        """Returns in words where another study of the same name is another study."""
        mine, theirs = self.to_dict(), other.to_dict()
        contents, known = mine["base"].pop("contents"), theirs["base"].pop("contents")
        here = {**dict.fromkeys(EXTRA_FIELDS), **mine["base"]}
        found = [
            f"{name} {theirs['base'].get(name)!r} there, {value!r} here"
            for name, value in here.items()
            if theirs["base"].get(name) != value
        ]
        found += [f"{name!r} has changed" for name in contents if contents[name] != known.get(name)]
        if not found:
            found = [
                f"another {name}" for name in mine if name != "base" and mine[name] != theirs[name]
            ]
        return found


def _read_run(data: Mapping[str, Any]) -> ResolvedConfig:
    return ResolvedConfig.of(config_from_mapping(data))


def _write(config: ResolvedConfig) -> dict[str, Any]:
    """Plain data with the norm, of which a configuration leaves Linf out: a run may change it."""
    return {**config.to_dict(), "norm": config.norm}


def _difference(config: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    """What a run changes of the base; extra data that it leaves out are none."""
    config = {**dict.fromkeys(name for name in EXTRA_FIELDS if name in base), **config}
    return {
        name: value for name, value in config.items() if name not in base or value != base[name]
    }


def _apply(changes: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    """The run that differs from the base; one of a named network has no fields of a DS-Net."""
    is_named = changes.get("model", "ds_net") != "ds_net"
    kept = {k: v for k, v in base.items() if not (is_named and k in DS_NET_FIELDS)}
    return {**kept, **changes}


def study_folder(runs_dir: str | Path, name: str) -> Path:
    """Returns where a study of this name lies among runs."""
    return Path(runs_dir) / "studies" / name


def label_values(runs: Sequence[PlannedRun], label: str) -> list[Label]:
    """Returns a label's values in order of their first occurrence."""
    return list(dict.fromkeys(planned.labels[label] for planned in runs))
