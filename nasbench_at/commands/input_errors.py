"""What a user sees of bad input, of warnings and of faults: one line each."""

from __future__ import annotations

import sys
import tempfile
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from nasbench_at.config.allowed_values import hide_passwords

__all__ = [
    "BadInputError",
    "bad_input",
    "describe_fault",
    "one_line_warnings",
]


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

    Only checks belong inside. What is raised by the work after them is a fault, which leaves a
    traceback: see :func:`describe_fault`.

    Args:
        kind: Which errors; work whose errors of one kind speak of the input may stand inside.
    """
    try:
        yield
    except kind as error:
        raise BadInputError(_one_line(error)) from error


def describe_fault(error: BaseException) -> str:
    """Writes an error's traceback to a new log file and returns a line that names both.

    The log lies in the folder for temporary files; where that cannot be written, the traceback
    goes to stderr. Passwords in URLs are left out of both.
    """
    text = hide_passwords("".join(traceback.format_exception(error)))
    line = hide_passwords(f"{type(error).__name__}: {_one_line(error)}".rstrip(": "))
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="nasbench-at-", suffix=".log", delete=False, encoding="utf-8"
        ) as file:
            file.write(text)
    except OSError:
        sys.stderr.write(text)
        return line
    return f"{line}; traceback in {file.name}"


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
