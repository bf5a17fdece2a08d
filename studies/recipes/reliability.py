"""Which way of training tells block sets apart, and by how many seeds? (beyond the paper)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

from nasbench_at.config import RunConfig, resolve
from nasbench_at.config.run_config import SelectOn
from studies.config import PlannedRun, StudyConfig
from studies.recipes.block_space import block_space
from studies.variants import common_blocks

__all__ = ["reliability"]

EPOCHS = (5, 10, 20)


def reliability(
    base: RunConfig,
    *,
    seeds: Sequence[int] = (0, 1, 2, 3, 4, 5, 6, 7),
    sizes: tuple[int, ...] = (),
    num_epochs: tuple[int, ...] = (),
    radii: tuple[float, ...] = (),
    ema_decays: tuple[float, ...] = (),
    selections: tuple[SelectOn, ...] = (),
    data_root: Path | None = None,
) -> StudyConfig:
    """Trains a few block sets in several ways, to see which way ranks them reliably.

    120 runs for the paper's four blocks: five networks, three numbers of epochs, eight seeds.
    ``nasbench-at figure reliability`` draws what they say.

    Args:
        base: The run with the full set; its values hold where no others are given.
        seeds: Train each with each of these.
        sizes: Sizes of the subsets that are trained; by default each block alone, and all.
        num_epochs: Numbers of epochs; by default 5, 10 and 20, or the one that the run sets.
        radii: Radii of the perturbation that is trained against.
        ema_decays: Decays of the weights' exponential average; 0 is without.
        selections: What the kept epoch is selected on: validation, test, last.
        data_root: Where the data set's files lie.

    Raises:
        ValueError: As :func:`block_space <studies.recipes.block_space.block_space>`.
    """
    base = base.spelled_out()
    filled = resolve(base)
    if not sizes:
        sizes = tuple(sorted({1, len(common_blocks(base, "reliability"))}))
    ways = product(
        num_epochs or (EPOCHS if base.epochs is None else (base.epochs,)),
        radii or (filled.eps,),
        ema_decays or (filled.ema_decay,),
        selections or (filled.select_on,),
    )
    runs = []
    for epochs, eps, decay, select_on in ways:
        way = replace(base, epochs=epochs, eps=eps, ema_decay=decay, select_on=select_on)
        labels = {"epochs": epochs, "eps": eps, "ema_decay": decay, "select_on": select_on}
        networks = block_space(way, seeds=seeds, sizes=sizes, data_root=data_root)
        runs += [
            PlannedRun({**planned.labels, **labels}, planned.config) for planned in networks.runs
        ]
    return StudyConfig("reliability", "reliability", filled, tuple(runs))
