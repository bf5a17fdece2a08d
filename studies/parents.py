"""What a study takes from a finished run: its learned attention weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import torch

from nasbench_at.config import RunConfig
from nasbench_at.evaluation.runs import Run
from nasbench_at.networks.ds_net import DSNet

__all__ = ["Matrix", "keep_top", "learned_weights"]

Matrix: TypeAlias = tuple[tuple[float, ...], ...]


def learned_weights(
    path: str | Path, base: RunConfig, data_root: str | Path | None = None
) -> Matrix:
    """Returns the attention weights that a finished run has learned: a row a module, one a block.

    Args:
        path: The run's folder.
        base: The run that is to take them: it must weigh the same blocks.
        data_root: Where the data set's files lie.

    Raises:
        ValueError: If the run is not finished, has not learned its weights or weighs other blocks.
    """
    run = Run.open(path, device="cpu", data_root=data_root)
    config = run.config
    if config.model != "ds_net" or config.attention != "learned":
        raise ValueError(
            f"parent run {str(path)!r} has no learned weights: its model is {config.model!r}, its "
            f"attention {config.attention}"
        )
    if not run.folder.record.exists() or not run.record.training:
        raise ValueError(f"parent run {str(path)!r} is not finished")
    if (config.blocks, config.num_modules) != (base.blocks, base.num_modules):
        raise ValueError(
            f"parent run {str(path)!r} weighs {config.num_modules} modules of {config.blocks}, "
            f"the study's network {base.num_modules} of {base.blocks}"
        )
    network = run.network
    assert isinstance(network, DSNet)
    with torch.no_grad():
        rows = network.attention.weights().double()
    sets = config.architecture((1, 8, 8), 2).blocks  # whatever the images are
    return tuple(
        tuple((row[: len(blocks)] / row.sum()).tolist())
        for row, blocks in zip(rows, sets, strict=True)
    )


def keep_top(weights: Matrix, count: int) -> tuple[tuple[tuple[int, ...], ...], Matrix]:
    """Keeps the highest weights of each module and scales them to sum 1 (Sec. 4.8).

    Args:
        weights: A row a module.
        count: How many are kept; of equal weights the first.

    Returns:
        The kept columns of each row in order, and the rows with zeros elsewhere.
    """
    kept = tuple(_top(row, count) for row in weights)
    rows = []
    for row, columns in zip(weights, kept, strict=True):
        total = sum(row[column] for column in columns)
        rows.append(tuple(row[i] / total if i in columns else 0.0 for i in range(len(row))))
    return kept, tuple(rows)


def _top(row: Sequence[float], count: int) -> tuple[int, ...]:
    """The columns of the highest weights; a module without so many blocks keeps what it has."""
    present = [column for column, weight in enumerate(row) if weight > 0]
    return tuple(sorted(sorted(present, key=lambda column: -row[column])[:count]))
