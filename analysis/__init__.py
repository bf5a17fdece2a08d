"""Figures from records: computing (arrays out) apart from drawing (figures out)."""

from __future__ import annotations

__all__: list[str] = []
