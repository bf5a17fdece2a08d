"""Draws landscapes: contours of one, surfaces of several side by side, lines of several in one.

Losses rise by orders of magnitude, so that scales are logarithmic unless asked otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from analysis.errors import IncomparableRunsError
from analysis.landscape.grid import Landscape, require_complete
from analysis.style import INK, LEGEND_BELOW, MARKERS, PALETTE, create_figure, style_axes

__all__ = ["draw_landscape_contour", "draw_landscape_line", "draw_landscape_surface"]

_COLORS = "viridis"
_NUM_LEVELS = 14
_AXES = (r"$\alpha$", r"$\beta$")


@dataclass(frozen=True)
class _Scale:
    """Heights and colours of one figure.

    Attributes:
        low: Lowest loss drawn.
        top: Highest.
        is_linear: Whether equal differences are equal distances, else equal ratios are.
        label: What is drawn, and how.
    """

    low: float
    top: float
    is_linear: bool
    label: str

    @property
    def levels(self) -> NDArray[np.float64]:
        spread = np.linspace if self.is_linear else np.geomspace
        levels: NDArray[np.float64] = spread(self.low, self.top, _NUM_LEVELS)
        levels[[0, -1]] = self.low, self.top  # to the last bit
        return levels

    @property
    def norm(self) -> Normalize:
        return (Normalize if self.is_linear else LogNorm)(self.low, self.top)

    def height(self, losses: NDArray[np.float64]) -> NDArray[np.float64]:
        """Returns heights of losses; three-dimensional axes have no logarithmic scale."""
        cut: NDArray[np.float64] = losses.clip(max=self.top)
        return cut if self.is_linear else np.log10(cut)


def draw_landscape_contour(landscape: Landscape, *, is_linear: bool = False) -> Figure:
    """Draws a plane from above, with a star at the weights.

    Args:
        landscape: Of two directions, all points computed.
        is_linear: Whether the scale is linear; it also is if a loss is not positive.

    Raises:
        ValueError: If the landscape is a line or lacks points.
    """
    _check_planes([landscape])
    scale = _find_scale([landscape], is_linear=is_linear)
    grid = (landscape.alphas, landscape.betas, landscape.losses.clip(max=scale.top).T)
    figure = create_figure(4.6, 3.8)
    axes = figure.add_subplot()
    filled = axes.contourf(*grid, levels=scale.levels, cmap=_COLORS, norm=scale.norm)
    axes.contour(*grid, levels=scale.levels, colors="white", linewidths=0.5)
    axes.plot(0, 0, marker="*", color="white", markersize=9, linestyle="none")
    style_axes(
        axes, x=_AXES[0], y=_AXES[1], title=f"{fill(landscape.name, 56)}\n{_describe(landscape)}"
    )
    axes.grid(visible=False)
    axes.set_aspect("equal")
    figure.colorbar(filled, ax=axes, label=scale.label, format="%.3g", ticks=scale.levels[::2])
    return figure


def draw_landscape_surface(landscapes: Sequence[Landscape], *, is_linear: bool = False) -> Figure:
    """Draws planes as surfaces side by side, on one scale of heights and colours, as Fig. 7a.

    Args:
        landscapes: Of two directions each, all points computed, of the same kind of loss.
        is_linear: Whether the scale is linear; it also is if a loss is not positive.

    Raises:
        ValueError: If there are none, one is a line or lacks points, or they cannot be compared.
    """
    _check_planes(landscapes)
    scale = _find_scale(landscapes, is_linear=is_linear)
    figure = create_figure(3.2 * len(landscapes) + 0.8, 3.4)
    panels = [
        figure.add_subplot(1, len(landscapes), i + 1, projection="3d")
        for i in range(len(landscapes))
    ]
    for panel, landscape in zip(panels, landscapes, strict=True):
        _draw_surface(panel, landscape, scale)
    figure.suptitle(_describe(landscapes[0]), fontsize=8, color=INK)
    colors = ScalarMappable(scale.norm, _COLORS)
    figure.colorbar(colors, ax=panels, label=scale.label, shrink=0.7, pad=0.08)
    return figure


def _draw_surface(panel: Any, landscape: Landscape, scale: _Scale) -> None:
    low, top = scale.height(np.array([scale.low, scale.top]))
    panel.plot_surface(
        landscape.alphas[:, None],
        landscape.betas[None, :],
        scale.height(landscape.losses),
        cmap=_COLORS,
        vmin=low,
        vmax=top,
        rcount=len(landscape.alphas),
        ccount=len(landscape.betas),
        linewidth=0,
    )
    panel.set_zlim(low, top)
    if not scale.is_linear:
        panel.zaxis.set_major_formatter(FuncFormatter(lambda height, _: f"{10**height:.3g}"))
    panel.set_xlabel(_AXES[0], color=INK)
    panel.set_ylabel(_AXES[1], color=INK)
    panel.set_title(fill(landscape.name, 36), fontsize=8, color=INK)
    panel.tick_params(labelsize=6)
    panel.xaxis.set_major_locator(MaxNLocator(4))
    panel.yaxis.set_major_locator(MaxNLocator(4))


def draw_landscape_line(landscapes: Sequence[Landscape], *, is_linear: bool = False) -> Figure:
    """Draws the loss along the first direction, a line a model; of a plane, its middle section.

    Args:
        landscapes: All points computed, of the same kind of loss.
        is_linear: Whether the scale is linear; it also is if a loss is not positive.

    Raises:
        ValueError: If there are none, one lacks points, or they cannot be compared.
    """
    _check_comparable(landscapes)
    scale = _find_scale(landscapes, is_linear=is_linear)
    figure = create_figure()
    axes = figure.add_subplot()
    for i, landscape in enumerate(landscapes):
        axes.plot(
            landscape.alphas,
            landscape.losses[:, len(landscape.betas) // 2].clip(max=scale.top),
            color=PALETTE[i % len(PALETTE)],
            marker=MARKERS[i % len(MARKERS)],
            markersize=3,
            linewidth=1.4,
            label=landscape.name,
        )
    style_axes(axes, x=_AXES[0], y=scale.label, title=_describe(landscapes[0]))
    axes.set_yscale("linear" if scale.is_linear else "log")
    figure.legend(**{**LEGEND_BELOW, "ncols": 1})
    return figure


def _check_planes(landscapes: Sequence[Landscape]) -> None:
    _check_comparable(landscapes)
    for landscape in landscapes:
        if landscape.is_line:
            raise ValueError(
                f"landscape {landscape.name!r} is a line; a surface needs two directions"
            )


def _check_comparable(landscapes: Sequence[Landscape]) -> None:
    if not landscapes:
        raise ValueError("there must be at least one landscape to draw, got none")
    for landscape in landscapes:
        require_complete(landscape)
    for key in ("images", "loss", "attack", "rules", "seed"):
        values = [landscape.settings[key] for landscape in landscapes]
        for landscape, value in zip(landscapes, values, strict=True):
            if value != values[0]:
                raise IncomparableRunsError(
                    f"landscapes on one scale must be of the same {key}, got {values[0]} and, of "
                    f"{landscape.name!r}, {value}"
                )


def _find_scale(landscapes: Sequence[Landscape], *, is_linear: bool) -> _Scale:
    """Returns the scale of all losses that are finite."""
    losses = np.concatenate([landscape.losses.ravel() for landscape in landscapes])
    finite = losses[np.isfinite(losses)]
    if not len(finite):
        raise ValueError("none of the losses is finite, so there is nothing to draw")
    low = float(finite.min())
    top = float(finite.max())
    # A flat landscape has one height; its scale still needs two ends.
    top = max(top, low + 1e-9 * max(1.0, abs(low)))
    name: str = landscapes[0].settings["loss"]["objective"].replace("_", " ")
    is_linear = is_linear or low <= 0
    words = [name, "linear" if is_linear else "logarithmic"]
    words += [f"cut at {top:.3g}"] if (losses > top).any() else []
    return _Scale(low, top, is_linear, ", ".join(words))


def _describe(landscape: Landscape) -> str:
    settings = landscape.settings
    attack = settings["attack"]
    images = f"{settings['num_images']:,} images"
    if attack is None:
        return f"{images}, natural; directions of seed {settings['seed']}"
    return (
        f"{images}, {attack['name']} with eps {attack['eps']:g} at the weights; directions of seed "
        f"{settings['seed']}"
    )
