"""The runs of the table of digits that is shipped (beyond the paper)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Literal, get_args

from nasbench_at.config import RunConfig, resolve
from nasbench_at.config.architecture import TRAINED_BLOCKS
from nasbench_at.config.presets import DATA_NETWORKS
from studies.config import Label, PlannedRun, StudyConfig
from studies.recipes.initialization import DISTRIBUTIONS
from studies.recipes.weight_decay import WEIGHT_DECAYS
from studies.variants import image_spec, match_width, num_params, with_blocks, with_training

__all__ = ["TablePart", "nasbench_at_digits"]

TablePart = Literal["blocks", "shared_norms", "fixed", "initialization", "weight_decay", "methods"]

POOL = (*TRAINED_BLOCKS, "resnext", "plain_conv")
METHODS = (("trades", 6.0, TRAINED_BLOCKS), ("fast_at", None, POOL), ("st", None, POOL))
"""Each with its beta and the blocks whose subsets it trains."""
TOLERANCE = 0.02
"""By how much of the full set's parameters networks may differ from it."""
PROTOCOL = RunConfig(
    data="digits",
    blocks=POOL,
    block_options={"ada_rk": {"separate_norms": True}},
    method="at",
    eps=0.15,
    epochs=10,
    **DATA_NETWORKS["digits"],
)


def nasbench_at_digits(
    base: RunConfig,
    *,
    seeds: Sequence[int] = (0, 1, 2, 3, 4, 5, 6, 7, 8, 9),
    parts: tuple[TablePart, ...] = get_args(TablePart),
    data_root: Path | None = None,
) -> StudyConfig:
    """Trains what the shipped table of digits holds: block sets, variants, methods, many seeds.

    2,250 runs of half a minute on one core at most. Every network has the parameters of the full
    set, within 2 %, and is attacked by FGSM, PGD-20 and C&W-30 on all 500 test images. More seeds
    extend the table.

    Args:
        base: Nothing of it counts: the protocol is the table's own.
        seeds: Train each network with each of these; the last one's get AutoAttack, too.
        parts: ``blocks``: all 63 subsets of the paper's four blocks, resnext and plain_conv, Ada-RK
            with norms of its own for each copy. ``shared_norms``: those of the paper's blocks
            that have Ada-RK, as published. ``fixed``: the paper's four blocks with fixed weights,
            and each block four times. ``initialization``: the paper's four blocks from other
            distributions of initial logits than the normal one. ``weight_decay``: with others than
            5e-4. ``methods``: all 63 subsets by standard and by fast
            adversarial training, the 15 of the paper's blocks by TRADES.
        data_root: Where the data set's files lie.

    Raises:
        ValueError: If the base differs from what the data set has by default, or a part is unknown.
    """
    if base != RunConfig(**DATA_NETWORKS["digits"], seed=base.seed):
        raise ValueError(
            "nasbench-at-digits has a protocol of its own and takes no flags of a run; for another "
            "table there are the recipes block-space, block-ensemble and methods"
        )
    for part in parts:
        if part not in get_args(TablePart):
            raise ValueError(
                f"parts must be some of {', '.join(get_args(TablePart))}, got {part!r}"
            )
    images = image_spec(PROTOCOL, data_root)
    target = num_params(PROTOCOL, images)
    runs = []
    for part in parts:
        networks = [
            (labels, match_width(config, images, target, TOLERANCE))
            for labels, config in _PARTS[part]()
        ]
        # All networks with one seed, then with the next: what is there at any time is balanced.
        for seed in seeds:
            attacks = ("aa",) if part == "blocks" and seed == seeds[-1] else ()
            runs += [
                PlannedRun({**labels, "seed": seed}, resolve(replace(config, seed=seed)), attacks)
                for labels, config in networks
            ]
    return StudyConfig(
        "nasbench-at-digits", "nasbench-at-digits", resolve(PROTOCOL), tuple(runs), aa_samples=100
    )


_Network = tuple[dict[str, Label], RunConfig]


def _subsets(pool: Sequence[str]) -> Iterator[tuple[str, ...]]:
    for size in range(1, len(pool) + 1):
        yield from combinations(pool, size)


def _labels(blocks: Sequence[str], variant: str, method: str = "at") -> dict[str, Label]:
    chosen: dict[str, Label] = {name: name in blocks for name in POOL}
    return {**chosen, "variant": variant, "method": method}


def _blocks() -> Iterator[_Network]:
    for subset in _subsets(POOL):
        yield _labels(subset, "learned"), with_blocks(PROTOCOL, subset)


def _shared_norms() -> Iterator[_Network]:
    published = replace(PROTOCOL, block_options={})
    for subset in _subsets(TRAINED_BLOCKS):
        if "ada_rk" in subset:
            yield _labels(subset, "shared norms"), with_blocks(published, subset)


def _fixed() -> Iterator[_Network]:
    uniform = replace(PROTOCOL, attention="fixed", attention_init="equal")
    yield _labels(TRAINED_BLOCKS, "fixed"), with_blocks(uniform, TRAINED_BLOCKS)
    for name in TRAINED_BLOCKS:
        yield _labels((name,), "same block"), with_blocks(uniform, (name,) * len(TRAINED_BLOCKS))


def _initialization() -> Iterator[_Network]:
    for name in DISTRIBUTIONS:
        if name != resolve(PROTOCOL).attention_init:  # that is one of the subsets
            config = replace(PROTOCOL, attention_init=name)
            yield _labels(TRAINED_BLOCKS, f"{name} logits"), with_blocks(config, TRAINED_BLOCKS)


def _weight_decay() -> Iterator[_Network]:
    for value in WEIGHT_DECAYS:
        if value != resolve(PROTOCOL).weight_decay:
            config = replace(PROTOCOL, weight_decay=value)
            labels = _labels(TRAINED_BLOCKS, f"weight decay {value:g}")
            yield labels, with_blocks(config, TRAINED_BLOCKS)


def _methods() -> Iterator[_Network]:
    for method, beta, pool in METHODS:
        for subset in _subsets(pool):
            config = with_training(with_blocks(PROTOCOL, subset), method, beta)
            yield _labels(subset, "learned", method), config


_PARTS: Mapping[TablePart, Callable[[], Iterator[_Network]]] = {
    "blocks": _blocks,
    "shared_norms": _shared_norms,
    "fixed": _fixed,
    "initialization": _initialization,
    "weight_decay": _weight_decay,
    "methods": _methods,
}
