"""What the page says of runs one by one, and of all together, as plain data."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from analysis.report.attention import AttentionView
from analysis.report.groups import attack_names, describe_each
from analysis.run_entries import RunEntry
from analysis.study_figures import LearningCurve
from nasbench_at.records import AttackResult, Conditions, Record, conditions_of
from nasbench_at.records.naming.labels import data_label, method_label, metric_label

__all__ = ["describe_runs", "provenance_groups", "summarise"]

_OF_A_RUN = ("train_seconds", "data_fingerprint")
"""Provenance that differs between runs of the same program on the same machine."""


def describe_runs(
    entries: Sequence[RunEntry],
    names: Mapping[str, str],
    anchors: Mapping[str, str],
    attention: Iterable[AttentionView],
    out: Path,
) -> dict[str, Any]:
    """Returns all that is known of each run, for the page to show and to compare on demand.

    What many runs share is said once: the configuration that all have, provenances, epochs, names
    of blocks, and the words for attacks and their conditions. Accuracies by epoch and attention
    weights are whole thousandths, which is finer than they are drawn.

    Args:
        entries: The runs.
        names: What they are called.
        anchors: By run, the id of its place in the page.
        attention: The attention weights of those that have some.
        out: Where the page will lie, for relative links.
    """
    texts = [{key: _to_text(value) for key, value in e.config.items()} for e in entries]
    shared = {
        key: text
        for key, text in (texts[0] if texts else {}).items()
        if all(each.get(key) == text for each in texts)
    }
    results = _ResultRows(entries)
    weights = {view.run_id: view for view in attention}
    epochs: dict[str, int] = {}
    columns: dict[str, int] = {}
    provenances: dict[str, int] = {}
    return {
        "runs": {
            anchors[entry.run_id]: {
                "id": entry.run_id,
                "name": names[entry.run_id],
                "state": entry.status if entry.record else f"{entry.status}: {entry.progress}",
                "link": _link(entry, out),
                "isSelectedOnTest": entry.config.get("select_on") == "test",
                "parameters": None if entry.record is None else entry.record.num_params,
                "config": {key: text for key, text in own.items() if key not in shared},
                "results": results.of(entry),
                "main": _main_rows(entry),
                "checks": [[c.name, c.passed, c.detail] for c in _checks_of(entry.record)],
                "curve": _curve(entry.curve, epochs),
                "attention": _attention(weights.get(entry.run_id), columns),
                "provenance": _index(_shared_provenance(entry), provenances),
                "own": _own_provenance(entry),
            }
            for entry, own in zip(entries, texts, strict=True)
        },
        "config": shared,
        "attacks": results.attacks,
        "conditions": results.conditions,
        "epochs": _listed(epochs),
        "columns": _listed(columns),
        "provenances": _listed(provenances),
    }


class _ResultRows:
    """The accuracies of runs as rows, whose attacks and conditions are numbers of what they share.

    Two rows may be compared where these numbers are equal, and nowhere else.

    Args:
        entries: The runs.
    """

    def __init__(self, entries: Iterable[RunEntry]) -> None:
        entries = list(entries)
        labels = map(metric_label, attack_names(entries))
        self._attacks = {label: number for number, label in enumerate(labels)}
        self._conditions: dict[Conditions, tuple[int, AttackResult]] = {}

    def of(self, entry: RunEntry) -> list[list[Any]]:
        """Returns a run's rows, in the order they were measured."""
        return [self._row(row) for row in _results_of(entry)]

    def _row(self, row: AttackResult) -> list[Any]:
        attack = self._attacks.setdefault(metric_label(row.attack), len(self._attacks))
        conditions, _ = self._conditions.setdefault(
            conditions_of(row), (len(self._conditions), row)
        )
        return [
            *(attack, conditions, row.num_correct, row.num_samples),
            *(round(100 * end, 2) for end in row.interval),
            round(row.seconds, 1),
        ]

    @property
    def attacks(self) -> list[str]:
        """What the attacks are called: first those of tables, in the paper's order."""
        return list(self._attacks)

    @property
    def conditions(self) -> list[str]:
        """The conditions of the rows so far, in words."""
        return describe_each(row for _, row in self._conditions.values())


def _to_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _results_of(entry: RunEntry) -> Sequence[AttackResult]:
    return () if entry.record is None else entry.record.all_results


def _main_rows(entry: RunEntry) -> list[int]:
    """Where among a run's rows those are that tables show, in the paper's order."""
    places = {id(row): place for place, row in enumerate(_results_of(entry))}
    return [places[id(entry.results[attack])] for attack in attack_names([entry])]


def _checks_of(record: Record | None) -> list[Any]:
    return [] if record is None else [check for e in record.evaluations for check in e.checks]


def _curve(curve: LearningCurve | None, epochs: dict[str, int]) -> dict[str, Any] | None:
    if curve is None:
        return None
    return {
        "epochs": _index(curve.epochs.tolist(), epochs),
        "best": curve.best_epoch,
        "train": _thousandths(curve.train),
        "natural": _thousandths(curve.natural),
        "robust": _thousandths(curve.robust),
    }


def _attention(view: AttentionView | None, columns: dict[str, int]) -> dict[str, Any] | None:
    if view is None:
        return None
    return {
        "epoch": view.epoch,
        "isLearned": view.is_learned,
        "columns": _index(view.columns, columns),
        "weights": [_thousandths(np.asarray(row)) for row in view.weights],
    }


def _thousandths(shares: NDArray[np.float64]) -> list[int]:
    return [round(1000 * share) for share in shares.tolist()]


def _index(value: Any, known: dict[str, int]) -> int | None:
    """The number of a value among those that are said once; None of an empty one."""
    return known.setdefault(json.dumps(value), len(known)) if value else None


def _listed(known: Iterable[str]) -> list[Any]:
    return [json.loads(text) for text in known]


def _flatten(provenance: Mapping[str, Any]) -> dict[str, str]:
    return {key: _to_text(value) for key, value in provenance.items()}


def _shared_provenance(entry: RunEntry) -> dict[str, str]:
    flat = {} if entry.record is None else _flatten(entry.record.provenance)
    return {key: text for key, text in flat.items() if key not in _OF_A_RUN}


def _own_provenance(entry: RunEntry) -> dict[str, str]:
    flat = {} if entry.record is None else _flatten(entry.record.provenance)
    return {key: flat[key] for key in _OF_A_RUN if key in flat}


def _link(entry: RunEntry, out: Path) -> str | None:
    if entry.record_path is None:
        return None
    relative = os.path.relpath(entry.record_path.absolute(), out.absolute().parent)
    return quote(Path(relative).as_posix())


def provenance_groups(entries: Iterable[RunEntry]) -> list[tuple[dict[str, str], int]]:
    """Returns programs and machines, each with the number of runs that were made so."""
    counts = Counter(json.dumps(terms) for e in entries if (terms := _shared_provenance(e)))
    return [(json.loads(text), count) for text, count in counts.items()]


def summarise(entries: Sequence[RunEntry], num_networks: int) -> dict[str, str]:
    """Says what was run and how, as terms and their descriptions.

    Args:
        entries: The runs.
        num_networks: How many networks were evaluated, seeds not counted.
    """
    statuses = Counter(entry.status for entry in entries)
    configs = [entry.config for entry in entries]
    seconds = sum(
        float(entry.record.provenance.get("train_seconds", 0.0))
        for entry in entries
        if entry.record is not None
    )
    trained = [config for config in configs if config.get("method") is not None]
    methods = (method_label(str(c["method"]), c.get("beta")) for c in trained)
    terms = {
        "Runs": ", ".join(f"{count:,} {status}" for status, count in statuses.items()),
        "Networks": f"{num_networks:,} evaluated, seeds not counted" if num_networks else "",
        "Data sets": _values(data_label(str(config.get("data"))) for config in configs),
        "Methods": _values(methods),
        "Seeds": _values(config.get("seed") for config in configs),
        "Trained at ε": _values(_radius(config) for config in configs),
        "Epochs": _values(config.get("epochs") for config in configs),
        "Recipe": _values(config.get("recipe") for config in configs),
        "Precision": _values(config.get("precision") for config in configs),
        "Selected on": _values(config.get("select_on") for config in configs),
        "Training time": f"{seconds / 3600:.2f} h in all" if seconds else "",
    }
    return {term: text for term, text in terms.items() if text}


def _radius(config: Mapping[str, Any]) -> str:
    """The radius that a run was trained at, with its norm where that is not L-infinity."""
    eps = config.get("eps")
    return "" if eps is None else f"L2 {eps}" if config.get("norm") == "L2" else str(eps)


def _values(values: Iterable[object], limit: int = 8) -> str:
    counts = Counter(str(value) for value in values if value not in (None, ""))
    texts = [f"{value} ({n})" if len(counts) > 1 else value for value, n in counts.most_common()]
    rest = f" and {len(texts) - limit} more" if len(texts) > limit else ""
    return ", ".join(texts[:limit]) + rest
