"""Files, written whole or not at all; an error of one says which."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["naming_file", "write_atomically"]


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file so that at every instant it is the old one or the new one, whole.

    Raises:
        OSError: If it cannot be written; its ``filename`` is the path.
    """
    with naming_file(path):
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).chmod(0o644)
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


@contextmanager
def naming_file(path: Path) -> Iterator[None]:
    """Lets an error of the system in the block name a file, which that of a full disk does not."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
