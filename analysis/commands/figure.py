"""``nasbench-at figure``: any figure by its name, from runs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from nasbench_at.commands.flags import parse_flags
from nasbench_at.commands.input_errors import (
    BadInputError,
    bad_input,
    one_line_warnings,
)
from nasbench_at.config.allowed_values import (
    Count,
    DataRoot,
    Device,
    Name,
    NewFile,
    Positional,
    Range,
    Seed,
)

__all__ = ["FigureArguments", "run_figure"]

FIGURE_SUFFIXES = (".pdf", ".png", ".svg")


@dataclass(frozen=True)
class FigureArguments:
    """Arguments of ``nasbench-at figure``.

    Attributes:
        paths: Folders of runs, of studies, or in which runs lie.
        out: The figure's file: .pdf, .png or .svg; by default NAME.pdf.
        attack: Whose accuracy is the robust one.
        num_images: Test images of what is measured anew.
        adversarial: Measure the loss of a landscape on attacked images.
        form: Of a landscape; a contour for one run and surfaces for several by default.
        linear: Give a landscape a linear scale instead of a logarithmic one.
        points: Points of a landscape along a direction.
        span: How far it reaches, in units of each filter's norm.
        seed: Seed of directions, batches and attacks.
        device: auto, cpu, cuda or cuda:N.
        data_root: Where the data set's files lie.
    """

    paths: Positional[tuple[Path, ...]] = (Path("runs"),)
    out: Annotated[Path, NewFile(FIGURE_SUFFIXES)] | None = None
    attack: Name = "pgd"
    num_images: Count | None = None
    adversarial: bool = False
    form: Literal["contour", "surface", "line"] | None = None
    linear: bool = False
    points: Annotated[int, Range("[3, 10001]")] = 21
    span: Annotated[float, Range("(0, inf)")] = 1.0
    seed: Seed = 0
    device: Device = "auto"
    data_root: DataRoot = None


def run_figure(words: Sequence[str]) -> int:
    """Draw a figure by its name: attention, landscape, block-space, ...; see figure --help."""
    if not words or words[0] in ("-h", "--help"):
        sys.stdout.write(_describe())
        return 0 if words else 2
    if words[0].startswith("-"):
        raise BadInputError(f"figure needs a name before its flags, got {words[0]!r}")
    name, *rest = words
    arguments = parse_flags(FigureArguments, rest, f"figure {name}", run_figure.__doc__)
    from analysis.errors import UnsuitableRunsError
    from analysis.gallery import FigureRequest, find_figure
    from analysis.style import write_figure
    from nasbench_at.commands.console import PointProgress, stdout
    from nasbench_at.runtime.devices import select_device

    out = arguments.out or Path(f"{name}.pdf")
    with one_line_warnings(), PointProgress(name) as progress:
        values = {key: value for key, value in vars(arguments).items() if key != "out"}
        with bad_input():
            kind = find_figure(name)
            request = FigureRequest(**values, on_progress=progress.update)
            request.check()
            select_device(arguments.device)
        with bad_input(UnsuitableRunsError):
            figure = kind.draw(request)
        write_figure(figure, out)
    stdout.print(f"figure drawn to {out}", highlight=False, soft_wrap=True)
    return 0


def _describe() -> str:
    from analysis.gallery import FIGURES

    lines = [f"  {name:<18} {kind.summary}" for name, kind in FIGURES.items()]
    return (
        "usage: nasbench-at figure NAME RUNS... [flags]   (figure NAME --help for each)\n\n"
        + "\n".join(lines)
        + "\n"
    )
