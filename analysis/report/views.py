"""What the page says of runs one by one, and of all together, as plain data."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from analysis.run_entries import RunEntry
from nasbench_at.records import AttackResult, Record, describe_conditions
from nasbench_at.records.naming.labels import data_label, method_label, metric_label

__all__ = ["describe_runs", "provenance_groups", "summarise"]

_OF_A_RUN = ("train_seconds", "data_fingerprint")
"""Provenance that differs between runs of the same program on the same machine."""


def describe_runs(
    entries: Sequence[RunEntry],
    names: Mapping[str, str],
    anchors: Mapping[str, str],
    out: Path,
) -> dict[str, Any]:
    """Returns all that is known of each run, for the page to show on demand.

    What many runs share is said once: the configuration that all have, provenances, and the words
    for attacks and their conditions.

    Args:
        entries: The runs.
        names: What they are called.
        anchors: By run, the id of its place in the page.
        out: Where the page will lie, for relative links.
    """
    texts = [{key: _to_text(value) for key, value in e.config.items()} for e in entries]
    shared = {
        key: text
        for key, text in (texts[0] if texts else {}).items()
        if all(each.get(key) == text for each in texts)
    }
    words: dict[str, int] = {}
    provenances: dict[str, int] = {}
    return {
        "runs": {
            anchors[entry.run_id]: {
                "id": entry.run_id,
                "name": names[entry.run_id],
                "state": entry.status if entry.record else f"{entry.status}: {entry.progress}",
                "link": _link(entry, out),
                "isSelectedOnTest": entry.config.get("select_on") == "test",
                "config": {key: text for key, text in own.items() if key not in shared},
                "results": [_row(row, words) for row in _results_of(entry)],
                "checks": [[c.name, c.passed, c.detail] for c in _checks_of(entry.record)],
                "provenance": _index(_shared_provenance(entry), provenances),
                "own": _own_provenance(entry),
            }
            for entry, own in zip(entries, texts, strict=True)
        },
        "config": shared,
        "words": list(words),
        "provenances": [json.loads(text) for text in provenances],
    }


def _to_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _results_of(entry: RunEntry) -> Sequence[AttackResult]:
    return () if entry.record is None else entry.record.all_results


def _checks_of(record: Record | None) -> list[Any]:
    return [] if record is None else [check for e in record.evaluations for check in e.checks]


def _row(row: AttackResult, words: dict[str, int]) -> list[Any]:
    label = metric_label(row.attack)
    return [
        *(words.setdefault(text, len(words)) for text in (label, describe_conditions(row))),
        *(row.num_correct, row.num_samples),
        *(round(100 * end, 2) for end in row.interval),
        round(row.seconds, 1),
    ]


def _index(terms: Mapping[str, str], known: dict[str, int]) -> int | None:
    return known.setdefault(json.dumps(terms), len(known)) if terms else None


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
