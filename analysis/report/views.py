"""What the page says about runs, as plain data for the template."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml

from analysis.report.entries import RunEntry
from nasbench_at.naming.labels import (
    data_label,
    method_label,
    metric_label,
    network_label,
)
from nasbench_at.records import AttackResult, Record, TrustCheck, describe_attack

__all__ = [
    "Headline",
    "Measure",
    "RunView",
    "attack_names",
    "headlines",
    "provenance_groups",
    "run_views",
    "summarise",
]

_STRENGTH = ("aa", "cw", "pgd", "fgsm", "natural")
"""Attacks, the strongest first; the best run is the best under the strongest that all met."""
_FIRST = ("natural", "fgsm", "pgd", "cw", "aa", "worst_case")


@dataclass(frozen=True)
class Measure:
    """One accuracy of one run.

    Attributes:
        attack: Its heading.
        accuracy: In [0, 1].
        interval: Ends of its 95 % interval.
        count: Correct images of all.
        settings: The attack's, in a few words.
        seconds: How long it took.
    """

    attack: str
    accuracy: float
    interval: tuple[float, float]
    count: str
    settings: str
    seconds: float | None


@dataclass(frozen=True)
class RunView:
    """One run.

    Attributes:
        run_id: Its name.
        anchor: Where its record stands in the page.
        status: How far it is.
        progress: Epochs done of all, for one that still runs.
        network: Its network.
        data: Its data set.
        method: How it was trained.
        seed: Its seed.
        eps: Radius it was evaluated at, else trained for.
        num_params: Its parameters; None before its end.
        measures: By attack.
        selected: What is known of the selected epoch.
        checks: Trust checks of the evaluation.
        is_selected_on_test: Whether its accuracies are too high for that reason.
        provenance: Of training and evaluation.
        config: Its configuration as YAML.
        record_link: Relative path from the page to its record.
    """

    run_id: str
    anchor: str
    status: str
    progress: str
    network: str
    data: str
    method: str
    seed: object
    eps: float | None
    num_params: int | None
    measures: Mapping[str, Measure]
    selected: Mapping[str, Any]
    checks: Sequence[TrustCheck]
    is_selected_on_test: bool
    provenance: Mapping[str, str]
    config: str
    record_link: str | None


@dataclass(frozen=True)
class Headline:
    """The best run on one data set.

    Attributes:
        data: The data set.
        run: The run.
        attack: Heading of the attack by which it is the best.
        num_runs: Of how many it is the best.
    """

    data: str
    run: RunView
    attack: str
    num_runs: int


def run_views(entries: Iterable[RunEntry], anchors: Mapping[str, str], out: Path) -> list[RunView]:
    """Describes runs.

    Args:
        entries: The runs.
        anchors: By run, the id of its place in the page.
        out: Where the page will lie, for relative links.
    """
    return [_run_view(entry, anchors[entry.run_id], out) for entry in entries]


def _run_view(entry: RunEntry, anchor: str, out: Path) -> RunView:
    config, record = entry.config, entry.record
    attacked = next((r for r in entry.results.values() if r.eps is not None), None)
    method = config.get("method")
    return RunView(
        run_id=entry.run_id,
        anchor=anchor,
        status=entry.status,
        progress=f"{len(entry.metrics)} of {config.get('epochs')} epochs",
        network=network_label(config),
        data=data_label(str(config.get("data"))),
        method="" if method is None else method_label(str(method), config.get("beta")),
        seed=config.get("seed", ""),
        eps=config.get("eps") if attacked is None else attacked.eps,
        num_params=None if record is None else record.num_params,
        measures={name: _measure(name, result) for name, result in entry.results.items()},
        selected={} if record is None else record.training.get("selected", {}),
        checks=_checks_of(record),
        is_selected_on_test=config.get("select_on") == "test",
        provenance={} if record is None else _flatten(record.provenance),
        config=yaml.safe_dump(dict(config), sort_keys=False, default_flow_style=None),
        record_link=None if entry.record_path is None else _relative(entry.record_path, out),
    )


def _checks_of(record: Record | None) -> tuple[TrustCheck, ...]:
    return () if record is None or not record.is_evaluated else record.evaluations[-1].checks


def _measure(name: str, result: AttackResult) -> Measure:
    label = metric_label(name)
    low, high = result.interval
    return Measure(
        attack=label,
        accuracy=result.accuracy,
        interval=(low, high),
        count=f"{result.num_correct:,}/{result.num_samples:,}",
        settings=describe_attack(result.settings),
        seconds=result.seconds,
    )


def _flatten(provenance: Mapping[str, Any]) -> dict[str, str]:
    return {
        key: yaml.safe_dump(value, default_flow_style=True).strip()
        if isinstance(value, Mapping)
        else str(value)
        for key, value in provenance.items()
    }


def _relative(path: Path, out: Path) -> str:
    return quote(Path(os.path.relpath(path.resolve(), out.resolve().parent)).as_posix())


def attack_names(runs: Sequence[RunView]) -> list[str]:
    """Returns the attacks of all runs, AutoAttack's parts left out, in the paper's order."""
    found = dict.fromkeys(name for run in runs for name in run.measures if "/" not in name)
    return sorted(found, key=lambda name: _FIRST.index(name) if name in _FIRST else len(_FIRST))


def headlines(runs: Sequence[RunView]) -> list[Headline]:
    """Returns the most robust run on each data set at each radius."""
    groups: dict[tuple[str, float | None], list[RunView]] = {}
    for run in runs:
        if run.measures:
            groups.setdefault((run.data, run.eps), []).append(run)
    found = []
    for (data, _), group in groups.items():
        attack = next((a for a in _STRENGTH if all(a in run.measures for run in group)), None)
        if attack is not None:
            best = max(group, key=lambda run: run.measures[attack].accuracy)
            found.append(Headline(data, best, metric_label(attack), len(group)))
    return found


def summarise(runs: Sequence[RunView], entries: Sequence[RunEntry]) -> dict[str, str]:
    """Says what was run and how, as terms and their descriptions."""
    statuses = Counter(run.status for run in runs)
    configs = [entry.config for entry in entries]
    seconds = sum(
        float(entry.record.provenance.get("train_seconds", 0.0))
        for entry in entries
        if entry.record is not None
    )
    terms = {
        "Runs": ", ".join(f"{count} {status}" for status, count in statuses.items()),
        "Data sets": _values(run.data for run in runs),
        "Methods": _values(run.method for run in runs),
        "Networks": _values(run.network for run in runs),
        "Seeds": _values(run.seed for run in runs),
        "Radius ε": _values(run.eps for run in runs),
        "Epochs": _values(config.get("epochs") for config in configs),
        "Recipe": _values(config.get("recipe") for config in configs),
        "Precision": _values(config.get("precision") for config in configs),
        "Selected on": _values(config.get("select_on") for config in configs),
        "Training time": f"{seconds / 3600:.2f} h in all" if seconds else "",
    }
    return {term: text for term, text in terms.items() if text}


def _values(values: Iterable[object], limit: int = 8) -> str:
    counts = Counter(str(value) for value in values if value not in (None, ""))
    texts = [f"{value} ({n})" if len(counts) > 1 else value for value, n in counts.most_common()]
    rest = f" and {len(texts) - limit} more" if len(texts) > limit else ""
    return ", ".join(texts[:limit]) + rest


def provenance_groups(runs: Sequence[RunView]) -> list[tuple[dict[str, str], list[RunView]]]:
    """Groups runs that were made by the same program on the same machine."""
    groups: dict[tuple[tuple[str, str], ...], list[RunView]] = {}
    for run in runs:
        shared = {
            key: value
            for key, value in run.provenance.items()
            if key not in ("train_seconds", "data_fingerprint")
        }
        if shared:
            groups.setdefault(tuple(shared.items()), []).append(run)
    return [(dict(key), members) for key, members in groups.items()]
