"""``nasbench-at study proxies``: cheap rankings held against trained networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from nasbench_at.commands.flags import parse_flags
from nasbench_at.commands.input_errors import bad_input, one_line_warnings
from nasbench_at.config.allowed_values import (
    Count,
    DataRoot,
    Device,
    Name,
    NewFile,
    Place,
    Positional,
)

__all__ = ["ProxyArguments", "run_proxies"]

_FIGURE_SUFFIXES = (".pdf", ".png", ".svg")


@dataclass(frozen=True)
class ProxyArguments:
    """Arguments of ``nasbench-at study proxies``.

    Attributes:
        paths: Folders of runs or of studies, files of records, or tables by name.
        attack: Whose test accuracy is to be foretold.
        method: Of which training; others by which every network was trained, too, rank as well.
        one_shot: Ways to train one network of all blocks, by which its subsets are ranked, too.
        one_shot_epochs: Epochs of each such training.
        device: auto, cpu, cuda or cuda:N.
        data_root: Where the data set's files lie.
        out: Figure to draw; the table is written beside it as .csv.
    """

    paths: Positional[tuple[Place, ...]] = ("runs",)
    attack: Name = "pgd"
    method: Name = "at"
    one_shot: tuple[Literal["subset", "size", "sandwich"], ...] = ()
    one_shot_epochs: Count = 50
    device: Device = "auto"
    data_root: DataRoot = None
    out: Annotated[Path, NewFile(_FIGURE_SUFFIXES)] | None = None


def run_proxies(words: Sequence[str]) -> int:
    """Show how well networks are ranked by little or no training, and what that costs."""
    arguments = parse_flags(ProxyArguments, words, "study proxies", run_proxies.__doc__)
    from nasbench_at.commands.console import PointProgress, show_frame, stdout
    from nasbench_at.records import Benchmark
    from nasbench_at.runtime.atomic_files import write_atomically
    from studies.proxies import compare_proxies, draw_proxies

    with one_line_warnings(), PointProgress("networks") as progress, bad_input():
        found = compare_proxies(
            Benchmark.load(*arguments.paths),
            arguments.attack,
            method=arguments.method,
            one_shot=arguments.one_shot,
            one_shot_epochs=arguments.one_shot_epochs,
            device=arguments.device,
            data_root=arguments.data_root,
            on_progress=progress.update,
        )
    show_frame(found.frame)
    reliability = found.ceiling.reliability
    low, high = reliability.interval
    stdout.say(
        f"noise ceiling: tau {found.ceiling.tau:.2f} (reliability {reliability.value:.2f} "
        f"[{low:.2f}, {high:.2f}]); halves of the seeds agree by {found.ceiling.half_tau:.2f}"
    )
    if arguments.out is not None:
        from analysis.style import write_figure

        write_figure(draw_proxies(found), arguments.out)
        table = arguments.out.with_suffix(".csv")
        write_atomically(table, found.frame.to_csv(index=False).encode())
        stdout.say(f"figure drawn to {arguments.out}, table written to {table}")
    return 0
