"""What a person sees: progress, tables, one-line errors."""

from __future__ import annotations

import sys
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from nasbench_at.records import Record

__all__ = ["ConsoleReporter", "evaluation_table", "stderr", "stdout"]

# Piped output has no width of its own; 80 columns would cut the tables.
stdout = Console(width=None if sys.stdout.isatty() else 140)
stderr = Console(stderr=True, width=None if sys.stderr.isatty() else 140)


class ConsoleReporter:
    """A bar over all steps with the time left and the current validation accuracies.

    Where the output is no terminal, a line an epoch is printed instead.
    """

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("steps"),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[status]}"),
            console=stderr,
        )
        self._num_epochs = 0

    def start(self, num_epochs: int, num_steps: int, num_done: int) -> None:
        """Shows the bar at the steps already done."""
        self._num_epochs = num_epochs
        self._task = self._progress.add_task(
            "",
            total=num_epochs * num_steps,
            completed=num_done * num_steps,
            epoch=f"{min(num_done + 1, num_epochs)}/{num_epochs}",
            status="",
        )
        if stderr.is_terminal:
            self._progress.start()

    def step(self) -> None:
        """Moves the bar."""
        self._progress.advance(self._task)

    def epoch(self, row: dict[str, Any]) -> None:
        """Shows an epoch's accuracies."""
        epoch = row["epoch"]
        status = (
            f"loss {row['train_loss']:.3f}  natural {row['validation_natural']:.1%}  "
            f"robust {row['validation_robust']:.1%}"
        )
        following = min(epoch + 1, self._num_epochs)
        self._progress.update(self._task, epoch=f"{following}/{self._num_epochs}", status=status)
        if not stderr.is_terminal:
            left = self._progress.tasks[self._task].time_remaining or 0
            stderr.print(
                f"epoch {epoch}/{self._num_epochs}  {status}  (about {left / 60:.1f} min left)",
                highlight=False,
            )
        elif epoch == self._num_epochs:
            self._progress.stop()

    def stop(self) -> None:
        """Gives the terminal back, also after an interruption."""
        self._progress.stop()


def evaluation_table(record: Record) -> Table:
    """Returns a run's evaluation as a table: settings, counts, accuracy and interval."""
    assert record.evaluation is not None
    table = Table(title=f"{record.run_id}: accuracy on {record.evaluation['data']}")
    for column in ("attack", "settings"):
        table.add_column(column)
    for column in ("correct", "accuracy", "95 % interval", "seconds"):
        table.add_column(column, justify="right")
    for name, result in record.evaluation["results"].items():
        low, high = result["interval"]
        table.add_row(
            name,
            _describe(result["settings"]),
            f"{result['num_correct']}/{result['num_samples']}",
            f"{result['accuracy']:.2%}",
            f"{low:.1%} to {high:.1%}",
            f"{result['seconds']:.1f}",
        )
    return table


def _describe(settings: dict[str, Any]) -> str:
    if "attacks" in settings and "version" not in settings:
        return "no attack of " + ", ".join(settings["attacks"])
    if "version" in settings:
        return f"eps {settings['eps']:g}, {settings['version']}, seed {settings['seed']}"
    if not settings:
        return "none"
    return (
        f"eps {settings['eps']:g}, {settings['steps']} steps of {settings['step_size']:.4g}, "
        f"{settings['start']} start, {settings['restarts']} restart(s)"
    )
