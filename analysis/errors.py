"""What is wrong with the runs that a table, figure or report was asked to be made from."""

from __future__ import annotations

__all__ = ["IncomparableRunsError", "MissingRunsError", "UnsuitableRunsError"]


class UnsuitableRunsError(ValueError):
    """The runs are not those that are needed; the message says what is."""


class MissingRunsError(UnsuitableRunsError):
    """No evaluated run belongs to a table or figure."""


class IncomparableRunsError(UnsuitableRunsError):
    """Runs that would stand side by side were trained or evaluated differently."""
