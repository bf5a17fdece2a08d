"""Draws landscapes: contours of one, surfaces of several side by side, lines of several in one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.landscape.grid import Landscape, require_complete
from analysis.style import INK, MARKERS, PALETTE, create_figure, style_axes

__all__ = ["draw_landscape_contour", "draw_landscape_line", "draw_landscape_surface"]

_COLORS = "viridis"
_NUM_LEVELS = 14
_AXES = (r"$\alpha$", r"$\beta$")


def draw_landscape_contour(landscape: Landscape, *, max_loss: float | None = None) -> Figure:
    """Draws a plane from above, with a star at the weights.

    Args:
        landscape: Of two directions, all points computed.
        max_loss: Where the loss is cut; by default at its largest finite value.

    Returns:
        A figure of its own canvas, which no global state refers to.

    Raises:
        ValueError: If the landscape is a line or lacks points.
    """
    _check_planes([landscape])
    low, top = _limits([landscape], max_loss)
    levels = np.linspace(low, top, _NUM_LEVELS)
    grid = (landscape.alphas, landscape.betas, landscape.losses.clip(max=top).T)
    figure = create_figure(4.6, 3.8)
    axes = figure.add_subplot()
    filled = axes.contourf(*grid, levels=levels, cmap=_COLORS)
    axes.contour(*grid, levels=levels, colors="white", linewidths=0.5)
    axes.plot(0, 0, marker="*", color="white", markersize=9, linestyle="none")
    style_axes(axes, x=_AXES[0], y=_AXES[1], title=f"{landscape.name}\n{_describe(landscape)}")
    axes.grid(visible=False)
    axes.set_aspect("equal")
    figure.colorbar(filled, ax=axes, label=_label([landscape], top), format="%.3g")
    return figure


def draw_landscape_surface(
    landscapes: Sequence[Landscape], *, max_loss: float | None = None
) -> Figure:
    """Draws planes as surfaces side by side, on one scale of heights and colours, as Fig. 7a.

    Args:
        landscapes: Of two directions each, all points computed, of the same kind of loss.
        max_loss: Where the losses are cut; by default at their largest finite value.

    Returns:
        A figure of its own canvas, which no global state refers to.

    Raises:
        ValueError: If there are none, one is a line or lacks points, or they cannot be compared.
    """
    _check_planes(landscapes)
    low, top = _limits(landscapes, max_loss)
    scale = Normalize(low, top)
    figure = create_figure(3.2 * len(landscapes) + 0.8, 3.4)
    panels = [
        figure.add_subplot(1, len(landscapes), i + 1, projection="3d")
        for i in range(len(landscapes))
    ]
    for panel, landscape in zip(panels, landscapes, strict=True):
        surface = _draw_surface(panel, landscape, top, scale)
    figure.suptitle(_describe(landscapes[0]), fontsize=8, color=INK)
    figure.colorbar(surface, ax=panels, label=_label(landscapes, top), shrink=0.7, pad=0.08)
    return figure


def _draw_surface(panel: Any, landscape: Landscape, top: float, scale: Normalize) -> ScalarMappable:
    surface: ScalarMappable = panel.plot_surface(
        landscape.alphas[:, None],
        landscape.betas[None, :],
        landscape.losses.clip(max=top),
        cmap=_COLORS,
        norm=scale,
        rcount=len(landscape.alphas),
        ccount=len(landscape.betas),
        linewidth=0,
    )
    panel.set_zlim(scale.vmin, scale.vmax)
    panel.set_xlabel(_AXES[0], color=INK)
    panel.set_ylabel(_AXES[1], color=INK)
    panel.set_title(landscape.name, fontsize=8, color=INK)
    panel.tick_params(labelsize=6)
    panel.xaxis.set_major_locator(MaxNLocator(4))
    panel.yaxis.set_major_locator(MaxNLocator(4))
    return surface


def draw_landscape_line(
    landscapes: Sequence[Landscape], *, max_loss: float | None = None
) -> Figure:
    """Draws the loss along the first direction, a line a model; of a plane, its middle section.

    Args:
        landscapes: All points computed, of the same kind of loss.
        max_loss: Where the losses are cut; by default at their largest finite value.

    Returns:
        A figure of its own canvas, which no global state refers to.

    Raises:
        ValueError: If there are none, one lacks points, or they cannot be compared.
    """
    _check_comparable(landscapes)
    _, top = _limits(landscapes, max_loss)
    figure = create_figure()
    axes = figure.add_subplot()
    for i, landscape in enumerate(landscapes):
        axes.plot(
            landscape.alphas,
            landscape.losses[:, len(landscape.betas) // 2].clip(max=top),
            color=PALETTE[i % len(PALETTE)],
            marker=MARKERS[i % len(MARKERS)],
            markersize=3,
            linewidth=1.4,
            label=landscape.name,
        )
    style_axes(axes, x=_AXES[0], y=_label(landscapes, top), title=_describe(landscapes[0]))
    axes.legend(frameon=False, fontsize=8)
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
                raise ValueError(
                    f"landscapes on one scale must be of the same {key}, got {values[0]} and, of "
                    f"{landscape.name!r}, {value}"
                )


def _limits(landscapes: Sequence[Landscape], max_loss: float | None) -> tuple[float, float]:
    """Returns lowest and highest loss drawn, the second above the first."""
    losses = np.concatenate([landscape.losses.ravel() for landscape in landscapes])
    finite = losses[np.isfinite(losses)]
    if not len(finite):
        raise ValueError("none of the losses is finite, so there is nothing to draw")
    low = float(finite.min())
    top = float(finite.max()) if max_loss is None else max_loss
    if top < low:
        raise ValueError(f"max_loss must be at least the smallest loss, {low:.4g}, got {top}")
    # A flat landscape has one height; its scale still needs two ends.
    return low, max(top, low + 1e-9 * max(1.0, abs(low)))


def _describe(landscape: Landscape) -> str:
    settings = landscape.settings
    attack = settings["attack"]
    images = f"{settings['num_images']:,} images"
    if attack is None:
        return f"{images}, natural; directions of seed {settings['seed']}"
    when = "at each point" if attack["reattack"] else "at the weights"
    return (
        f"{images}, {attack['name']} with eps {attack['eps']:g} {when}; directions of seed "
        f"{settings['seed']}"
    )


def _label(landscapes: Sequence[Landscape], top: float) -> str:
    name: str = landscapes[0].settings["loss"]["objective"].replace("_", " ")
    is_cut = any((landscape.losses > top).any() for landscape in landscapes)
    return f"{name}, cut at {top:.3g}" if is_cut else name
