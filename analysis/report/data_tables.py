"""The page's large tables as compact data, which the reader's browser lays out page by page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from analysis.report.groups import ConditionNotes, SeedGroup, attack_names
from analysis.run_entries import RunEntry
from analysis.study_figures import LearningCurve
from nasbench_at.records import AttackResult
from nasbench_at.records.naming.labels import metric_label

__all__ = ["DataColumn", "DataTable", "curves_table", "means_table", "runs_table"]

CellKind = Literal["link", "links", "text", "number", "accuracy"]


@dataclass(frozen=True)
class DataColumn:
    """A column.

    Attributes:
        label: Its heading.
        kind: What its cells hold: ``link`` (text and anchor), ``links`` (several of them),
            ``text``, ``number``, or ``accuracy`` (percent, ends of the interval, a note), each
            None where there is nothing.
        digits: Digits of numbers behind the point.
    """

    label: str
    kind: CellKind
    digits: int = 0

    def to_json(self) -> dict[str, Any]:
        """Returns what the page's renderer reads."""
        return {"label": self.label, "kind": self.kind, "digits": self.digits}


@dataclass(frozen=True)
class DataTable:
    """A table.

    Attributes:
        name: Its id in the page.
        caption: What it shows.
        columns: Its columns.
        rows: Its rows, a cell a column.
    """

    name: str
    caption: str
    columns: tuple[DataColumn, ...]
    rows: Sequence[Sequence[Any]]

    def to_json(self) -> dict[str, Any]:
        """Returns what the page's renderer reads."""
        return {"columns": [column.to_json() for column in self.columns], "rows": self.rows}


def runs_table(
    entries: Sequence[RunEntry],
    names: Mapping[str, str],
    anchors: Mapping[str, str],
    notes: ConditionNotes,
) -> DataTable:
    """Lists every run.

    Args:
        entries: The runs.
        names: By run, what tells its network from the others.
        anchors: By run, where its record opens.
        notes: Numbers of the conditions.
    """
    attacks = attack_names(entries)
    statuses = [_status(entry) for entry in entries]
    has_states = set(statuses) != {"evaluated"}
    rows = []
    for entry, status in zip(entries, statuses, strict=True):
        row: list[Any] = [
            [names[entry.run_id], anchors[entry.run_id]],
            entry.config.get("seed"),
        ]
        row += [_result_cell(entry.results.get(attack), notes) for attack in attacks]
        row.append(None if entry.record is None else entry.record.num_params)
        rows.append([*row, status] if has_states else row)
    columns = (
        *(DataColumn("Network", "link"), DataColumn("Seed", "number")),
        *(*map(_accuracy_column, attacks), DataColumn("Parameters", "number")),
        *([DataColumn("State", "text")] if has_states else []),
    )
    caption = "Every run; accuracies in percent, their 95 % intervals over the images below"
    return DataTable("runs-table", caption, columns, rows)


def _status(entry: RunEntry) -> str:
    return f"{entry.status}, {entry.progress}" if entry.record is None else entry.status


def _accuracy_column(attack: str) -> DataColumn:
    return DataColumn(metric_label(attack), "accuracy", 2)


def _result_cell(result: AttackResult | None, notes: ConditionNotes) -> list[Any] | None:
    if result is None:
        return None
    number = notes.number(result)
    note = "" if number is None else f"({number})"
    return [*_percent(result.accuracy, *result.interval), note]


def _percent(accuracy: float, low: float, high: float) -> list[float]:
    return [round(100 * accuracy, 4), round(100 * low, 2), round(100 * high, 2)]


def means_table(
    groups: Sequence[SeedGroup], anchors: Mapping[str, str], notes: ConditionNotes
) -> DataTable:
    """Lists networks with their mean accuracies over seeds.

    Args:
        groups: The networks.
        anchors: By run, where its record opens.
        notes: Numbers of the conditions.
    """
    attacks = attack_names([entry for group in groups for entry in group.entries])
    rows = []
    for group in groups:
        records = [entry.record for entry in group.entries if entry.record is not None]
        seeds = [[_seed(entry), anchors[entry.run_id]] for entry in group.entries]
        row: list[Any] = [group.name, seeds]
        for attack in attacks:
            accuracy = group.accuracies.get(attack)
            if accuracy is None:
                row.append(None)
                continue
            cell = _result_cell(accuracy.results[0], notes) or []
            count = len(accuracy.results)
            fewer = f"{count} of {len(seeds)} seeds" if count < len(seeds) else ""
            note = " ".join(filter(None, [fewer, cell[-1]]))
            row.append([*_percent(accuracy.mean, *accuracy.interval), note])
        rows.append([*row, records[0].num_params])
    columns = (
        *(DataColumn("Network", "text"), DataColumn("Seeds", "links")),
        *(*map(_accuracy_column, attacks), DataColumn("Parameters", "number")),
    )
    caption = (
        "Means over seeds in percent; below each the 95 % interval of the mean by Student's t "
        "distribution, of one seed that over its images"
    )
    return DataTable("means-table", caption, columns, rows)


def _seed(entry: RunEntry) -> str:
    seed = entry.config.get("seed")
    return "run" if seed is None else str(seed)


def curves_table(
    curves: Sequence[LearningCurve], names: Mapping[str, str], anchors: Mapping[str, str]
) -> DataTable:
    """Lists what each run lost since its best epoch.

    Args:
        curves: By run, named by its id.
        names: By run, what it is called.
        anchors: By run, where its record opens.
    """
    rows = [
        [
            [names[curve.name], anchors[curve.name]],
            *(int(curve.epochs[-1]), curve.best_epoch),
            *(round(100 * float(value), 4) for value in (curve.robust.max(), curve.robust[-1])),
            round(100 * curve.robust_overfitting, 4),
        ]
        for curve in curves
    ]
    columns = (
        *(DataColumn("Run", "link"), DataColumn("Epochs", "number")),
        *(DataColumn("Best epoch", "number"), DataColumn("Best (%)", "number", 2)),
        *(DataColumn("Last (%)", "number", 2), DataColumn("Lost", "number", 2)),
    )
    caption = (
        "Robust overfitting: robust accuracy on held-out images in the best and in the last "
        "epoch, and the difference in percentage points"
    )
    return DataTable("curves-table", caption, columns, rows)
