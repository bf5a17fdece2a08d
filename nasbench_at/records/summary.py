"""What many records are: how many of what, under which conditions, and how far they rank."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from nasbench_at.records.conditions import Conditions, conditions_of, describe_conditions
from nasbench_at.records.evaluation import AttackResult
from nasbench_at.records.frames import frame_of, group_seeds, summary_rows
from nasbench_at.records.naming.variants import name_trainings, name_variants
from nasbench_at.records.record import Record
from nasbench_at.records.reliability import Reliability, measure_reliability
from nasbench_at.records.text_tables import format_columns

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Ranking", "Summary", "note_seeds", "note_selection"]

_MAX_RANKINGS = 9
_MAX_ROWS = 20
_WIDTH = 100


@dataclass(frozen=True)
class Ranking:
    """Networks that were trained alike and evaluated alike, in at least two seeds each.

    Networks of different trainings are not ranked together: that one method beats another would
    pass for reliability.

    Attributes:
        attack: Name of the attack.
        training: What tells their training from others' in the same records; maybe empty.
        conditions: How they were evaluated, in words.
        reliability: Of the ranking of their mean accuracies.
    """

    attack: str
    training: str
    conditions: str
    reliability: Reliability

    @property
    def noise_ceiling(self) -> float:
        """What no predictor's correlation with the means can be expected to exceed, in [0, 1].

        It is the square root of the reliability.
        """
        return math.sqrt(self.reliability.value)

    def __str__(self) -> str:
        found = self.reliability
        low, high = found.interval
        among = f" ({self.training})" if self.training else ""
        return (
            f"ranking of {found.num_networks} networks by {self.attack} over {found.num_seeds:.3g} "
            f"seeds{among}: reliability {found.value:.2f} [{low:.2f}, {high:.2f}], so that no "
            f"predictor is expected to correlate by more than {self.noise_ceiling:.2f} "
            f"[{math.sqrt(low):.2f}, {math.sqrt(high):.2f}]"
        )


@dataclass(frozen=True, eq=False, repr=False)
class Summary:
    """Many records in short; printed, it says what they are above a row a configuration.

    Attributes:
        num_runs: Number of records.
        num_networks: Number of different networks; isomorphic ones are one.
        groups: The runs of each configuration, which differ in nothing but their seeds.
        rows: A row a configuration, as in ``frame``.
    """

    num_runs: int
    num_networks: int
    groups: Sequence[Sequence[Record]]
    rows: Sequence[dict[str, Any]]

    @classmethod
    def of(cls, records: Sequence[Record]) -> Summary:
        """Returns the summary of records."""
        groups = group_seeds(records)
        return cls(
            num_runs=len(records),
            num_networks=len({record.architecture for record in records}),
            groups=groups,
            rows=summary_rows(groups),
        )

    @property
    def frame(self) -> pd.DataFrame:
        """The rows, as :meth:`nasbench_at.Benchmark.summary` describes them."""
        return frame_of(self.rows)

    @cached_property
    def _measured(self) -> Sequence[Sequence[tuple[AttackResult, Conditions]]]:
        """Of each group, the main rows of its runs."""
        return [
            [(row, conditions_of(row)) for record in group for row in record.results.values()]
            for group in self.groups
        ]

    @cached_property
    def _words(self) -> Mapping[Conditions, str]:
        found: dict[Conditions, str] = {}
        for row, conditions in itertools.chain.from_iterable(self._measured):
            if conditions not in found:
                found[conditions] = ", ".join(filter(None, [row.data, describe_conditions(row)]))
        return found

    @cached_property
    def conditions(self) -> Mapping[str, Mapping[str, int]]:
        """By attack, in words its conditions, and how many runs were evaluated under each."""
        counts = Counter(kind for _, kind in itertools.chain.from_iterable(self._measured))
        found: dict[str, dict[str, int]] = {}
        for conditions, count in counts.most_common():
            texts = found.setdefault(conditions.attack, {})
            texts[self._words[conditions]] = texts.get(self._words[conditions], 0) + count
        order = dict.fromkeys(row.attack for rows in self._measured for row, _ in rows)
        return {attack: found[attack] for attack in order}

    @cached_property
    def rankings(self) -> tuple[Ranking, ...]:
        """How reliably each attack ranks networks that were trained alike, most networks first.

        Only networks with at least two seeds count; parts of an attack are left out.
        """
        texts = name_trainings([group[0].config for group in self.groups])
        found: dict[tuple[str, Conditions], list[list[float]]] = {}
        for rows, training in zip(self._measured, texts, strict=True):
            own: dict[str, dict[Conditions, list[float]]] = {}
            for row, conditions in rows:
                kinds = own.setdefault(row.attack, {})
                kinds.setdefault(conditions, []).append(row.accuracy)
            for attack, kinds in own.items():
                (conditions, accuracies), *others = kinds.items()
                if "/" not in attack and not others and len(accuracies) > 1:
                    found.setdefault((training, conditions), []).append(accuracies)
        rankings = [
            Ranking(
                attack=conditions.attack,
                training=training,
                conditions=self._words[conditions],
                reliability=measure_reliability(accuracies),
            )
            for (training, conditions), accuracies in found.items()
            if len(accuracies) > 1
        ]
        return tuple(sorted(rankings, key=lambda each: -each.reliability.num_networks))

    def __str__(self) -> str:
        if not self.num_runs:
            return "no runs"
        lines = [self._describe_counts()]
        for attack, texts in self.conditions.items():
            if "/" in attack:  # a part of another
                continue
            kinds = [f"{text} ({_count(count, 'run')})" for text, count in texts.items()]
            lines.append(f"{attack}: {'; '.join(kinds)}")
        lines += map(str, self.rankings[:_MAX_RANKINGS])
        if len(self.rankings) > _MAX_RANKINGS:
            lines.append(f"and {len(self.rankings) - _MAX_RANKINGS} more rankings")
        if not self.rankings:
            lines.append(
                "no ranking's reliability: it needs 2 networks that were trained and evaluated "
                "alike, of 2 seeds each"
            )
        if note := note_selection([record for group in self.groups for record in group]):
            lines.append(note)
        return "\n".join(lines) + "\n\n" + self._format_rows()

    def __repr__(self) -> str:
        return str(self)

    def _describe_counts(self) -> str:
        sizes = sorted(len(group) for group in self.groups)
        seeds = f"{sizes[0]}" if sizes[0] == sizes[-1] else f"{sizes[0]} to {sizes[-1]}"
        return (
            f"{_count(self.num_runs, 'run')} of {_count(self.num_networks, 'network')}: "
            f"{_count(len(self.groups), 'configuration')} of {seeds} "
            f"seed{'' if seeds == '1' else 's'}"
        )

    def _format_rows(self) -> str:
        attacks = [name for name in self.conditions if "/" not in name]
        # Of one seed beside several, or of none, there is no mean worth a column.
        told = [name for name in attacks if any(_has_interval(row, name) for row in self.rows)]
        attacks = told or attacks
        names = name_variants([group[0].config for group in self.groups])
        shown = self.rows[:_MAX_ROWS]
        cells = [
            [name, str(row["seeds"]), *(_write_mean(row, attack) for attack in attacks)]
            for name, row in zip(names, shown, strict=False)
        ]
        headings = ["network", "seeds", *attacks]
        is_right = [False, *(True for _ in headings[1:])]
        text = format_columns(headings, cells, width=_WIDTH, numeric=is_right)
        rest = len(self.rows) - len(shown)
        return f"{text}and {rest} more rows, see .frame" if rest else text.rstrip("\n")


def note_selection(records: Sequence[Record]) -> str:
    """Says how many networks were selected on the images they are judged by; empty if none was."""
    count = sum(record.config.get("select_on") == "test" for record in records)
    if not count:
        return ""
    verb = "was" if count == 1 else "were"
    return (
        f"{count:,} of {_count(len(records), 'run')} {verb} selected on the test images, as the "
        "authors' code does: their accuracies are too high"
    )


def note_seeds(row: Mapping[str, Any], attack: str) -> str:
    """Says over how many seeds a mean is, where it is not over all of the row's; else empty."""
    count = row[f"{attack}_seeds"]
    return "" if count == row["seeds"] else f" ({_count(count, 'seed')})"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _has_interval(row: Mapping[str, Any], attack: str) -> bool:
    return not math.isnan(row.get(f"{attack}_low", math.nan))


def _write_mean(row: Mapping[str, Any], attack: str) -> str:
    mean = row.get(attack, math.nan)
    if math.isnan(mean):
        return "-"
    low, high = row[f"{attack}_low"], row[f"{attack}_high"]
    spread = "" if math.isnan(low) else f" ± {50 * (high - low):.2f}"
    return f"{100 * mean:.2f}{spread} %{note_seeds(row, attack)}"
