"""Drawings of networks' graphs: DS-Nets module by module, cells edge by edge."""

from __future__ import annotations

from analysis.network_drawing.cells import draw_cell
from analysis.network_drawing.drawing import draw_graph

__all__ = ["draw_cell", "draw_graph"]
