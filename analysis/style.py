"""One style for every figure, and how a figure is written."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from nasbench_at.runtime.atomic_files import write_atomically

__all__ = [
    "FIGURE_FORMATS",
    "INK",
    "LEGEND_BELOW",
    "MARKERS",
    "PALETTE",
    "create_figure",
    "render",
    "show_percent",
    "style_axes",
    "write_figure",
]

FIGURE_FORMATS = ("pdf", "png", "svg")
# Okabe and Ito's colours without black, then three of Tol's: told apart by colour-blind readers.
PALETTE = (
    *("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442"),
    *("#882255", "#999933", "#332288"),
)
# Told apart in grey print.
MARKERS = ("o", "s", "^", "D", "v", "P")
INK = "#222222"
LEGEND_BELOW: Mapping[str, Any] = {
    "loc": "outside lower center",
    "ncols": 4,
    "frameon": False,
    "fontsize": 7.5,
}
"""Arguments of a figure's legend that lies on no panel's data."""
_GRID = "#E3E6EA"


def create_figure(width: float = 5.2, height: float = 3.6) -> Figure:
    """Returns an empty figure of its own canvas, which no global state refers to.

    Args:
        width: Width in inches.
        height: Height in inches.
    """
    figure = Figure(figsize=(width, height), dpi=200, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def style_axes(axes: Axes, *, x: str, y: str, title: str = "") -> None:
    """Labels two-dimensional axes and gives them a faint grid and no frame.

    Args:
        axes: The axes.
        x: What the horizontal axis shows, with its unit.
        y: What the vertical axis shows, with its unit.
        title: A line above.
    """
    axes.set_xlabel(x, color=INK)
    axes.set_ylabel(y, color=INK)
    axes.set_title(title, fontsize=8, color=INK)
    axes.grid(color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def show_percent(*axes: Axis) -> None:
    """Writes shares along axes as percent, with the same decimals in every figure and panel."""
    for axis in axes:
        axis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10]))  # 2.5 needs two decimals
        axis.set_major_formatter(PercentFormatter(1.0, decimals=1))


def render(figure: Figure, file_format: str) -> bytes:
    """Renders a figure.

    Args:
        figure: From any function that draws.
        file_format: ``png``, ``pdf`` or ``svg``; equal figures give equal bytes.
    """
    buffer = BytesIO()
    # TrueType fonts, which publishers ask for, instead of Type 3.
    with mpl.rc_context({"pdf.fonttype": 42, "svg.hashsalt": "nasbench-at"}):
        metadata = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}.get(file_format)
        figure.savefig(buffer, format=file_format, dpi=200, metadata=metadata)
    return buffer.getvalue()


def write_figure(figure: Figure, path: str | Path) -> None:
    """Writes a figure; the suffix decides: pdf, png or svg. Equal figures give equal bytes.

    Raises:
        ValueError: If the suffix is another one, or the file cannot be written.
    """
    path = Path(path)
    file_format = path.suffix.removeprefix(".")
    if file_format not in FIGURE_FORMATS:
        raise ValueError(f"figure must end in {', '.join(FIGURE_FORMATS)}, got {str(path)!r}")
    content = render(figure, file_format)
    try:
        write_atomically(path, content)
    except OSError as error:
        raise ValueError(f"cannot write figure {str(path)!r}: {error.strerror}") from None
