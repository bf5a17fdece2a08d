"""The table of ``nasbench-at query``: which columns, in which words, under which conditions."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from string import ascii_lowercase
from typing import Any

from nasbench_at.config.suggestions import near_names
from nasbench_at.evaluation.options import ROW_NAMES
from nasbench_at.records import (
    AttackResult,
    Benchmark,
    Conditions,
    Record,
    conditions_of,
    describe_conditions,
)
from nasbench_at.records.conditions import find_obstacle
from nasbench_at.records.frames import group_seeds, record_rows, summary_rows
from nasbench_at.records.naming.variants import name_variants
from nasbench_at.records.summary import note_seeds, note_selection

__all__ = ["QueryTable"]

Row = dict[str, Any]

_SHOWN_ATTACKS = ("natural", "pgd", "aa")
_RANKED_BY = ("pgd", "aa", "natural")
"""What a summary is sorted by: the first of these under which all of it was measured alike."""
_ATTACKS = frozenset({"natural", "worst_case", *ROW_NAMES})
_OF_SHARES = ("_std", "_low", "_high", "")
"""Endings of an attack's columns that hold shares."""
_OF_ATTACK = ("_seeds", "_norm", "_eps", "_num_samples", "_conditions", *_OF_SHARES)


@dataclass(frozen=True)
class QueryTable:
    """Rows of records or of configurations.

    Attributes:
        rows: What is known of each, by column.
        groups: The records behind each row.
        columns: The columns to show; none for the default ones.
        sort: The column that they are sorted by, the highest first.
        is_summary: Whether a row is a configuration.
        is_brief: Whether it is for a reader's eyes: accuracies in percent, conditions below; else
            for programs, in full.
    """

    rows: Sequence[Row]
    groups: Sequence[Sequence[Record]]
    columns: tuple[str, ...] = ()
    sort: str | None = None
    is_summary: bool = False
    is_brief: bool = True

    @classmethod
    def of(cls, records: Benchmark, *, is_summary: bool, is_brief: bool) -> QueryTable:
        """Returns the table of records, or of the means over their seeds."""
        groups = group_seeds(records) if is_summary else [[record] for record in records]
        rows = summary_rows(groups) if is_summary else record_rows(records)
        names = name_variants([group[0].config for group in groups])
        texts: dict[Conditions, str] = {}
        named = [
            {"network": name, **row, **_conditions_of_all(group, row, texts)}
            for name, row, group in zip(names, rows, groups, strict=True)
        ]
        if not is_summary:  # the run comes first
            named = [{"run_id": row["run_id"], **row} for row in named]
        return cls(named, groups, is_summary=is_summary, is_brief=is_brief)

    def arrange(self, columns: Sequence[str], sort: str | None, top: int | None) -> QueryTable:
        """Returns the table with these columns, sorted by one, the highest first, and cut.

        A summary is sorted by an accuracy where no column is named and it can be.

        Raises:
            ValueError: If there is no such column, or accuracies of different conditions would be
                ranked; the message names what differs.
        """
        known = dict.fromkeys(name for row in self.rows for name in row)
        for name in (*columns, *([] if sort is None else [sort])):
            if name not in known:
                raise ValueError(_explain_missing(name, list(known), len(self.rows)))
        if sort is not None and (obstacle := self._obstacle_to_ranking(sort)):
            raise ValueError(obstacle)
        if sort is None and self.is_summary:
            ranked_by = [name for name in _RANKED_BY if name in known]
            sort = next((n for n in ranked_by if not self._obstacle_to_ranking(n)), None)
        order = list(range(len(self.rows)))
        if sort is not None:
            known_values = {i: row[sort] for i, row in enumerate(self.rows) if _has(row, sort)}
            order = [*_sorted_by_value(known_values), *(i for i in order if i not in known_values)]
        return replace(
            self,
            rows=[self.rows[i] for i in order[:top]],
            groups=[self.groups[i] for i in order[:top]],
            columns=tuple(columns),
            sort=sort,
        )

    def _obstacle_to_ranking(self, sort: str) -> str:
        """Says which accuracies of a column cannot be ranked, and why; empty if all can be."""
        attack = _attack_of(sort)
        if attack is None:
            return ""
        pairs = zip(self.rows, self.groups, strict=True)
        records = (record for row, group in pairs if _has(row, sort) for record in group)
        return find_obstacle(
            (record, record.results[attack]) for record in records if attack in record.results
        )

    @property
    def shown(self) -> list[str]:
        """The columns that are shown."""
        if self.columns:
            return list(self.columns)
        start = ["network", "seeds"] if self.is_summary else ["run_id", "network", "seed"]
        if self.is_brief:
            return [*start, *self._attacks]
        ends = ("", "_low", "_high", "_seeds") if self.is_summary else ("",)
        numbers = [f"{name}{end}" for name in self._attacks for end in ends]
        return [*start, *numbers, *(f"{name}_conditions" for name in self._attacks)]

    @property
    def _attacks(self) -> list[str]:
        return [name for name in _SHOWN_ATTACKS if any(name in row for row in self.rows)]

    def numeric(self) -> list[bool]:
        """Which of the columns are numbers."""
        return [
            all(isinstance(row.get(name), int | float | None) for row in self.rows)
            for name in self.shown
        ]

    def texts(self) -> tuple[list[str], list[list[str]]]:
        """Returns headings and cells."""
        names = self.shown
        if not self.is_brief:
            return names, [[self._write_plain(row, name) for name in names] for row in self.rows]
        columns = [self._write_column(name) for name in names]
        return names, [list(cells) for cells in zip(*columns, strict=True)]

    def _write_column(self, name: str) -> list[str]:
        texts = [self._write_cell(row, name) for row in self.rows]
        attack = _attack_of(name)
        if attack is None:
            return texts
        marks = self._marks(attack)
        found = [marks.get(row.get(f"{attack}_conditions", ""), "") for row in self.rows]
        pad = max(map(len, found), default=0)
        if not pad:
            return texts
        return [f"{text} {mark:<{pad}}" for text, mark in zip(texts, found, strict=True)]

    def _write_plain(self, row: Row, name: str) -> str:
        value = row.get(name)
        if _is_unknown(value):
            return ""
        if self.is_summary and _attack_of(name) is not None:
            value = float(f"{value:.6g}")  # the rest of a mean's digits is rounding
        return value if isinstance(value, str) else json.dumps(value)

    def _write_cell(self, row: Row, name: str) -> str:
        value: Any = row.get(name)
        if _is_unknown(value):
            return "-"
        if _attack_of(name) is None:
            return _write_text(value)
        digits = 1 if self.is_summary else 2
        if self.columns or not self.is_summary:
            return f"{value:.{digits}%}"
        low, high = row[f"{name}_low"], row[f"{name}_high"]
        spread = "" if math.isnan(low) else f" ± {50 * (high - low):.{digits}f}"
        return f"{100 * value:.{digits}f}{spread}%{note_seeds(row, name)}"

    def _marks(self, attack: str) -> Mapping[str, str]:
        """A letter for each of an attack's conditions; none for the most common ones."""
        key = f"{attack}_conditions"
        counts = Counter(row[key] for row in self.rows if key in row)
        texts = [text for text, _ in counts.most_common()]
        return {text: _letter(i - 1) for i, text in enumerate(texts)}  # the first has none

    def notes(self) -> list[str]:
        """Returns what must be said below: conditions, each once, and what has no numbers."""
        notes = []
        for name in dict.fromkeys(filter(None, map(_attack_of, self.shown))):
            for text, mark in self._marks(name).items():
                notes.append(f"{name}{f' {mark}' if mark else ''}: {text}")
        if selection := note_selection([record for group in self.groups for record in group]):
            notes.append(selection)
        if self.is_summary and notes and not self.columns:
            notes.append("±: 95 % interval of the mean over seeds, by Student's t")
        if self.is_summary and self.sort is not None:
            notes.append(f"sorted by {self.sort}, the highest first")
        if "network" in self.shown and any(" k = " in row["network"] for row in self.rows):
            notes.append("k: by how much a network's first reduction widens (widen_factor)")
        waiting = sum(not any(name in row for name in _ATTACKS) for row in self.rows)
        if waiting:
            count = "no run" if waiting == len(self.rows) else f"{waiting} of {len(self.rows)} runs"
            verb = "is" if waiting == len(self.rows) else "are not"
            notes.append(f"{count} {verb} evaluated yet: nasbench-at evaluate RUN")
        return notes


def _conditions_of_all(
    group: Sequence[Record], row: Row, texts: dict[Conditions, str]
) -> dict[str, str]:
    """The conditions of each attack's number, in words, which equal ones share."""
    found: dict[str, AttackResult] = {}
    for record in group:
        for name, result in record.results.items():
            if _has(row, name):
                found.setdefault(name, result)
    return {
        f"{name}_conditions": texts.setdefault(conditions_of(result), _describe(result))
        for name, result in found.items()
    }


def _describe(result: AttackResult) -> str:
    return ", ".join(filter(None, [result.data, describe_conditions(result)]))


def _letter(index: int) -> str:
    """a, b, ..., z, aa, ab, ..."""
    letters = ""
    while index >= 0:
        index, last = divmod(index, len(ascii_lowercase))
        letters = ascii_lowercase[last] + letters
        index -= 1
    return letters


def _explain_missing(name: str, known: Sequence[str], num_rows: int) -> str:
    attack = next((a for a in _ATTACKS for end in _OF_ATTACK if name == f"{a}{end}"), None)
    if attack is not None and attack not in known:
        return (
            f"none of {num_rows} runs was evaluated by {attack!r}, so there is no column {name!r}; "
            "evaluate one first: nasbench-at evaluate RUN"
        )
    near = near_names(name, known)
    hint = f"did you mean {near}?" if near else f"there are {', '.join(known)}"
    return f"no column {name!r}; {hint}"


def _attack_of(column: str) -> str | None:
    """The attack whose shares a column holds: an accuracy, or what belongs to its mean."""
    for end in _OF_ATTACK:  # the empty one last
        attack = column.removesuffix(end)
        if column.endswith(end) and attack.partition("/")[0] in _ATTACKS:
            return attack if end in _OF_SHARES else None
    return None


def _has(row: Row, column: str) -> bool:
    return not _is_unknown(row.get(column))


def _is_unknown(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _sorted_by_value(values: Mapping[int, Any]) -> list[int]:
    """Returns the keys, that of the highest value first."""
    try:
        return sorted(values, key=lambda key: values[key], reverse=True)
    except TypeError:  # values of several types
        return sorted(values, key=lambda key: str(values[key]), reverse=True)


def _write_text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    return str(value)
