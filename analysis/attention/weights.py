"""Attention weights of groups of runs, their course, their entropy and their distances."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.attention.reading import TableRun, read_history, read_layout, read_weights
from analysis.errors import IncomparableRunsError
from nasbench_at.records.naming.variants import name_run
from nasbench_at.records.run_folders import RunFolder

__all__ = [
    "AttentionHistory",
    "AttentionWeights",
    "attention_distances",
    "attention_entropy",
    "compute_attention",
    "compute_attention_history",
]


@dataclass(frozen=True)
class AttentionWeights:
    """What multiplies the blocks after training, of runs that weigh the same blocks.

    Attributes:
        name: The group's.
        runs: Names of the runs.
        blocks: Names of the columns. A second block of one kind in a module has ``_2`` behind it.
        modules: Per module, the names of its blocks in order.
        weights: Shape ``(runs, modules, blocks)``; NaN where a module lacks a block, 0 where it has
            the block but leaves it out. The others of a module sum to 1.
    """

    name: str
    runs: tuple[str, ...]
    blocks: tuple[str, ...]
    modules: tuple[tuple[str, ...], ...]
    weights: NDArray[np.float64]

    @property
    def num_seeds(self) -> int:
        """Number of runs."""
        return len(self.runs)

    @property
    def mean(self) -> NDArray[np.float64]:
        """Mean over the runs, shape ``(modules, blocks)``."""
        mean: NDArray[np.float64] = self.weights.mean(axis=0)
        return mean


@dataclass(frozen=True)
class AttentionHistory:
    """A run's attention weights after each epoch.

    Attributes:
        name: The run's network and seed.
        epochs: From 1, shape ``(epochs,)``.
        blocks: Names of the columns, as in :class:`AttentionWeights`.
        modules: Per module, the names of its blocks in order.
        weights: Shape ``(epochs, modules, blocks)``; NaN where a module lacks a block.
    """

    name: str
    epochs: NDArray[np.int64]
    blocks: tuple[str, ...]
    modules: tuple[tuple[str, ...], ...]
    weights: NDArray[np.float64]


def compute_attention(runs: Sequence[RunFolder | TableRun], *, name: str = "") -> AttentionWeights:
    """Collects the weights of runs' selected epochs.

    Args:
        runs: They differ in their seed, say; all must weigh the same blocks.
        name: The group's; by default the first run's network and seed.

    Raises:
        ValueError: If there are none, one is given twice, is no DS-Net or has no weights, or their
            modules differ.

    Reference:
        Sec. 4.6 of the paper.
    """
    if not runs:
        raise ValueError("there must be at least one run, got none")
    names = tuple(run.config.run_id for run in runs)
    for run_id in names:
        if names.count(run_id) > 1:
            raise ValueError(f"each run counts once, got {run_id!r} {names.count(run_id)} times")
    layouts = [read_layout(run.config) for run in runs]
    for run_id, layout in zip(names, layouts, strict=True):
        if layout.modules != layouts[0].modules:
            raise IncomparableRunsError(
                f"runs of one group must weigh the same blocks, got {layouts[0]} of "
                f"{names[0]!r} and {layout} of {run_id!r}"
            )
    rows = [read_weights(*pair) for pair in zip(runs, layouts, strict=True)]
    return AttentionWeights(
        name=name or name_run(runs[0].config.to_dict()),
        runs=names,
        blocks=layouts[0].blocks,
        modules=layouts[0].modules,
        weights=np.stack(rows),
    )


def compute_attention_history(run: RunFolder | TableRun) -> AttentionHistory:
    """Collects a run's weights after each epoch from its metrics.

    Raises:
        ValueError: If the run is no DS-Net, or has no metrics with attention weights.
    """
    layout = read_layout(run.config)
    epochs, weights = read_history(run, layout)
    return AttentionHistory(
        name_run(run.config.to_dict()), epochs, layout.blocks, layout.modules, weights
    )


def attention_entropy(
    weights: NDArray[np.float64], *, normalised: bool = False
) -> NDArray[np.float64]:
    """Computes how evenly modules weigh their blocks: −Σ w log w.

    Args:
        weights: Shape ``(..., blocks)``, in [0, 1]; NaN and 0 do not count.
        normalised: Divide by the logarithm of the number of active blocks, those that weigh more
            than 0, so that equal weights have 1.

    Returns:
        Shape ``(...,)``, in nats, or in [0, 1] if normalised; NaN there for a single active block.
    """
    active = weights > 0
    logarithms = np.log(weights, where=active, out=np.zeros_like(weights))
    # 0 added: the entropy of a single block is 0 and not −0.
    terms = np.where(active, weights, 0.0) * logarithms
    entropy: NDArray[np.float64] = 0.0 - terms.sum(axis=-1)
    if not normalised:
        return entropy
    largest = np.log(active.sum(axis=-1))
    shares: NDArray[np.float64] = np.full_like(entropy, np.nan)
    np.divide(entropy, largest, where=largest > 0, out=shares)
    return shares


def attention_distances(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Computes the l∞ distance between the weights of each two runs: the largest difference.

    Args:
        weights: Shape ``(runs, modules, blocks)``; NaN where a module lacks a block.

    Returns:
        Shape ``(runs, runs)``, symmetrical, in [0, 1].

    Raises:
        ValueError: If the runs' modules lack different blocks.

    Reference:
        Sec. 4.4 of the paper, which compares runs of different initial weights.
    """
    lacking = np.isnan(weights)
    if (lacking != lacking[0]).any():
        raise ValueError("runs must have the same blocks in the same modules to be compared")
    flat = np.where(lacking, 0.0, weights).reshape(len(weights), -1)
    distances: NDArray[np.float64] = np.abs(flat[:, None] - flat[None, :]).max(axis=-1)
    return distances
