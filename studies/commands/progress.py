"""What a person sees of a study: a bar, its cost, its results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from nasbench_at.commands.console import show_frame, stderr, stdout

__all__ = ["StudyReporter", "show_cost", "show_results", "show_status"]

EXIT_FAILED = 1


class StudyReporter:
    """A bar over the trials of a study; where the output is no terminal, a line a change."""

    def __init__(self, name: str) -> None:
        self._progress = Progress(
            TextColumn(f"study {name}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("trials  {task.fields[status]}", markup=False),
            console=stderr,
        )
        self._task = self._progress.add_task("", total=None, status="")
        self._last = ""
        if stderr.is_terminal:
            self._progress.start()

    def update(self, status: Any) -> None:
        """Shows a :class:`studies.StudyStatus`."""
        text = _describe(status)
        self._progress.update(
            self._task, total=status.num_trials, completed=status.num_done, status=text
        )
        line = f"{status.num_done}/{status.num_trials} trials  {text}"
        changed = (status.num_done, tuple(status.counts.values()))
        if not stderr.is_terminal and str(changed) != self._last:
            self._last = str(changed)
            stderr.say(line)

    def stop(self) -> None:
        """Gives the terminal back."""
        if self._progress.live.is_started:
            self._progress.stop()


def _describe(status: Any) -> str:
    counts = [f"{count} {name}" for name, count in status.counts.items() if count]
    if status.from_records:
        counts.append(f"{status.from_records} found in the records")
    if status.best is not None:
        counts.append(f"best {status.best:.4g}")
    if status.seconds_left:
        counts.append(f"about {status.seconds_left / 60:.1f} min left")
    return ", ".join(counts)


def show_status(status: Any) -> None:
    """Prints how far a study is, and what its failed trials said."""
    stdout.say(
        f"study {status.name}: {status.num_done} of {status.num_trials} trials done; "
        f"{_describe(status)}",
    )
    for slot, error in status.errors.items():
        stdout.say(f"slot {slot} failed: {error}")


def show_cost(config: Any, cost: Any, workers: int) -> None:
    """Prints what a study would cost."""
    table = Table(title=f"study {config.name}: training alone, timed on a step of each network")
    labels = list(cost.rows[0].labels)
    for column in (*labels, "parameters", "runs", "minutes each"):
        table.add_column(column, justify="left" if column in labels else "right")
    for row in cost.rows:
        table.add_row(
            *(str(value) for value in row.labels.values()),
            f"{row.num_params:,}",
            str(row.num_runs),
            f"{row.seconds / 60:.1f}",
        )
    stdout.print(table)
    bound = "at most " if cost.is_upper_bound else "about "
    hours = cost.seconds / 3600
    stdout.say(
        f"{config.num_trials} runs, {bound}{hours:.2f} hours one after the other, "
        f"{hours / workers:.2f} with {workers} worker(s)",
    )


def show_results(result: Any, runs_dir: Path) -> int:
    """Prints a study's table and, on the last line, its folder; returns the exit code."""
    from studies.config import study_folder

    show_frame(result.frame())
    stdout.say(result.compute().describe())
    failed = sum(trial.state.name == "FAIL" for trial in result.trials)
    if failed:
        stderr.say(
            f"nasbench-at: {failed} of {len(result.trials)} trials failed; "
            f"nasbench-at study repair {result.config.name} queues them again",
        )
    folder = study_folder(runs_dir, result.config.name)
    stdout.say(str(folder))
    return EXIT_FAILED if failed else 0
