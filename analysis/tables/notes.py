"""What must be said below a table: seeds, images, attacks, how networks were selected."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from analysis.comparability import group_by
from analysis.tables.table import Row
from nasbench_at.records import AttackResult, Record, describe_attack
from nasbench_at.records.naming.labels import data_label, metric_label
from nasbench_at.records.summary import note_selection

__all__ = ["note_evaluation", "note_left_out", "note_seeds"]


def note_seeds(rows: Iterable[Row]) -> str:
    """Says over how many seeds the numbers are."""
    counts = sorted({cell.num_seeds for row in rows for cell in row.cells if cell.num_seeds})
    if not counts:
        return ""
    if counts == [1]:
        return "Accuracies in percent, of one seed."
    seeds = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"Accuracies in percent, mean ± sample standard deviation over {seeds} seeds."


def note_left_out(
    records: Sequence[Record], rows: Iterable[Row], why: Callable[[Record], str]
) -> str:
    """Says how many of the runs are in none of a table's rows and why; empty if all are.

    Args:
        records: All runs.
        rows: The table's rows.
        why: Why a run is left out, as words that follow a number of runs.
    """
    used = {run_id for row in rows for cell in row.cells for run_id in cell.run_ids}
    reasons = Counter(
        why(record) if record.was_evaluated_by("natural") else "not evaluated"
        for record in records
        if record.run_id not in used
    )
    if not reasons:
        return ""
    texts = "; ".join(f"{count:,} {reason}" for reason, count in reasons.most_common())
    return f"Left out {reasons.total():,} of {len(records):,} runs: {texts}."


def note_evaluation(records: Sequence[Record], metrics: Sequence[str]) -> list[str]:
    """Says on how many images of what, under which attacks; and how the networks were selected."""
    said: dict[str, list[str]] = {}
    for data, group in group_by(records, lambda record: str(record.config.get("data"))).items():
        said.setdefault(_describe_evaluation(group, metrics), []).append(data_label(data))
    notes = [f"{' and '.join(labels)}: {text}." for text, labels in said.items()]
    if selection := note_selection(records):
        notes.append(f"{selection}.")
    return notes


def _describe_evaluation(records: Sequence[Record], metrics: Sequence[str]) -> str:
    """Radius, attacks and images of one data set; a number of images that all share once."""
    results = {metric: _result_of(records, metric) for metric in metrics}
    found = {metric: result for metric, result in results.items() if result is not None}
    counts = {result.num_samples for result in found.values()}
    radii = {metric: text for metric, result in found.items() if (text := _radius(result))}
    is_one = len(set(radii.values())) == 1
    parts = [*radii.values()][:1] if is_one else []
    if len(counts) == 1:
        parts.append(f"{counts.pop():,} images")
    for metric, result in found.items():
        attack = ", ".join(
            filter(None, ["" if is_one else radii.get(metric), describe_attack(result.settings)])
        )
        images = f"{result.num_samples:,} images" if counts else ""
        if details := ", ".join(filter(None, [attack, images])):
            parts.append(f"{metric_label(metric)}: {details}")
    return "; ".join(parts)


def _radius(result: AttackResult) -> str:
    return "" if result.eps is None else f"{result.norm} radius {result.eps}"


def _result_of(records: Sequence[Record], metric: str) -> AttackResult | None:
    record = next((record for record in records if record.was_evaluated_by(metric)), None)
    return None if record is None else record.results[metric]
