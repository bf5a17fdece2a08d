"""The lines of a run's ``metrics.jsonl``, one an epoch."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, Required

from pydantic import TypeAdapter
from typing_extensions import TypedDict

from nasbench_at.records.validation import OPEN, Finite, NonNegative, Positive, Share, check, parse

__all__ = ["check_metrics", "read_metrics", "read_whole_metrics"]


class _Row(TypedDict, total=False):
    __pydantic_config__ = OPEN  # type: ignore[misc]  # pydantic's way to configure a TypedDict

    epoch: Required[Positive]
    lr: NonNegative
    train_loss: Finite
    train_accuracy: Required[Share]
    validation_natural: Required[Share]
    validation_robust: Required[Share]
    gradients_lost: Share
    gradients_flipped: Share
    attention: list[list[Finite]] | None


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """Reads the lines of a run's ``metrics.jsonl``; none if there is no such file yet.

    Raises:
        ValueError: If the file cannot be read or a line holds no metrics; the message names the
            file, the line and the field.
    """
    try:
        lines = Path(path).read_bytes().splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ValueError(f"cannot read metrics {str(path)!r}: {error.strerror}") from None
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(check_metrics(parse(line)))
        except ValueError as error:
            raise ValueError(f"cannot read metrics {str(path)!r}: line {number}: {error}") from None
    return rows


def read_whole_metrics(path: str | Path) -> list[dict[str, Any]]:
    """Reads the lines before the first that is not whole; none if there is no file to read.

    A file that is being copied ends in half a line.
    """
    rows: list[dict[str, Any]] = []
    try:
        for line in Path(path).read_bytes().splitlines():
            rows.append(check_metrics(parse(line)))
    except (OSError, ValueError):
        pass
    return rows


def check_metrics(row: Any) -> dict[str, Any]:
    """Returns what one epoch measured.

    Raises:
        ValueError: If plain data are none; the message names the field.
    """
    checked: dict[str, Any] = check(_schema(), row)
    return checked


@cache
def _schema() -> TypeAdapter[Any]:
    return TypeAdapter(_Row)
