"""What a figure is asked for with; imports no torch, so that help comes at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from nasbench_at.config.allowed_values import (
    Count,
    DataRoot,
    Device,
    Name,
    NewFile,
    Place,
    Positional,
    Range,
    Seed,
)

__all__ = ["FigureRequest", "check_points"]

FIGURE_SUFFIXES = (".pdf", ".png", ".svg")
OnProgress = Callable[[int, int], None]


@dataclass(frozen=True)
class FigureRequest:
    """What a figure is drawn from and how: the arguments of ``nasbench-at figure``.

    Attributes:
        paths: Folders of runs or of studies, files of records, or tables by name.
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
        on_progress: Is told how many of how many points of a landscape are done.
    """

    paths: Positional[tuple[Place, ...]] = ("runs",)
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
    on_progress: OnProgress | None = field(default=None, metadata={"is_flag": False})


def check_points(points: int) -> None:
    """Raises a ValueError if a landscape of so many points a direction has none in the middle."""
    if points % 2 == 0:
        raise ValueError(f"points must be odd, got {points}")
