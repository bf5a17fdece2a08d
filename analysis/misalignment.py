"""Natural accuracy after standard training against robustness after adversarial training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

import pandas as pd

from analysis.comparability import check_evaluated_alike
from analysis.errors import IncomparableRunsError
from nasbench_at.records import Record

__all__ = ["Misalignment", "MisalignmentRow", "compute_misalignment"]

_TABLE = "the ranking of natural and robust accuracies"


@dataclass(frozen=True)
class MisalignmentRow:
    """One network of the table.

    Attributes:
        model: Its name.
        natural: Natural accuracies after standard training, one a seed, in [0, 1].
        robust: Accuracies under PGD-20 after adversarial training, one a seed.
        natural_rank: Rank by mean natural accuracy, 1 the best; equal means share a rank.
        robust_rank: Rank by mean robustness.
    """

    model: str
    natural: tuple[float, ...]
    robust: tuple[float, ...]
    natural_rank: int
    robust_rank: int


@dataclass(frozen=True)
class Misalignment:
    """The table, best natural accuracy first, and how far the two orders agree.

    Attributes:
        rows: The networks.
        num_samples: Test images behind each accuracy.
        correlation: Spearman's rank correlation of the means, in [-1, 1]; NaN if one of the two is
            the same for all networks.
    """

    rows: tuple[MisalignmentRow, ...]
    num_samples: int
    correlation: float


def compute_misalignment(records: Sequence[Record]) -> Misalignment:
    """Ranks networks twice, as Table 1 of the paper does.

    Args:
        records: Evaluated runs, natural and PGD, of at least two networks on the same images: some
            of method ``st``, whose natural accuracy counts, and others, whose robustness does.

    Raises:
        ValueError: If a run is not evaluated, the images or radii differ, or a network lacks one
            of the two ways of training.
    """
    natural: dict[str, list[float]] = {}
    robust: dict[str, list[float]] = {}
    num_samples = 0
    for record in records:
        results = record.results
        if not {"natural", "pgd"} <= results.keys():
            raise IncomparableRunsError(
                f"run {record.run_id} lacks an evaluation with natural and pgd"
            )
        num_samples = results["natural"].num_samples
        is_standard = record.config["method"] == "st"
        side, row = (natural, "natural") if is_standard else (robust, "pgd")
        side.setdefault(record.config["model"], []).append(results[row].accuracy)
    check_evaluated_alike(records, ["natural"], _TABLE)
    check_evaluated_alike([r for r in records if r.config["method"] != "st"], ["pgd"], _TABLE)
    if unpaired := natural.keys() ^ robust.keys():
        raise IncomparableRunsError(
            f"networks must be trained by st and by another method, got only one of them for "
            f"{', '.join(sorted(unpaired))}"
        )
    if len(natural) < 2:
        raise IncomparableRunsError(
            f"at least two networks can be ranked, got {', '.join(natural)}"
        )
    return Misalignment(_rank(natural, robust), num_samples, _correlation(natural, robust))


def _rank(
    natural: Mapping[str, Sequence[float]], robust: Mapping[str, Sequence[float]]
) -> tuple[MisalignmentRow, ...]:
    def rank(side: Mapping[str, Sequence[float]], model: str) -> int:
        return 1 + sum(mean(values) > mean(side[model]) for values in side.values())

    rows = [
        MisalignmentRow(
            model=model,
            natural=tuple(natural[model]),
            robust=tuple(robust[model]),
            natural_rank=rank(natural, model),
            robust_rank=rank(robust, model),
        )
        for model in natural
    ]
    return tuple(sorted(rows, key=lambda row: row.natural_rank))


def _correlation(
    natural: Mapping[str, Sequence[float]], robust: Mapping[str, Sequence[float]]
) -> float:
    """Spearman's correlation: Pearson's, of the ranks."""
    one, other = (
        pd.Series([mean(side[model]) for model in natural]).rank() for side in (natural, robust)
    )
    return one.corr(other)
