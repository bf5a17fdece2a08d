"""Where records lie: folders of runs, files of records, and the tables that come with the package.

Wherever runs are asked for, a place is one of these::

    runs/                 folders of runs, at any depth
    all.parquet           a file of records, .parquet or .jsonl
    digits                a table that comes with the package, by its name
    digits:RUN-ID         one run of a table or file

A trained network is the folder of its run, or one of these::

    network.safetensors   a file that was exported
    digits/dense          one that comes with the package, by its name
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from nasbench_at.records.validation import parse

__all__ = [
    "RECORD_SUFFIXES",
    "TableFile",
    "check_digest",
    "find_network",
    "find_table",
    "metadata_path",
    "shipped_networks",
    "shipped_tables",
]

RECORD_SUFFIXES = (".jsonl", ".parquet")
SHIPPED: Path = Path(__file__).parents[1] / "tables"
"""Where the tables that come with the package lie: ``NAME.parquet``, with its metadata beside, and
trained networks of it in the folder ``NAME``."""


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


def shipped_networks() -> list[str]:
    """Returns the names of the trained networks that come with the package, ``DATA/BLOCKS``.

    Of the runs of those blocks in the table called DATA, each is the one with the best robust
    accuracy on the images held out from training. Its model card lies beside it in the package.
    """
    files = SHIPPED.glob("*/*.safetensors")
    return sorted(path.relative_to(SHIPPED).with_suffix("").as_posix() for path in files)


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


def find_network(place: str | Path) -> Path | None:
    """Returns the file of an exported network that a place stands for; None if it is a folder.

    As with :func:`find_table`, a text that is a name of the package stands for that.
    """
    text = str(place)
    if not isinstance(place, Path) and text in shipped_networks():
        return SHIPPED / f"{text}.safetensors"
    return Path(text) if Path(text).suffix == ".safetensors" else None


def check_digest(table: Path) -> None:
    """Holds a table against the SHA-256 in its metadata.

    Raises:
        ValueError: If one of the two cannot be read or they differ; the message names the file.
    """
    metadata = metadata_path(table)
    try:
        content = parse(metadata.read_bytes())
        expected = content["distribution"][0]["sha256"]
        found = hashlib.sha256(table.read_bytes()).hexdigest()
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ValueError(
            f"cannot check {str(table)!r} against {metadata.name!r}: {error}"
        ) from None
    if found != expected:
        raise ValueError(
            f"{str(table)!r} is not the table that {metadata.name!r} describes: its SHA-256 begins "
            f"with {found[:12]}, not {str(expected)[:12]}; it was edited or is damaged"
        )
