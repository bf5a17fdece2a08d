"""The attention weights of DS-Nets, as numbers and on the edges of their graphs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import networkx as nx
from safetensors import SafetensorError, safe_open

from analysis.comparability import architecture_by_hash
from analysis.run_entries import RunEntry
from nasbench_at.config.architecture import Architecture, architecture_of
from nasbench_at.networks.graph import build_graph
from nasbench_at.records import Record
from nasbench_at.records.naming.variants import name_run

__all__ = ["AttentionView", "attention_views", "find_graph"]

_RESOLUTIONS = range(4, 513)
_NAMED = re.compile(r"\w+\((?P<classes>\d+),(?P<shape>\d+x\d+x\d+)")


@dataclass(frozen=True)
class AttentionView:
    """The weights of one run's selected epoch.

    Attributes:
        run_id: The run.
        label: Its network and seed.
        epoch: The epoch.
        columns: Names of the columns: blocks, or their numbers where modules differ.
        weights: A row a module, each summing to 1.
        is_learned: Whether they were learned.
    """

    run_id: str
    label: str
    epoch: int
    columns: tuple[str, ...]
    weights: tuple[tuple[float, ...], ...]
    is_learned: bool


def attention_views(entries: Sequence[RunEntry]) -> list[AttentionView]:
    """Returns the weights of all DS-Nets whose epochs are known, fixed and equal ones left out."""
    views = (_view(entry) for entry in entries)
    return [view for view in views if view is not None]


def _view(entry: RunEntry) -> AttentionView | None:
    network = architecture_of(entry.config)
    if network is None or entry.attention is None or network.attention.init == "equal":
        return None
    epoch, weights = entry.attention
    numbers = tuple(f"block {i + 1}" for i in range(len(weights[0])))
    return AttentionView(
        run_id=entry.run_id,
        label=name_run(entry.config),
        epoch=epoch,
        columns=network.block_set or numbers,
        weights=weights,
        is_learned=network.attention.mode == "learned",
    )


def find_graph(entry: RunEntry) -> nx.DiGraph[str] | None:
    """Returns the graph of a run's DS-Net, without its costs, for which torch is not needed.

    Data sets need not be at hand: of a network by name the record tells the images' size and the
    classes; of others channels and classes are read from the run's weights, or without these are
    those of the usual data sets, and the images' size is the one that gives the architecture's
    hash.

    Returns:
        The graph; None if that does not succeed.
    """
    if entry.record is None:
        return None
    named = _NAMED.match(entry.record.architecture)
    architecture = (
        _architecture_of_hash(entry, entry.record)
        if named is None
        else _architecture_of_name(entry, named)
    )
    return None if architecture is None else build_graph(architecture, with_costs=False)


def _architecture_of_name(entry: RunEntry, named: re.Match[str]) -> Architecture | None:
    channels, height, width = map(int, named["shape"].split("x"))
    return architecture_of(entry.config, (channels, height, width), int(named["classes"]))


def _architecture_of_hash(entry: RunEntry, record: Record) -> Architecture | None:
    if entry.folder is None:
        return architecture_by_hash(record)
    sizes = _read_sizes(entry)
    if sizes is None:
        return None
    channels, num_classes = sizes
    sides = (((channels, side, side), num_classes) for side in _RESOLUTIONS)
    return architecture_by_hash(record, sides)


def _read_sizes(entry: RunEntry) -> tuple[int, int] | None:
    """Reads the images' channels and the number of classes from the shapes of the weights."""
    if entry.folder is None:
        return None
    try:
        with safe_open(entry.folder / "best.safetensors", "np") as file:
            names = set(file.keys())
            if not {"stem.weight", "head.weight"} <= names:
                return None
            stem = file.get_slice("stem.weight").get_shape()
            head = file.get_slice("head.weight").get_shape()
    except (OSError, SafetensorError):
        return None
    return int(stem[1]), int(head[0])
