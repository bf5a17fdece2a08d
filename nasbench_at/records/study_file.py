"""The file in which a study lists its runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Required

from pydantic import Field, TypeAdapter
from typing_extensions import TypedDict

from nasbench_at.records.validation import CHECKED, Flag, Text, Word, check, parse

__all__ = ["read_study_file"]


class _StudyFile(TypedDict, total=False):
    __pydantic_config__ = CHECKED  # type: ignore[misc]  # pydantic's way to configure a TypedDict

    runs: Required[list[Annotated[Word, Field(pattern="^[^/]+$")]]]  # names, and no paths
    finished: Required[Flag]
    summary: Text


def read_study_file(path: Path) -> dict[str, Any]:
    """Reads ``runs.json``.

    Raises:
        ValueError: If the file cannot be read or holds something else; the message names the file
            and the field.
    """
    schema: TypeAdapter[Any] = TypeAdapter(_StudyFile)
    try:
        content: dict[str, Any] = check(schema, parse(path.read_bytes()))
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot read {str(path)!r}: {error}") from None
    return content
