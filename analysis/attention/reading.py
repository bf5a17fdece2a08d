"""Reads attention weights from runs' folders and from tables, sorted by block."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import safetensors
import torch
from numpy.typing import NDArray

from analysis.errors import UnsuitableRunsError
from nasbench_at.config import ResolvedConfig, RunConfig
from nasbench_at.config.architecture import architecture_of
from nasbench_at.config.run_config import config_from_mapping
from nasbench_at.networks.attention import Attention
from nasbench_at.networks.graph import ModuleStage, build_graph, walk_stages
from nasbench_at.records import Record
from nasbench_at.records.run_folders import RunFolder

__all__ = ["AttentionLayout", "TableRun", "read_history", "read_layout", "read_weights"]

_KEY = "attention.logits"


@dataclass(frozen=True, eq=False)
class TableRun:
    """A run of a table, which has its weights' attention in its learning curve alone.

    Attributes:
        record: The run.
        metrics: Its learning curve, a mapping an epoch.
    """

    record: Record
    metrics: Sequence[Mapping[str, Any]]

    @cached_property
    def config(self) -> RunConfig:
        """Its configuration.

        Raises:
            UnsuitableRunsError: If that is no run's, but a user's model's.
        """
        try:
            return ResolvedConfig.of(config_from_mapping(self.record.config))
        except ValueError as error:
            raise UnsuitableRunsError(
                f"record {self.record.run_id!r} is of no run that was trained here: {error}"
            ) from None


class AttentionLayout(NamedTuple):
    """Which block each of a network's attention weights belongs to.

    Attributes:
        modules: Per module, the names of its blocks; a second one of a kind has ``_2`` behind it.
        active: Whether each takes part, shape ``(modules, columns)``: the j-th block of a module
            is column j of the network's matrix.
    """

    modules: tuple[tuple[str, ...], ...]
    active: NDArray[np.bool_]

    @property
    def blocks(self) -> tuple[str, ...]:
        """The names of all modules, each once."""
        return tuple(dict.fromkeys(name for names in self.modules for name in names))

    def __str__(self) -> str:
        kinds = dict.fromkeys(", ".join(names) for names in self.modules)
        return f"{len(self.modules)} modules of {' or '.join(kinds)}"

    def by_block(self, rows: NDArray[np.float64], path: str) -> NDArray[np.float64]:
        """Sorts a matrix by column into one by block, ``(modules, blocks)``, NaN where is none.

        Raises:
            ValueError: If it is not of the network's shape; the message names the path.
        """
        if rows.shape != self.active.shape:
            raise ValueError(
                f"{path!r} holds attention weights of shape {rows.shape}, its network has "
                f"{self.active.shape}"
            )
        columns = self.blocks
        sorted_rows = np.full((len(self.modules), len(columns)), np.nan)
        for i, names in enumerate(self.modules):
            for j, name in enumerate(names):
                sorted_rows[i, columns.index(name)] = rows[i, j]
        return sorted_rows


def read_layout(config: RunConfig) -> AttentionLayout:
    """Returns the layout of a configuration's network.

    Raises:
        ValueError: If that is no DS-Net.
    """
    network = architecture_of(config.to_dict())
    if network is None:
        raise UnsuitableRunsError(
            f"run {config.run_id!r} has no attention weights: {config.model!r} is no DS-Net"
        )
    graph = build_graph(network, with_costs=False)
    stages = [stage for stage in walk_stages(graph) if isinstance(stage, ModuleStage)]
    columns = [[graph.nodes[node]["column"] for node in stage.block_nodes] for stage in stages]
    # The initial logits are drawn from the global generator.
    with torch.random.fork_rng(devices=[]):
        attention = Attention(network.attention, columns, graph.graph["num_columns"])
    return AttentionLayout(
        modules=tuple(tuple(n.partition(".")[2] for n in stage.block_nodes) for stage in stages),
        active=np.array(attention.active, dtype=np.bool_),
    )


def read_weights(run: RunFolder | TableRun, layout: AttentionLayout) -> NDArray[np.float64]:
    """Reads the weights of a run's selected epoch: the softmax of its active blocks' logits.

    Of a run of a table they are those that its learning curve has of that epoch.

    Returns:
        Shape ``(modules, blocks)``.

    Raises:
        ValueError: If the run's weights are missing, damaged or of another network.
    """
    if isinstance(run, TableRun):
        epochs, weights = read_history(run, layout)
        selected = run.record.training.get("selected", {}).get("epoch")
        if selected not in epochs:
            raise UnsuitableRunsError(f"run {run.record.run_id!r} has no selected epoch")
        chosen: NDArray[np.float64] = weights[epochs.tolist().index(selected)]
        return chosen
    path = str(run.best)
    try:
        with safetensors.safe_open(run.best, framework="numpy") as file:
            logits: NDArray[np.float64] = file.get_tensor(_KEY).astype(np.float64)
    except (OSError, safetensors.SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"cannot read attention weights from {path!r}: {reason}") from None
    if logits.shape == layout.active.shape:
        logits[~layout.active] = -np.inf
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return layout.by_block(powers / powers.sum(axis=-1, keepdims=True), path)


def read_history(
    run: RunFolder | TableRun, layout: AttentionLayout
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Reads the epochs of a run's metrics and the weights after each.

    Returns:
        Shapes ``(epochs,)`` and ``(epochs, modules, blocks)``.

    Raises:
        ValueError: If the metrics are missing or damaged, or hold no epoch or no attention weights.
    """
    path = f"the table's row {run.record.run_id}" if isinstance(run, TableRun) else str(run.metrics)
    try:
        rows = _read_lines(run)
        epochs = np.array([row["epoch"] for row in rows], dtype=np.int64)
        matrices = [np.array(row["attention"], dtype=np.float64) for row in rows]
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"no key {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
        raise ValueError(f"cannot read attention weights from {path!r}: {reason}") from None
    if not rows:
        raise ValueError(f"metrics {path!r} hold no epoch")
    return epochs, np.stack([layout.by_block(row, path) for row in matrices])


def _read_lines(run: RunFolder | TableRun) -> Sequence[Mapping[str, Any]]:
    if isinstance(run, TableRun):
        return run.metrics
    return [json.loads(line) for line in run.metrics.read_text("utf-8").splitlines()]
