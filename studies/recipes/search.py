"""Which blocks? The principled selection that the paper leaves open, as a search."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from blocks import list_blocks
from nasbench_at.config import RunConfig, resolve
from nasbench_at.config.allowed_values import Count, Name, Range, Seed
from nasbench_at.config.architecture import (
    AttentionInit,
    InitChannels,
    NumModules,
    NumParameters,
    WidenFactor,
)
from nasbench_at.training.plugins import load_plugins
from studies.config import Objective, PrunerName, SamplerName, StudyConfig
from studies.space import Granularity, Screening, SearchSpace
from studies.variants import fit_width, image_spec, match_width, with_blocks

__all__ = ["search"]


def search(
    base: RunConfig,
    *,
    num_trials: Count = 40,
    pool: tuple[Name, ...] = (),
    per: Granularity = "network",
    depths: tuple[NumModules, NumModules] | None = None,
    widths: tuple[InitChannels, InitChannels] | None = None,
    widen_factors: tuple[WidenFactor, ...] | None = None,
    inits: tuple[AttentionInit, ...] | None = None,
    weight_decays: tuple[float, float] | None = None,
    match_parameters: NumParameters | None = None,
    max_parameters: NumParameters | None = None,
    max_seconds_per_step: Annotated[float, Range("(0, inf)")] | None = None,
    objectives: tuple[Objective, ...] = ("robust",),
    sampler: SamplerName = "tpe",
    sampler_seed: Seed = 0,
    pruner: PrunerName | None = None,
    screening_epochs: Annotated[int, Range("[0, 100000]")] = 0,
    screening_attack_steps: Annotated[int, Range("[1, 10000]")] = 1,
    screening_keep: Annotated[float, Range("(0, 1)")] = 0.5,
    data_root: Path | None = None,
) -> StudyConfig:
    """Searches block sets, depth, width, initial weights and weight decay under a budget.

    Trials are judged on held-out images. With one objective, Hyperband stops those that fall
    behind; a promoted trial goes on training.

    Args:
        base: The run whose other settings hold for all.
        num_trials: Networks to try.
        pool: Blocks to choose from; by default the whole registry.
        per: One block set for the network, one a stage, or one a module.
        depths: Lowest and highest number of modules.
        widths: Lowest and highest width of the first stage.
        widen_factors: Factors to choose from.
        inits: Initial distributions of the attention weights to choose from.
        weight_decays: Lowest and highest weight decay.
        match_parameters: Choose the width closest to this number of parameters.
        max_parameters: Train no network with more parameters than this.
        max_seconds_per_step: Count a network that is slower as infeasible.
        objectives: robust, natural, parameters, seconds_per_step; several give a Pareto front.
        sampler: tpe, random, nsga2, gp, qmc or brute_force.
        sampler_seed: Its seed.
        pruner: none, hyperband, successive_halving or median; default hyperband with one objective.
        screening_epochs: Epochs of a cheap first rung with a weaker attack; 0 is none.
        screening_attack_steps: Steps of that attack.
        screening_keep: Part of the screened networks that is then trained in earnest.
        data_root: Where the data set's files lie.

    Raises:
        ValueError: If a block is unknown, or no width of any of them meets the budget.
    """
    base = base.spelled_out()
    load_plugins(base.plugins)
    known = list_blocks()
    for name in pool:
        if name not in known:
            raise ValueError(
                f"pool must name blocks: {', '.join(known)}; got {name!r}; --plugins FILE adds "
                "your own"
            )
    screening = (
        Screening(screening_epochs, screening_attack_steps, screening_keep)
        if screening_epochs
        else None
    )
    space = SearchSpace(
        blocks=pool or tuple(known),
        per=per,
        num_modules=depths,
        init_channels=widths,
        widen_factors=widen_factors,
        attention_inits=inits,
        weight_decay=weight_decays,
        match_parameters=match_parameters,
        max_parameters=max_parameters,
        max_seconds_per_step=max_seconds_per_step,
        screening=screening,
    )
    resolved = resolve(with_blocks(base, space.blocks))
    _check_budget(space, resolved, data_root)
    chosen: PrunerName = pruner or ("hyperband" if len(objectives) == 1 else "none")
    return StudyConfig(
        name="search",
        recipe="search",
        base=resolved,
        space=space,
        num_trials=num_trials,
        objectives=objectives,
        sampler=sampler,
        sampler_options={} if sampler == "brute_force" else {"seed": sampler_seed},
        pruner=chosen,
        pruner_options=(
            {"min_resource": 1, "max_resource": resolved.epochs, "reduction_factor": 3}
            if chosen == "hyperband"
            else {}
        ),
        attacks=(),
    )


def _check_budget(space: SearchSpace, base: RunConfig, data_root: Path | None) -> None:
    """Refuses a budget that not even the smallest networks of the space meet."""
    budget = space.max_parameters or space.match_parameters
    if budget is None:
        return
    images = image_spec(base, data_root)
    depth = base.num_modules if space.num_modules is None else space.num_modules[0]
    fit = fit_width if space.max_parameters is not None else match_width
    reason = ""
    for name in space.blocks:
        try:
            fit(with_blocks(base, (name,), num_modules=depth), images, budget)
        except ValueError as error:
            reason = str(error)
        else:
            return
    raise ValueError(f"no block of the space fits: {reason}")
