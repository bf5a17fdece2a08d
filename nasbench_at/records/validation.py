"""Data from files: parsed and checked, every error one line that names the field."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Any, TypeVar

from pydantic import ConfigDict, Field, Strict, TypeAdapter, ValidationError
from pydantic_core import from_json

__all__ = [
    "CHECKED",
    "OPEN",
    "Count",
    "Finite",
    "Flag",
    "Integer",
    "NonNegative",
    "Positive",
    "Share",
    "Text",
    "Word",
    "check",
    "parse",
]

# Strict: "5" is no number, True is no count, 1.5 is no word.
Text = Annotated[str, Strict()]
Word = Annotated[str, Strict(), Field(min_length=1)]
Flag = Annotated[bool, Strict()]
Integer = Annotated[int, Strict()]
Count = Annotated[int, Strict(), Field(ge=0)]
Positive = Annotated[int, Strict(), Field(ge=1)]
Finite = Annotated[float, Strict()]
NonNegative = Annotated[float, Strict(), Field(ge=0)]
Share = Annotated[float, Strict(), Field(ge=0, le=1)]

CHECKED = ConfigDict(extra="forbid", allow_inf_nan=False)
"""Of data that are typed throughout: unknown keys, NaN and infinity are errors."""
OPEN = ConfigDict(extra="allow", allow_inf_nan=False)
"""Of data of which some keys are typed, and others are let through."""

_WITHOUT_VALUE = ("missing", "extra_forbidden", "unexpected_keyword_argument", "value_error")
_MAX_SHOWN = 60
_T = TypeVar("_T")


def parse(text: str | bytes) -> Any:
    """Parses JSON.

    Raises:
        ValueError: If the text is no JSON, holds NaN or infinity, or is nested too deeply.
    """
    try:
        return from_json(text, allow_inf_nan=False)
    except ValueError:
        # Looked for only now, since looking takes as long as parsing.
        for where, value in _non_finite(from_json(text)):
            raise ValueError(f"{where}: input should be a finite number, got {value}") from None
        raise


def _non_finite(data: Any, where: str = "") -> Iterator[tuple[str, float]]:
    """Yields where in plain data there is NaN or infinity, and which."""
    if isinstance(data, float) and not math.isfinite(data):
        yield where, data
    elif isinstance(data, dict | list):
        for key, value in data.items() if isinstance(data, dict) else enumerate(data):
            yield from _non_finite(value, f"{where}.{key}" if where else str(key))


def check(schema: TypeAdapter[_T], data: Any) -> _T:
    """Returns plain data as what a schema describes.

    Raises:
        ValueError: If they are not; one line names the first field that is wrong and its value.
    """
    try:
        return schema.validate_python(data)
    except ValidationError as error:
        raise ValueError(_describe(error)) from None


def _describe(error: ValidationError) -> str:
    first, *others = error.errors(include_url=False, include_context=False)
    message = first["msg"].removeprefix("Value error, ")
    line = message[:1].lower() + message[1:]
    if first["type"] not in _WITHOUT_VALUE:
        value = repr(first["input"])
        shown = value if len(value) <= _MAX_SHOWN else f"{value[:_MAX_SHOWN]}..."
        line += f", got {shown}"
    if where := ".".join(map(str, first["loc"])):
        line = f"{where}: {line}"
    rest = f" (and {len(others)} more error{'s' if len(others) > 1 else ''})" if others else ""
    return line + rest
