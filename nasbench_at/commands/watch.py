"""``nasbench-at watch``: how far runs are, while other processes train them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from nasbench_at.commands.flags import parse_flags
from nasbench_at.commands.input_errors import bad_input
from nasbench_at.config.allowed_values import Folder, Positional, Range

if TYPE_CHECKING:
    from rich.table import Table

    from nasbench_at.records.run_progress import FollowedRuns, RunProgress, RunState

__all__ = ["WatchArguments", "run_watch"]

_STYLES: Mapping[RunState, str] = {
    "running": "green",
    "waiting": "dim",
    "interrupted": "yellow",
    "done": "bold",
}
_UNKNOWN = "-"


@dataclass(frozen=True)
class WatchArguments:
    """Arguments of ``nasbench-at watch``.

    Attributes:
        paths: Folders of runs, of a study, or of one run.
        once: Show how far they are and exit, instead of following them until all are done.
        interval: Seconds between two looks.
    """

    paths: Positional[tuple[Annotated[Path, Folder()], ...]] = (Path("runs"),)
    once: bool = False
    interval: Annotated[float, Range("[0.1, 3600]")] = 2.0


def run_watch(words: Sequence[str]) -> int:
    """Follow runs while they are trained: epochs, loss, accuracies, time left."""
    arguments = parse_flags(WatchArguments, words, "watch", run_watch.__doc__)
    from nasbench_at.commands.console import is_terminal, stdout
    from nasbench_at.records.run_progress import FollowedRuns

    with bad_input():
        runs = FollowedRuns(arguments.paths)
    if not is_terminal():
        _follow_in_lines(runs, arguments)
    elif arguments.once:
        stdout.print(_table(runs, runs.look()))
    else:
        _follow_in_table(runs, arguments.interval)
    return 0


def _follow_in_table(runs: FollowedRuns, interval: float) -> None:
    from rich.live import Live

    from nasbench_at.commands.console import stdout

    with Live(console=stdout, auto_refresh=False) as live:
        while True:
            live.update(_table(runs, runs.look()), refresh=True)
            if runs.are_over:
                return
            time.sleep(interval)


def _follow_in_lines(runs: FollowedRuns, arguments: WatchArguments) -> None:
    """Prints a line for each run that is another epoch or state further, and one at the end."""
    from nasbench_at.commands.console import stdout

    shown: dict[Path, tuple[RunState, int]] = {}
    while True:
        found = runs.look()
        names = _names(found)
        for run in found:
            if shown.get(run.path) != (run.state, run.epoch):
                stdout.say(_line(names[run.path], run))
        current = {run.path: (run.state, run.epoch) for run in found}
        for path in shown.keys() - current.keys():
            stdout.say(f"{path.name}  gone")
        shown = current
        if arguments.once or runs.are_over:
            stdout.say(_summary(runs, found))
            return
        time.sleep(arguments.interval)


def _table(runs: FollowedRuns, found: Sequence[RunProgress]) -> Table | str:
    """Returns a row a run, with counts below; the counts alone where there is no row."""
    from rich.table import Table
    from rich.text import Text

    summary = _summary(runs, found)
    if not found:
        return summary
    table = Table(caption=summary, caption_justify="left")
    table.add_column("run", overflow="fold")
    for heading in ("epoch", "loss", "natural", "best", "PGD", "best", "epoch takes", "left"):
        table.add_column(heading, justify="right")
    table.add_column("state", no_wrap=True)
    names = _names(found)
    for run in found:
        table.add_row(
            names[run.path],
            f"{run.epoch}/{run.num_epochs}",
            _UNKNOWN if run.train_loss is None else f"{run.train_loss:.3f}",
            *map(_share, (run.natural, run.best_natural, run.robust, run.best_robust)),
            _duration(run.seconds_per_epoch),
            _duration(run.seconds_left),
            Text(run.state, style=_STYLES[run.state]),
        )
    return table


def _line(name: str, run: RunProgress) -> str:
    parts = [f"{name}  {run.state}", f"epoch {run.epoch}/{run.num_epochs}"]
    if run.train_loss is not None:
        parts.append(f"loss {run.train_loss:.3f}")
    if run.epoch:
        parts.append(f"natural {_share(run.natural)} (best {_share(run.best_natural)})")
        parts.append(f"PGD {_share(run.robust)} (best {_share(run.best_robust)})")
    if run.seconds_per_epoch is not None:
        parts.append(f"{_duration(run.seconds_per_epoch)} an epoch")
    if run.seconds_left is not None:
        parts.append(f"about {_duration(run.seconds_left)} left")
    return "  ".join(parts)


def _summary(runs: FollowedRuns, found: Sequence[RunProgress]) -> str:
    counts = Counter(run.state for run in found)
    parts = [f"{counts[state]} {state}" for state in _STYLES if counts[state]]
    if runs.num_done_before:
        parts.append(f"{runs.num_done_before} done before")
    if runs.num_unreadable:
        parts.append(f"{runs.num_unreadable} with a config.yaml that cannot be read")
    return f"runs: {', '.join(parts) or 'none yet'}"


def _names(found: Sequence[RunProgress]) -> dict[Path, str]:
    """The runs' names; paths for those of a name that lie in several folders."""
    counts = Counter(run.path.name for run in found)
    return {
        run.path: run.path.name if counts[run.path.name] == 1 else str(run.path) for run in found
    }


def _share(value: float | None) -> str:
    return _UNKNOWN if value is None else f"{value:.1%}"


def _duration(seconds: float | None) -> str:
    """Seconds in the unit that a person would choose."""
    if seconds is None:
        return _UNKNOWN
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
