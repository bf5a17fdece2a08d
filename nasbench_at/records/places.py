"""Where records lie: folders of runs, files of records, and the tables that come with the package.

Wherever runs are asked for, a place is one of these::

    runs/                 folders of runs, at any depth
    all.parquet           a file of records, .parquet or .jsonl
    digits                a table that comes with the package, by its name
    digits:RUN-ID         one run of a table or file
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["RECORD_SUFFIXES", "TableFile", "find_table", "metadata_path", "shipped_tables"]

RECORD_SUFFIXES = (".jsonl", ".parquet")
SHIPPED: Path = Path(__file__).parents[1] / "tables"
"""Where the tables that come with the package lie: ``NAME.parquet``, with its metadata beside."""


@dataclass(frozen=True)
class TableFile:
    """A file of many records.

    Attributes:
        path: The file.
        run_id: The one run of it that is asked for; None for all.
        is_shipped: Whether it comes with the package.
    """

    path: Path
    run_id: str | None = None
    is_shipped: bool = False


def shipped_tables() -> list[str]:
    """Returns the names of the tables that come with the package."""
    return sorted(path.stem for path in SHIPPED.glob("*.parquet"))


def metadata_path(table: Path) -> Path:
    """Returns where a table's Croissant metadata lie, and with them its SHA-256: beside it."""
    return table.with_suffix(".croissant.json")


def find_table(place: str | Path) -> TableFile | None:
    """Returns the table that a place stands for; None if it can only be a folder.

    A text that is the name of a table of the package stands for that, even where a folder is called
    so: ``./digits`` is the folder, and so is ``Path("digits")``.
    """
    text = str(place)
    if Path(text).suffix in RECORD_SUFFIXES:
        return TableFile(Path(text))
    if isinstance(place, Path):
        return None
    if text in shipped_tables():
        return TableFile(SHIPPED / f"{text}.parquet", is_shipped=True)
    start, _, run_id = text.rpartition(":")
    table = find_table(start) if start and run_id else None
    return table and TableFile(table.path, run_id, table.is_shipped)
