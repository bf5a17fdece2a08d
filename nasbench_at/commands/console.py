"""What a person sees: progress, tables, one-line errors."""

from __future__ import annotations

import math
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from nasbench_at.records import AttackResult, Record, describe_conditions
from nasbench_at.records.text_tables import format_columns, format_tabs

if TYPE_CHECKING:
    import pandas as pd

    from nasbench_at.config import Precision
    from nasbench_at.evaluation.comparison import PairedComparison
    from nasbench_at.training.launch import Estimate

__all__ = [
    "ConsoleReporter",
    "PointProgress",
    "evaluation_table",
    "is_terminal",
    "mean_and_std",
    "show_comparison",
    "show_estimate",
    "show_evaluation",
    "show_frame",
    "show_precisions",
    "show_result",
    "show_seeds",
    "show_table",
    "show_training",
    "stderr",
    "stdout",
]


class _PlainConsole(Console):
    """A console that shows words as they are and leaves a closed pipe to the command line.

    A user's words may hold what rich takes for markup or an emoji, and are mostly paths to copy.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, **options)

    def say(self, text: str, style: str | None = None) -> None:
        """Prints lines as they are, neither wrapped nor with their numbers in colour."""
        self.print(text, style=style, highlight=False, soft_wrap=True)

    def on_broken_pipe(self) -> None:
        """Raises what the command line answers with exit code 0."""
        raise BrokenPipeError


# Piped output has no width of its own; 80 columns would cut the tables.
stdout = _PlainConsole(width=None if sys.stdout.isatty() else 140)
stderr = _PlainConsole(stderr=True, width=None if sys.stderr.isatty() else 140)


class ConsoleReporter:
    """A bar over all steps with the time left and the current validation accuracies.

    Where the output is no terminal, a line an epoch is printed instead.
    """

    def __init__(self, *, silent: bool = False) -> None:
        self._progress = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("steps"),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[status]}", markup=False),
            console=stderr,
            disable=silent,
        )
        self._silent = silent
        self._num_epochs = 0

    def start(self, num_epochs: int, num_steps: int, num_done: int) -> None:
        """Shows the bar at the steps already done."""
        self._num_epochs = num_epochs
        epoch = min(num_done // num_steps + 1, num_epochs)
        self._task = self._progress.add_task(
            "",
            total=num_epochs * num_steps,
            completed=num_done,
            epoch=f"{epoch}/{num_epochs}",
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
        if not (stderr.is_terminal or self._silent):
            left = self._progress.tasks[self._task].time_remaining or 0
            stderr.say(
                f"epoch {epoch}/{self._num_epochs}  {status}  (about {left / 60:.1f} min left)",
            )
        elif epoch == self._num_epochs:
            self.stop()

    def stop(self) -> None:
        """Gives the terminal back, also after an interruption."""
        if self._progress.live.is_started:
            self._progress.stop()


class PointProgress:
    """A bar over the points of a long computation, with the time left; nothing before the first.

    Args:
        title: What is computed.
    """

    def __init__(self, title: str) -> None:
        self._progress = Progress(
            TextColumn(title, markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("points"),
            TimeRemainingColumn(compact=True),
            console=stderr,
            transient=True,
            disable=not stderr.is_terminal,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> PointProgress:
        return self

    def update(self, num_done: int, num_points: int) -> None:
        """Moves the bar."""
        if self._task is None:
            self._progress.start()
            self._task = self._progress.add_task("", total=num_points)
        self._progress.update(self._task, completed=num_done, total=num_points)

    def __exit__(self, *_: object) -> None:
        self._progress.stop()


def show_training(record: Record, path: Path) -> None:
    """Prints what a finished training selected, and on a line of its own the run's folder."""
    selected = record.training["selected"]
    ended = f" ({record.training['stopped']})" if record.training["stopped"] else ""
    images = "test" if record.config["select_on"] == "test" else "validation"
    stdout.say(
        f"{record.num_params:,} parameters, {record.training['epochs']} epochs{ended}; selected "
        f"epoch {selected['epoch']}: natural {selected['validation_natural']:.1%}, robust "
        f"{selected['validation_robust']:.1%} on {selected['num_samples']} {images} images",
    )
    stdout.say(str(path))


def show_seeds(records: Sequence[Record]) -> None:
    """Prints mean and standard deviation over seeds of the selected epochs' accuracies."""
    for name in ("natural", "robust"):
        values = [record.training["selected"][f"validation_{name}"] for record in records]
        stdout.say(
            f"validation {name} accuracy over {len(values)} seeds: {mean_and_std(values)}",
        )


def show_estimate(estimate: Estimate) -> None:
    """Prints what a run would cost."""
    stdout.say(
        f"{estimate.num_params:,} parameters, {estimate.num_train:,} training images, "
        f"{estimate.num_steps} steps an epoch\n"
        f"{estimate.seconds_per_step:.3f} s a step, about {estimate.seconds / 3600:.2f} h of "
        f"training without validation\n"
        f"peak memory {estimate.memory_mib:,.0f} MiB",
    )


def show_precisions(seconds: Mapping[Precision, float]) -> None:
    """Prints which precision takes a training step fastest, and how much longer the others take."""
    if len(seconds) < 2:
        return
    (fastest, least), *others = sorted(seconds.items(), key=lambda item: item[1])
    slower = ", ".join(f"{name} takes {taken / least:.2f} times as long" for name, taken in others)
    stdout.say(f"--precision {fastest} is the fastest here ({least:.3f} s a step; {slower})")


def show_frame(frame: pd.DataFrame) -> None:
    """Prints a frame, numbers to the right and with four digits or more, a dash for none."""
    show_table(
        list(map(str, frame.columns)),
        [list(map(_write_cell, row)) for row in frame.itertuples(index=False)],
        numeric=[kind.kind in "if" for kind in frame.dtypes],
    )


def _write_cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    # A column of whole numbers of which some are missing holds floats.
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def is_terminal() -> bool:
    """Whether a person reads the output, and no file or other program."""
    return sys.stdout.isatty()


def show_table(
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    numeric: Sequence[bool] = (),
    notes: Sequence[str] = (),
) -> None:
    """Prints a table that fits the terminal, with notes below; tab-separated lines into a pipe.

    Args:
        headings: The columns' names.
        rows: Cells, one a column.
        numeric: Which columns stand to the right.
        notes: Lines for the reader at a terminal.
    """
    if not is_terminal():
        sys.stdout.write(format_tabs(headings, rows))
        return
    text = format_columns(headings, rows, width=stdout.width, numeric=numeric)
    lines = [line for note in notes for line in textwrap.wrap(note, stdout.width)]
    sys.stdout.write("\n".join([text, *lines]) + "\n" if lines else text)


def mean_and_std(values: Sequence[float]) -> str:
    """Returns shares in percent: their mean, and the standard deviation of several."""
    return f"{mean(values):.2%}" + (f" ± {stdev(values):.2%}" if len(values) > 1 else "")


def evaluation_table(record: Record) -> Table:
    """Returns the latest evaluation as a table: conditions, counts, accuracy and interval."""
    evaluation = record.evaluations[-1]
    table = Table(title=f"{record.run_id}: accuracy on {evaluation.data}")
    for column in ("attack", "conditions"):
        table.add_column(column)
    for column in ("correct", "accuracy", "95 % interval", "seconds"):
        table.add_column(column, justify="right")
    eps = None
    for result in evaluation.results:
        if result.eps is not None and eps not in (None, result.eps):
            table.add_section()
        eps = result.eps if result.eps is not None else eps
        low, high = result.interval
        table.add_row(
            result.attack,
            describe_conditions(result),
            f"{result.num_correct}/{result.num_samples}",
            f"{result.accuracy:.2%}",
            f"{low:.1%} to {high:.1%}",
            f"{result.seconds:.1f}",
        )
    return table


def show_evaluation(record: Record) -> None:
    """Prints the table and the trust checks, a failed one as a warning, or that there is none."""
    stdout.print(evaluation_table(record))
    if record.config.get("select_on") == "test":
        stdout.say(
            "the network was selected on the test images, as by the authors' code: accuracies on "
            "them are too high",
        )
    checks = record.evaluations[-1].checks
    is_curve = len({check.eps for check in checks}) > 1
    for check in checks:
        mark, style = ("passed", None) if check.passed else ("WARNING", "bold red")
        radius = f" at eps {check.eps:g}" if is_curve else ""
        stdout.say(f"trust check {check.name}{radius}: {mark}: {check.detail}", style)
    attacks = {row.attack for row in record.evaluations[-1].results} - {"natural"}
    if attacks and not checks:
        stdout.say("no trust check was made: pgd and cw are the attacks that make them")


def show_result(name: str, result: AttackResult) -> None:
    """Prints a row to stderr as soon as it is known."""
    stderr.say(
        f"{name}: {result.num_correct}/{result.num_samples} correct after {result.seconds:.1f} s",
    )


def show_comparison(comparison: PairedComparison, first: str, second: str, attack: str) -> None:
    """Prints two networks' accuracies, their difference and McNemar's test."""
    one, other = comparison.accuracies
    low, high = comparison.interval
    stdout.say(
        f"{attack} accuracy on {comparison.num_samples} images: {one:.2%} ({first}), {other:.2%} "
        f"({second})\n"
        f"difference {comparison.difference:+.2%}, 95 % interval {low:+.2%} to {high:+.2%}\n"
        f"right by the first alone {comparison.num_first_only}, by the second alone "
        f"{comparison.num_second_only}; McNemar's exact test: p = {comparison.p_value:.3g}",
    )
