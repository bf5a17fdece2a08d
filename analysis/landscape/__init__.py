"""The loss around a network's weights, Fig. 7a of the paper.

``directions`` draws where to go, ``weights`` goes there, ``measuring`` finds the loss on the way,
``computing`` does so for a grid, ``grid`` holds what was found, ``drawing`` draws it.
"""

from __future__ import annotations

from analysis.landscape.computing import compute_landscape, compute_run_landscape
from analysis.landscape.drawing import (
    draw_landscape_contour,
    draw_landscape_line,
    draw_landscape_surface,
)
from analysis.landscape.grid import Landscape, load_landscape, save_landscape

__all__ = [
    "Landscape",
    "compute_landscape",
    "compute_run_landscape",
    "draw_landscape_contour",
    "draw_landscape_line",
    "draw_landscape_surface",
    "load_landscape",
    "save_landscape",
]
