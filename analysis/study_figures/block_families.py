"""Block sets and those of their subsets that were trained alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.comparability import (
    TECHNICAL_KEYS,
    are_equally_large,
    check_evaluated_alike,
    check_one_number,
    ds_net_of,
    group_by,
    identity_without,
    options_agree,
)
from analysis.errors import IncomparableRunsError
from analysis.study_figures.estimates import ds_nets_of
from nasbench_at.config import DS_NET_FIELDS
from nasbench_at.config.architecture import Architecture
from nasbench_at.records import Record

__all__ = [
    "WIDTH_AND_BLOCKS",
    "BlockFamily",
    "BlockSet",
    "collect_families",
    "has_one_set",
]

BlockSet = frozenset[str]
WIDTH_AND_BLOCKS = DS_NET_FIELDS - {"num_modules", "attention_init_options"}
"""Configuration keys by which networks of different blocks and equal parameters differ."""


@dataclass(frozen=True)
class BlockFamily:
    """A block set and those of its subsets that were trained alike, seed by seed.

    Attributes:
        blocks: The whole set, sorted.
        runs: By subset and seed, the run.
        attack: Whose accuracy is the robust one.
    """

    blocks: tuple[str, ...]
    runs: Mapping[BlockSet, Mapping[int, Record]]
    attack: str

    @property
    def records(self) -> list[Record]:
        """All runs."""
        return [record for by_seed in self.runs.values() for record in by_seed.values()]

    @property
    def is_complete(self) -> bool:
        """Whether there is every subset but the empty one."""
        return len(self.runs) + 1 == 1 << len(self.blocks)

    @property
    def seeds(self) -> list[int]:
        """The seeds with which every subset was trained, in order."""
        return sorted(set.intersection(*(set(by_seed) for by_seed in self.runs.values())))

    def accuracies(self, attack: str) -> dict[BlockSet, NDArray[np.float64]]:
        """Returns by subset its accuracies in [0, 1], one for each of :attr:`seeds`."""
        seeds = self.seeds
        return {
            subset: np.array([by_seed[seed].accuracy(attack) for seed in seeds])
            for subset, by_seed in self.runs.items()
        }


def collect_families(records: Sequence[Record], attack: str, asker: str) -> list[BlockFamily]:
    """Finds the block sets of which subsets were trained alike, the largest sets alone.

    DS-Nets with learned weights from N(0, 1) and one set of different blocks for all modules
    count. Options of a block must be the same in all of a family's networks that have it, and
    the parameters those of the whole set's network, within 10 %.

    Args:
        records: Any records.
        attack: Whose accuracy is the robust one.
        asker: What asks, for messages.

    Returns:
        Families of at least two sets.

    Raises:
        MissingRunsError: If no DS-Net was evaluated by the attack.
        IncomparableRunsError: If runs of a family were evaluated differently, or two of a set have
            one seed.
    """
    searched = [r for r in ds_nets_of(records, attack, asker) if has_one_set(ds_net_of(r))]
    families = []
    trained = group_by(searched, lambda r: identity_without(r, TECHNICAL_KEYS | WIDTH_AND_BLOCKS))
    for alike in trained.values():
        networks = list(group_by(alike, lambda r: identity_without(r, TECHNICAL_KEYS)).values())
        for network in networks:
            if any(_is_within(network[0], other[0]) for other in networks):
                continue
            members = [each for each in networks if _is_within(each[0], network[0])]
            if members:
                families.append(_family(network, members, attack, asker))
    return families


def _is_within(part: Record, whole: Record) -> bool:
    """Whether a network's blocks are some, and not all, of those of another as large as it."""
    is_part = _blocks_of(part) < _blocks_of(whole)
    return is_part and options_agree(part, whole) and are_equally_large(part, whole)


def _family(
    whole: Sequence[Record], members: Sequence[Sequence[Record]], attack: str, asker: str
) -> BlockFamily:
    runs: dict[BlockSet, dict[int, Record]] = {}
    for group in (whole, *members):
        check_one_number(group)
        blocks = _blocks_of(group[0])
        if blocks in runs:
            raise IncomparableRunsError(
                f"{asker} needs one network a block set, got two of {', '.join(sorted(blocks))}: "
                f"{next(iter(runs[blocks].values())).run_id!r} and {group[0].run_id!r}"
            )
        runs[blocks] = {record.config["seed"]: record for record in group}
    family = BlockFamily(tuple(sorted(_blocks_of(whole[0]))), runs, attack)
    check_evaluated_alike(family.records, ("natural", attack), asker)
    return family


def has_one_set(network: Architecture) -> bool:
    """Whether all modules of a searched network choose from one set of different blocks."""
    is_one_set = len(network.all_blocks) == len(network.block_set or ())
    return network.is_searched and network.is_whole and is_one_set


def _blocks_of(record: Record) -> BlockSet:
    return ds_net_of(record).all_blocks
