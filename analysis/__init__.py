"""Figures from records: computing (arrays out) apart from drawing (figures out).

Every figure has a canvas of its own, which no global state refers to.
"""

from __future__ import annotations

__all__: list[str] = []
