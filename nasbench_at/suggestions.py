"""What a mistyped name may have meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["suggest"]


def suggest(name: object, known: Iterable[str]) -> str:
    """Returns which known names come near a wrong one, and what there is, for a message."""
    names = [str(entry) for entry in known]
    near = difflib.get_close_matches(str(name), names, n=3)
    hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
    return f"{hint}known: {', '.join(names) or 'none'}"
