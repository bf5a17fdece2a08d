"""What a mistyped name may have meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["near_names", "suggest"]


def suggest(name: object, known: Iterable[str]) -> str:
    """Returns which known names come near a wrong one, and what there is, for a message."""
    names = [str(entry) for entry in known]
    near = near_names(name, names)
    hint = f"did you mean {near}? " if near else ""
    return f"{hint}known: {', '.join(names) or 'none'}"


def near_names(name: object, known: Iterable[str]) -> str:
    """Returns at most three known names that come near a wrong one, joined by ``or``."""
    return " or ".join(map(repr, difflib.get_close_matches(str(name), list(known), n=3)))
