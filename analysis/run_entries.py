"""Runs as they are found, in folders and tables: finished ones, and those that still run."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from analysis.study_figures import LearningCurve, compute_learning_curves
from nasbench_at.config import RunConfig, load_config
from nasbench_at.records import AttackResult, Benchmark, Record, read_metrics, read_record
from nasbench_at.records.copies import merge_copies
from nasbench_at.records.places import find_table
from nasbench_at.records.run_folders import find_runs

__all__ = ["RunEntry", "collect_entries", "name_anchors"]

Weights = tuple[tuple[float, ...], ...]
Status = Literal["evaluated", "not evaluated", "still running"]


@dataclass(frozen=True)
class RunEntry:
    """A run as it was found.

    Attributes:
        run_id: Its name.
        config: Its configuration.
        record: Its record; None before the end of its training.
        folder: Where it lies; None of a record from a table.
        curve: Its accuracies by epoch; None before the end of its first.
        attention: Epoch and attention weights of the selected, else of the last epoch that has
            some.
    """

    run_id: str
    config: Mapping[str, Any]
    record: Record | None = None
    folder: Path | None = None
    curve: LearningCurve | None = None
    attention: tuple[int, Weights] | None = None

    @property
    def status(self) -> Status:
        """How far it is."""
        if self.record is None:
            return "still running"
        return "evaluated" if self.record.is_evaluated else "not evaluated"

    @property
    def progress(self) -> str:
        """Epochs done of all."""
        done = 0 if self.curve is None else int(self.curve.epochs[-1])
        return f"{done} of {self.config.get('epochs')} epochs"

    @property
    def record_path(self) -> Path | None:
        """The file of its record, if it has one."""
        if self.record is None or self.folder is None:
            return None
        return self.folder / "record.json"

    @cached_property
    def results(self) -> Mapping[str, AttackResult]:
        """Its main result of each attack; empty before its evaluation."""
        return {} if self.record is None else self.record.results


def collect_entries(paths: Iterable[str | Path]) -> list[RunEntry]:
    """Finds runs.

    Args:
        paths: Places, as in :meth:`nasbench_at.Benchmark.load`. A run that is found in several
            counts once: as it is where it got furthest, with the evaluations of them all.

    A run whose files cannot be read is left out with a warning that names the file.

    Raises:
        ValueError: If a path is neither, or there is no run.
    """
    paths = list(paths)
    found: list[RunEntry] = []
    for path in paths:
        found += _read_folders(path) if find_table(path) is None else _read_table(path)
    if not found:
        raise ValueError(f"there is no run in {', '.join(repr(str(path)) for path in paths)}")
    entries = {each.run_id: each for each in sorted(found, key=_count_epochs)}
    entries |= {each.run_id: each for each in _merge_finished(found)}
    return [entries[run_id] for run_id in dict.fromkeys(each.run_id for each in found)]


def _count_epochs(entry: RunEntry) -> int:
    return 0 if entry.curve is None else int(entry.curve.epochs[-1])


def _merge_finished(entries: Iterable[RunEntry]) -> Iterator[RunEntry]:
    """Yields the runs that have a record, of their copies what any of them knows."""
    pairs = [(entry, entry.record) for entry in entries if entry.record is not None]
    for merged in merge_copies([record for _, record in pairs]):
        copies = [pairs[number][0] for number in reversed(merged.sources)]
        folders = [each.folder for each in copies if each.folder is not None]
        trained = (folder for folder in folders if (folder / "best.safetensors").exists())
        yield RunEntry(
            run_id=merged.record.run_id,
            config=merged.record.config,
            record=merged.record,
            folder=next(trained, folders[0] if folders else None),
            curve=next((each.curve for each in copies if each.curve is not None), None),
            attention=next((each.attention for each in copies if each.attention), None),
        )


def _read_table(path: str | Path) -> Iterator[RunEntry]:
    runs = Benchmark.load(path)
    for record in runs:
        try:
            rows = runs.metrics_of(record) if runs.has_metrics(record) else []
        except ValueError as error:
            warnings.warn(str(error), stacklevel=2)
            continue
        yield RunEntry(record.run_id, record.config, record, None, *_keep_epochs(record, rows))


def _read_folders(path: str | Path) -> Iterator[RunEntry]:
    folders = find_runs(path, models=True)
    num_broken = 0
    for folder in folders:
        try:
            yield _read_run(folder)
        except ValueError as error:
            num_broken += 1
            warnings.warn(str(error), stacklevel=2)
    if num_broken:
        warnings.warn(f"left out {num_broken} of {len(folders)} runs", stacklevel=2)


def _read_run(folder: Path) -> RunEntry:
    rows = read_metrics(folder / "metrics.jsonl")
    if (folder / "record.json").exists():
        record = read_record(folder / "record.json")
        seen = _keep_epochs(record, rows)
        return RunEntry(record.run_id, record.config, record, folder, *seen)
    config = load_config(folder / "config.yaml")
    seen = _keep_epochs(config, rows)
    return RunEntry(config.run_id, config.to_dict(), None, folder, *seen)


def _keep_epochs(
    run: Record | RunConfig, rows: Sequence[Mapping[str, Any]]
) -> tuple[LearningCurve | None, tuple[int, Weights] | None]:
    """What is kept of a run's metrics, whose lines are large."""
    if not rows:
        return None, None
    (curve,) = compute_learning_curves({run.run_id: rows})
    training = run.training if isinstance(run, Record) else {}
    selected = training.get("selected", {}).get("epoch")
    weighed = [row for row in rows if row.get("attention")]
    if not weighed:
        return curve, None
    row = next((row for row in weighed if row["epoch"] == selected), weighed[-1])
    return curve, (row["epoch"], tuple(tuple(map(float, each)) for each in row["attention"]))


def name_anchors(entries: Iterable[RunEntry]) -> dict[str, str]:
    """Returns for each run the id of its place in the page, in letters that links take."""
    anchors: dict[str, str] = {}
    taken: set[str] = set()
    for entry in entries:
        slug = "run-" + (re.sub(r"[^A-Za-z0-9_-]+", "-", entry.run_id).strip("-") or "nameless")
        number = 2
        anchor = slug
        while anchor in taken:
            anchor, number = f"{slug}-{number}", number + 1
        anchors[entry.run_id] = anchor
        taken.add(anchor)
    return anchors
