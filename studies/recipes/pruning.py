"""How many blocks a module does a trained network need? (Tab. 4, Sec. 4.8)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

from nasbench_at.config import RunConfig, resolve
from nasbench_at.training.plugins import load_plugins
from studies.config import Label, PlannedRun, StudyConfig
from studies.parents import Matrix, keep_top, learned_weights
from studies.variants import (
    image_spec,
    match_width,
    num_params,
    with_blocks,
    with_seeds,
)

__all__ = ["PruningForm", "pruning"]

PruningForm = Literal["instantiated", "zeroed"]


def pruning(
    base: RunConfig,
    *,
    parents: tuple[Path, ...] = (),
    seeds: Sequence[int] = (0,),
    kept: tuple[int, ...] = (1, 2, 3, 4),
    forms: tuple[PruningForm, ...] = ("instantiated", "zeroed"),
    data_root: Path | None = None,
) -> StudyConfig:
    """Keeps the blocks of highest learned weight, fixes the weights and trains from scratch.

    Seven runs a parent and seed for four blocks: the top one, two and three in both forms, and all
    four with the optimised weights fixed.

    Args:
        base: How to train; the command line takes it from the parent where no flag says otherwise.
        parents: Folders of finished runs with learned weights.
        seeds: Train each with each of these.
        kept: How many blocks of each module are kept.
        forms: ``instantiated``: only what is kept is built, as wide as the parent's parameters
            allow; ``zeroed``: as in the authors' code, all blocks are built at the parent's width
            and the others weigh nothing.
        data_root: Where the data set's files lie.

    Raises:
        ValueError: If a parent is no finished run with learned weights that fit the base's network,
            or a number of blocks or a form is not possible.
    """
    base = base.spelled_out()
    if not parents:
        raise ValueError("pruning needs at least one parent: the folder of a finished run")
    for form in forms:
        if form not in get_args(PruningForm):
            raise ValueError(f"forms must be some of instantiated, zeroed, got {form!r}")
    load_plugins(base.plugins)
    runs: list[PlannedRun] = []
    for parent in parents:
        weights = learned_weights(parent, base, data_root)
        most = max(map(len, weights))
        for count in kept:
            if not 1 <= count <= most:
                raise ValueError(f"kept must lie in 1..{most}, got {count}")
            # With all blocks kept, both forms are one network.
            for form in forms if count < most else forms[:1]:
                labels: dict[str, Label] = {
                    "parent": Path(parent).name,
                    "kept": count,
                    "form": form,
                }
                config = _prune(base, weights, count, form, data_root)
                runs += with_seeds(labels, config, seeds)
    return StudyConfig("pruning", "pruning", resolve(base), tuple(runs))


def _prune(
    base: RunConfig, weights: Matrix, count: int, form: PruningForm, data_root: Path | None
) -> RunConfig:
    kept, rows = keep_top(weights, count)
    fixed = replace(
        base,
        attention="fixed",
        attention_init="given",
        attention_init_options={},
        attention_weights=rows,
        attention_keep=kept,
    )
    if form == "zeroed" or all(len(k) == len(row) for k, row in zip(kept, weights, strict=True)):
        return fixed
    images = image_spec(base, data_root)
    sets = base.architecture(images.image_shape, images.num_classes).blocks
    blocks = tuple(
        tuple(row[column] for column in columns) for row, columns in zip(sets, kept, strict=True)
    )
    packed = tuple(
        tuple(row[column] for column in columns) for row, columns in zip(rows, kept, strict=True)
    )
    pruned = with_blocks(fixed, blocks, attention_weights=packed, attention_keep=None)
    return match_width(pruned, images, num_params(base, images))
