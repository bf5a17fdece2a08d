"""What a user sees of bad input and of warnings: one line each."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["BadInputError", "bad_input", "one_line_warnings"]


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
def bad_input() -> Iterator[None]:
    """Turns a ValueError raised while input is checked into :class:`BadInputError`."""
    try:
        yield
    except ValueError as error:
        raise BadInputError(" ".join(str(error).split())) from error
