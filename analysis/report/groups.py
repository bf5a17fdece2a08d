"""Runs that are one network but for their seeds, and under which conditions they compare."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

from analysis.comparability import identity_without
from analysis.run_entries import RunEntry
from nasbench_at.records import (
    AttackResult,
    Conditions,
    Record,
    conditions_of,
    describe_conditions,
    differences,
    mean_interval,
)
from nasbench_at.records.naming.labels import data_label, metric_label

__all__ = [
    "ORDER",
    "Accuracy",
    "ConditionNotes",
    "Headline",
    "SeedGroup",
    "attack_names",
    "describe_each",
    "find_headlines",
    "group_seeds",
    "rank_by_robustness",
]

ORDER = ("natural", "fgsm", "pgd", "cw", "aa", "worst_case")
"""Attacks as the paper's tables have them."""
_JUDGES = ("pgd", "aa", "cw", "fgsm", "worst_case", "natural")
"""By which attack networks are ranked: of those that most of its runs share, the first."""


@dataclass(frozen=True)
class Accuracy:
    """Mean accuracy of a network under one attack.

    Attributes:
        attack: The attack.
        mean: Mean over the runs, in [0, 1].
        interval: Its 95 % interval: over the seeds by Student's t distribution, cut to [0, 1]; of
            one run Wilson's over its images.
        results: What was found, a run each, all under the same conditions.
    """

    attack: str
    mean: float
    interval: tuple[float, float]
    results: tuple[AttackResult, ...]


@dataclass(frozen=True)
class SeedGroup:
    """Runs that differ in their seeds only, judged under the same conditions.

    Attributes:
        name: What tells the network and its training from the others.
        identity: The same for all groups of one network and training.
        entries: Its runs.
        judge: The attack by which it is ranked.
        conditions: Under which conditions.
        accuracies: By attack.
    """

    name: str
    identity: str
    entries: tuple[RunEntry, ...]
    judge: str
    conditions: Conditions
    accuracies: dict[str, Accuracy]


def attack_names(entries: Iterable[RunEntry]) -> list[str]:
    """Returns the attacks of all runs, AutoAttack's parts left out, in the paper's order."""
    found = dict.fromkeys(name for entry in entries for name in entry.results if "/" not in name)
    return sorted(found, key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER))


def group_seeds(entries: Sequence[RunEntry], names: Mapping[str, str]) -> list[SeedGroup]:
    """Groups evaluated runs by everything but their seeds, the most robust of a condition first.

    The runs of a network are a group for each condition that they were judged under.

    Args:
        entries: The runs.
        names: By run, what tells its network from the others.
    """
    networks: dict[str, list[RunEntry]] = {}
    for entry in entries:
        if entry.record is not None and entry.results:
            networks.setdefault(_identity(entry, entry.record), []).append(entry)
    groups = [
        SeedGroup(
            name=names[members[0].run_id],
            identity=identity,
            entries=tuple(sorted(members, key=_seed_order)),
            judge=conditions.attack,
            conditions=conditions,
            accuracies=_average(members),
        )
        for identity, runs in networks.items()
        for conditions, members in _by_conditions(runs).items()
    ]
    order = list(dict.fromkeys(group.conditions for group in groups))
    return sorted(groups, key=lambda g: (order.index(g.conditions), -g.accuracies[g.judge].mean))


def _identity(entry: RunEntry, record: Record) -> str:
    """Equal for runs of which there is one a seed; networks of users, without seeds, are alone."""
    return entry.run_id if entry.config.get("seed") is None else identity_without(record, ["seed"])


def _by_conditions(runs: Sequence[RunEntry]) -> dict[Conditions, list[RunEntry]]:
    """One network's runs by the conditions of its judge; with most of them those it did not see."""
    judge = _find_judge(runs)
    found: dict[Conditions, list[RunEntry]] = {}
    for run in runs:
        if judge in run.results:
            found.setdefault(conditions_of(run.results[judge]), []).append(run)
    max(found.values(), key=len).extend(run for run in runs if judge not in run.results)
    return found


def _find_judge(runs: Sequence[RunEntry]) -> str:
    """The attack that most of a network's runs share, natural accuracy only for want of one."""
    counts = Counter(name for run in runs for name in run.results)
    known = [name for name in _JUDGES if name in counts] or list(counts)
    return max([name for name in known if name != "natural"] or known, key=counts.__getitem__)


def _seed_order(entry: RunEntry) -> str:
    return str(entry.config.get("seed")).zfill(12)


def _average(entries: Sequence[RunEntry]) -> dict[str, Accuracy]:
    """Means by attack, of the conditions that most of the runs share."""
    found: dict[str, Accuracy] = {}
    for attack in attack_names(entries):
        alike: dict[Conditions, list[AttackResult]] = {}
        for entry in entries:
            if (result := entry.results.get(attack)) is not None:
                alike.setdefault(conditions_of(result), []).append(result)
        results = max(alike.values(), key=len)
        values = [result.accuracy for result in results]
        low, high = results[0].interval if len(results) == 1 else mean_interval(values)
        interval = max(0.0, float(low)), min(1.0, float(high))
        found[attack] = Accuracy(attack, mean(values), interval, tuple(results))
    return found


@dataclass(frozen=True)
class Headline:
    """The best network under one condition.

    Attributes:
        group: The network.
        data: The data set.
        conditions: What the comparison was under, in words.
        num_groups: Of how many networks it is the best.
        num_runs: Of how many runs these are.
    """

    group: SeedGroup
    data: str
    conditions: str
    num_groups: int
    num_runs: int


def find_headlines(groups: Iterable[SeedGroup]) -> list[Headline]:
    """Returns for each condition the network of the highest mean accuracy, most runs first."""
    by_conditions: dict[Conditions, list[SeedGroup]] = {}
    for group in groups:
        by_conditions.setdefault(group.conditions, []).append(group)
    found = []
    for members in by_conditions.values():
        best = max(members, key=lambda group: group.accuracies[group.judge].mean)
        result = best.accuracies[best.judge].results[0]
        found.append(
            Headline(
                group=best,
                data=data_label(str(best.entries[0].config.get("data"))),
                conditions=f"{metric_label(best.judge)}, {describe_conditions(result)}",
                num_groups=len(members),
                num_runs=sum(len(group.accuracies[group.judge].results) for group in members),
            )
        )
    return sorted(found, key=lambda headline: -headline.num_runs)


def rank_by_robustness(entries: Iterable[RunEntry]) -> list[RunEntry]:
    """Sorts runs by their accuracy under PGD, within the conditions of which there are most runs.

    Runs under rarer conditions follow, and at the end those that PGD did not attack.
    """
    entries = list(entries)
    judged = [entry for entry in entries if "pgd" in entry.results]
    counts = Counter(conditions_of(entry.results["pgd"]) for entry in judged)
    order = [conditions for conditions, _ in counts.most_common()]

    def place(entry: RunEntry) -> tuple[int, float]:
        result = entry.results["pgd"]
        return order.index(conditions_of(result)), -result.accuracy

    return sorted(judged, key=place) + [entry for entry in entries if "pgd" not in entry.results]


class ConditionNotes:
    """Numbers the conditions under which each attack was met.

    Args:
        entries: The runs.
    """

    def __init__(self, entries: Iterable[RunEntry]) -> None:
        self._found: dict[str, dict[Conditions, AttackResult]] = {}
        for entry in entries:
            for attack, result in entry.results.items():
                self._found.setdefault(attack, {}).setdefault(conditions_of(result), result)

    def number(self, result: AttackResult) -> int | None:
        """Returns the number of a row's conditions; None where its attack has one alone."""
        known = self._found.get(result.attack, {})
        return list(known).index(conditions_of(result)) + 1 if len(known) > 1 else None

    def texts(self, attacks: Iterable[str]) -> dict[str, list[str]]:
        """Returns by attack the descriptions of its conditions, in the order of their numbers."""
        return {
            attack: describe_each(self._found[attack].values())
            for attack in attacks
            if attack in self._found
        }


def describe_each(results: Iterable[AttackResult]) -> list[str]:
    """Describes conditions that differ, a row of each, so that no two of an attack read alike."""
    texts: list[str] = []
    known: dict[tuple[str, str], AttackResult] = {}
    for result in results:
        text = ", ".join(filter(None, [result.data, describe_conditions(result)]))
        first = known.setdefault((result.attack, text), result)
        different = differences(conditions_of(first), conditions_of(result))
        texts.append(", ".join([text, *different]))
    return texts
