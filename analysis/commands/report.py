"""``nasbench-at report``: one page about runs, which opens without a network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from nasbench_at.commands.flags import parse_flags
from nasbench_at.commands.input_errors import bad_input, one_line_warnings
from nasbench_at.config.allowed_values import (
    Count,
    DataRoot,
    Device,
    NewFile,
    Place,
    Positional,
    Range,
)

__all__ = ["ReportArguments", "run_report"]


@dataclass(frozen=True)
class ReportArguments:
    """Arguments of ``nasbench-at report``.

    Attributes:
        paths: Folders of runs or of studies, files of records, or tables by name.
        out: The page's file.
        title: What stands on top.
        landscapes: Measure the loss around the weights of so many of the most robust runs.
        points: Points of a landscape along a direction; the page's size bounds them.
        num_images: Test images of a landscape.
        theory: Hold the paper's claims against so many of the most robust DS-Nets.
        device: auto, cpu, cuda or cuda:N.
        data_root: Where the data set's files lie.
    """

    paths: Positional[tuple[Place, ...]] = ("runs",)
    out: Annotated[Path, NewFile((".html",))] = Path("report.html")
    title: str = "Robustness of networks"
    landscapes: Annotated[int, Range("[0, 1000000]")] = 2
    points: Annotated[int, Range("[3, 201]")] = 21
    num_images: Count = 128
    theory: Annotated[int, Range("[0, 1000000]")] = 1
    device: Device = "auto"
    data_root: DataRoot = None


def run_report(words: Sequence[str]) -> int:
    """Write one HTML page: numbers, tables, figures, landscapes to turn, where they come from."""
    arguments = parse_flags(ReportArguments, words, "report", run_report.__doc__)
    from analysis.errors import UnsuitableRunsError
    from analysis.figure_request import check_points
    from analysis.report import (
        best_landscapes,
        best_theories,
        can_be_measured,
        collect_entries,
        write_report,
    )
    from nasbench_at.commands.console import PointProgress, stdout

    with bad_input(), one_line_warnings():
        check_points(arguments.points)
        entries = collect_entries(arguments.paths)
        if (arguments.landscapes or arguments.theory) and any(map(can_be_measured, entries)):
            from nasbench_at.runtime.devices import (
                select_device,  # needs torch, as what is measured does
            )

            select_device(arguments.device)
    with (
        bad_input(UnsuitableRunsError),
        one_line_warnings(),
        PointProgress("landscapes") as progress,
    ):
        landscapes = best_landscapes(
            entries,
            arguments.landscapes,
            points=arguments.points,
            num_images=arguments.num_images,
            device=arguments.device,
            data_root=arguments.data_root,
            on_progress=progress.update,
        )
        theories = best_theories(
            entries, arguments.theory, device=arguments.device, data_root=arguments.data_root
        )
        out = write_report(
            arguments.paths,
            arguments.out,
            title=arguments.title,
            landscapes=landscapes,
            theories=theories,
            entries=entries,
        )
    stdout.say(str(out))
    return 0
