"""Copies of a run, found in several places: one record with all that any of them knows."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from nasbench_at.records.record import Record

__all__ = ["MergedRecord", "merge_copies"]


@dataclass(frozen=True)
class MergedRecord:
    """A run, from all of its copies.

    Attributes:
        record: Its record, with the evaluations of them all.
        sources: Which of the copies it is made of, by number; where two contradict each other, the
            later one holds.
    """

    record: Record
    sources: tuple[int, ...]


def merge_copies(records: Sequence[Record]) -> list[MergedRecord]:
    """Makes one record of all that have a run's id.

    In which order they come decides nothing but the order of the runs. Records do not say when an
    evaluation was made: where copies disagree about the same attack on the same images, that with
    the most rows holds, of equally long ones that with the fewest images right, so that robustness
    is not overstated, and a warning says so. Of several trainings of one configuration, whose
    weights differ, only that with the most rows is kept, with another warning.

    Args:
        records: Records, of which some may be of one run.

    Returns:
        A record a run, in the order in which they are found first.
    """
    copies: dict[str, list[int]] = {}
    for number, record in enumerate(records):
        copies.setdefault(record.run_id, []).append(number)
    merged, trained_anew, contradictions = [], [], []
    for run_id, numbers in copies.items():
        if len(numbers) == 1:
            merged.append(MergedRecord(records[numbers[0]], (numbers[0],)))
            continue
        trainings: dict[str, list[int]] = {}
        for number in numbers:
            trainings.setdefault(_training_of(records[number]), []).append(number)
        found = [_merge(records, each) for each in trainings.values()]
        if len(found) > 1:
            found.sort(key=lambda pair: (_standing(pair[0].record), _write(pair[0].record)))
            measured = ", ".join(found[-1][0].record.results) or "nothing"
            trained_anew.append(
                f"run {run_id!r} was trained {len(found)} times, which are not merged: kept "
                f"the training evaluated by {measured}"
            )
        kept, disagreements = found[-1]
        merged.append(kept)
        contradictions += disagreements
    for first, *rest in filter(None, (trained_anew, contradictions)):
        likewise = f"; likewise of {len(rest)} more runs" if rest else ""
        warnings.warn(first + likewise, stacklevel=3)
    return merged


def _training_of(record: Record) -> str:
    """What copies of one training have in common, whatever was measured where.

    A user's model is told by its weights; its record says where it was evaluated first.
    """
    known = record.config.get("weights_hash") or [record.training, record.provenance]
    return json.dumps(known, sort_keys=True)


def _standing(record: Record) -> tuple[int, int]:
    """By what copies are sorted, the last of which holds."""
    rows = record.all_results
    return len(rows), -sum(row.num_correct for row in rows)


def _merge(records: Sequence[Record], numbers: Iterable[int]) -> tuple[MergedRecord, list[str]]:
    """Merges the copies of one training; also says in which row two disagree, if in any."""
    distinct: list[Record] = []
    for number in numbers:
        if records[number] not in distinct:
            distinct.append(records[number])
    if len({_standing(record) for record in distinct}) < len(distinct):
        distinct.sort(key=_write)  # whichever then holds, it is the same one each time
    distinct.sort(key=_standing)
    merged, *others = distinct
    contradictions: dict[str, str] = {}
    for other in others:
        known = {row.key: row for row in merged.all_results}
        for evaluation in other.evaluations:
            rows = []
            for row in evaluation.results:
                old = known.get(row.key)
                if old is not None and old.num_correct == row.num_correct:
                    continue  # it stays where it was: before what was measured since
                if old is not None:
                    contradictions[row.key] = (
                        f"{row.attack} has {old.num_correct} and {row.num_correct} of "
                        f"{row.num_samples} images right, of which the latter is kept"
                    )
                rows.append(row)
            if rows:
                merged = merged.with_evaluation(replace(evaluation, results=tuple(rows)))
        merged = replace(other, evaluations=merged.evaluations)
    sources = sorted(numbers, key=lambda number: distinct.index(records[number]))
    said = [f"copies of run {merged.run_id!r} disagree: {'; '.join(contradictions.values())}"]
    return MergedRecord(merged, tuple(sources)), said if contradictions else []


def _write(record: Record) -> str:
    return json.dumps(record.to_dict(), sort_keys=True)
