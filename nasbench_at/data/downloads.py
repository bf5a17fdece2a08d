"""Where data files are, how they get there, and what is said when they are missing or damaged."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

__all__ = ["Download", "default_root", "provide", "reading"]


def default_root() -> Path:
    """Folder of the data files: ``$NASBENCH_AT_DATA``, or ``~/.cache/nasbench-at``."""
    chosen = os.environ.get("NASBENCH_AT_DATA")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "nasbench-at"


@dataclass(frozen=True)
class Download:
    """A file, or an archive of one folder.

    Attributes:
        url: Where it is to be had.
        md5: Checksum of what is downloaded.
        target: The file, or the folder that the archive holds.
    """

    url: str
    md5: str
    target: Path

    @property
    def is_archive(self) -> bool:
        """Whether a folder has to be unpacked from it."""
        return self.url.endswith(".tar.gz")

    def by_hand(self) -> str:
        """Says how to get it without this program."""
        verb = "unpack" if self.is_archive else "put"
        return f"{verb} {self.url} in {str(self.target.parent)!r}"


def provide(
    name: str,
    files: Sequence[Path],
    downloads: Sequence[Download],
    *,
    download: bool,
    alternative: str = "",
) -> None:
    """Makes sure that a data set's files are there, downloading what is not.

    A folder that is there but lacks files is left as it is: it may be somebody's own.

    Args:
        name: The data set.
        files: All files that it is read from.
        downloads: What they are to be had from.
        download: Whether to download at all.
        alternative: Another way to get them, for the message.

    Raises:
        ValueError: If files are missing in the end; says what is expected where, how to get it.
    """
    reason = ""
    if download:
        try:
            for item in downloads:
                if not item.target.exists():
                    _fetch(item)
        # What torchvision's downloader fails with; a URLError is an OSError. So is what a rename
        # fails with if another process was faster; its files are as good.
        except (OSError, RuntimeError, HTTPException) as error:
            reason = f" (downloading failed: {' '.join(str(error).split())})"
    missing = _missing(files)
    if missing:
        names = ", ".join(file.name for file in missing)
        ways = [item.by_hand() for item in downloads if not item.target.is_file()]
        raise ValueError(
            f"data set {name!r} needs {names} in {str(missing[0].parent)!r}, not found{reason}; "
            f"{', '.join(ways)}{alternative}, or name the folder that has them by --data-root or "
            "NASBENCH_AT_DATA"
        )


def _missing(files: Sequence[Path]) -> list[Path]:
    return [file for file in files if not file.is_file()]


def _fetch(item: Download) -> None:
    """Downloads beside the target and renames, so that the target is whole whenever it exists."""
    # Slow to import, and only needed here; torchvision comes without types.
    from torchvision.datasets.utils import (  # type: ignore[import-untyped]
        download_and_extract_archive,
        download_url,
    )

    folder = item.target.parent
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".download-") as scratch:
        fetch = download_and_extract_archive if item.is_archive else download_url
        fetch(item.url, scratch, md5=item.md5)
        (Path(scratch) / item.target.name).rename(item.target)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns whatever reading a damaged file fails with into one line that names the file.

    Raises:
        ValueError: If anything is raised inside.
    """
    try:
        yield
    except Exception as error:
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        reason = " ".join(f"{kind}{error}".split())
        raise ValueError(f"cannot read {str(path)!r}: {reason}") from error
