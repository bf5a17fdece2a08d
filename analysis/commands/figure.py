"""``nasbench-at figure``: any figure by its name, from runs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from analysis.figure_request import FigureRequest
from nasbench_at.commands.flags import parse_flags
from nasbench_at.commands.input_errors import BadInputError, bad_input, one_line_warnings

__all__ = ["run_figure"]


def run_figure(words: Sequence[str]) -> int:
    """Draw a figure by its name: attention, landscape, block-space, ...; see figure --help."""
    if not words or words[0] in ("-h", "--help"):
        sys.stdout.write(_describe())
        return 0 if words else 2
    if words[0].startswith("-"):
        raise BadInputError(f"figure needs a name before its flags, got {words[0]!r}")
    name, *rest = words
    request = parse_flags(FigureRequest, rest, f"figure {name}", run_figure.__doc__)
    from analysis.errors import UnsuitableRunsError
    from analysis.gallery import check_request, find_figure
    from analysis.style import write_figure
    from nasbench_at.commands.console import PointProgress, stdout
    from nasbench_at.runtime.devices import select_device

    out = request.out or Path(f"{name}.pdf")
    with one_line_warnings(), PointProgress(name) as progress:
        with bad_input():
            kind = find_figure(name)
            check_request(request)
            select_device(request.device)
        with bad_input(UnsuitableRunsError):
            figure = kind.draw(replace(request, on_progress=progress.update))
        write_figure(figure, out)
    stdout.say(f"figure drawn to {out}")
    return 0


def _describe() -> str:
    from analysis.gallery import FIGURES

    lines = [f"  {name:<18} {kind.summary}" for name, kind in FIGURES.items()]
    return (
        "usage: nasbench-at figure NAME RUNS... [flags]   (figure NAME --help for each)\n\n"
        + "\n".join(lines)
        + "\n"
    )
