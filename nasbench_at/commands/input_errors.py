"""What a user sees of bad input and of warnings: one line each."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["BadInputError", "bad_input", "check_folder_of", "one_line_warnings"]


class BadInputError(Exception):
    """What the user gave cannot be worked with; the message is one line."""


@contextmanager
def one_line_warnings() -> Iterator[None]:
    """Shows warnings as lines on stderr, without the source that raised them."""

    def show(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
        if issubclass(category, UserWarning):
            sys.stderr.write(f"nasbench-at: warning: {message}\n")

    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = show
        yield


@contextmanager
def bad_input(kind: type[ValueError] = ValueError) -> Iterator[None]:
    """Turns a ValueError raised while input is checked into :class:`BadInputError`.

    Args:
        kind: Which ones; a narrower kind leaves the faults of a computation what they are.
    """
    try:
        yield
    except kind as error:
        raise BadInputError(" ".join(str(error).split())) from error


def check_folder_of(path: Path) -> None:
    """Raises a ValueError if there is no folder for a file that is to be written."""
    if not path.parent.is_dir():
        raise ValueError(f"cannot write {str(path)!r}: no such folder")
