"""From an Optuna trial to the run it stands for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import optuna

from nasbench_at.config import ResolvedConfig
from nasbench_at.config.architecture import Blocks
from nasbench_at.data import ImageSpec
from nasbench_at.networks.graph import count_planned_parameters
from nasbench_at.networks.widths import match_parameters
from studies.config import StudyConfig, label_values
from studies.space import SearchSpace
from studies.variants import with_blocks

__all__ = ["Suggestion", "suggest_run"]


@dataclass(frozen=True)
class Suggestion:
    """A trial's run.

    Attributes:
        config: The run.
        num_params: Its parameters, where a search counted them.
        attacks: Attacks on the test images beside the study's own.
        excess: By how much they exceed the budget, relative to it; at most 0 is within it. None
            without a budget.
    """

    config: ResolvedConfig
    num_params: int | None = None
    attacks: tuple[str, ...] = ()
    excess: float | None = None


def suggest_run(study: StudyConfig, trial: optuna.Trial, images: ImageSpec) -> Suggestion:
    """Returns the run of a trial: the one that its slot lists, or one that the sampler chooses.

    Raises:
        ValueError: If a chosen network cannot be built.
    """
    if study.space is None:
        planned = study.runs[trial.user_attrs["slot"]]
        for label, value in planned.labels.items():
            # The queue fixes the value; suggesting it makes it a parameter of the trial.
            trial.suggest_categorical(label, label_values(study.runs, label))
            assert trial.params[label] == value
        return Suggestion(planned.config, attacks=planned.attacks)
    return _search(study.space, study.base, trial, images)


def _search(
    space: SearchSpace, base: ResolvedConfig, trial: optuna.Trial, images: ImageSpec
) -> Suggestion:
    num_modules = base.num_modules
    if space.num_modules is not None:
        num_modules = trial.suggest_int("num_modules", *space.num_modules)
    blocks = _choose_blocks(space, trial, num_modules)
    config = with_blocks(base, blocks, num_modules=num_modules)
    if space.widen_factors is not None:
        factor = trial.suggest_categorical("widen_factor", space.widen_factors)
        config = replace(config, widen_factor=factor)
    if space.attention_inits is not None:
        init: Any = trial.suggest_categorical("attention_init", space.attention_inits)
        config = replace(config, attention_init=init, attention_init_options={})
    if space.weight_decay is not None:
        decay = trial.suggest_float("weight_decay", *space.weight_decay, log=True)
        config = replace(config, weight_decay=decay)
    if space.init_channels is not None:
        config = replace(
            config, init_channels=trial.suggest_int("init_channels", *space.init_channels)
        )
    architecture = config.architecture(images.image_shape, images.num_classes)
    if space.match_parameters is not None:
        architecture = match_parameters(architecture, space.match_parameters)
        config = replace(config, init_channels=architecture.init_channels)
    num_params = count_planned_parameters(architecture)
    budget = space.max_parameters
    excess = None if budget is None else num_params / budget - 1
    return Suggestion(config, num_params, excess=excess)


def _choose_blocks(space: SearchSpace, trial: optuna.Trial, num_modules: int) -> Blocks:
    if space.per == "network":
        return _choose_set(space.blocks, trial, "")
    if space.per == "module":
        return tuple(
            _choose_set(space.blocks, trial, f"module{i + 1:02}.") for i in range(num_modules)
        )
    sets = [_choose_set(space.blocks, trial, f"stage{i + 1}.") for i in range(3)]
    ends = (num_modules // 3, 2 * num_modules // 3, num_modules)
    return tuple(sets[sum(i >= end for end in ends)] for i in range(num_modules))


def _choose_set(pool: Sequence[str], trial: optuna.Trial, prefix: str) -> tuple[str, ...]:
    """A boolean per block: samplers learn more from these than from one choice among subsets."""
    chosen = tuple(
        name for name in pool if trial.suggest_categorical(f"{prefix}{name}", [True, False])
    )
    return chosen or (pool[0],)  # a module needs a block; the record tells the twin apart
