"""A run's folder: what lies where, written whole or not at all, one process at a time."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nasbench_at.config import RunConfig, dump_config, load_config
from nasbench_at.files import write_atomically

__all__ = ["FolderInUseError", "RunFolder", "create_run_folder", "open_run_folder"]


class FolderInUseError(ValueError):
    """Another process works in the run's folder."""


@dataclass(frozen=True)
class RunFolder:
    """Paths of a run's files.

    Attributes:
        path: The folder, ``<runs-dir>/<run-id>``.
        config: Everything needed to repeat the run.
    """

    path: Path
    config: RunConfig

    @property
    def record(self) -> Path:
        """Results and provenance, JSON."""
        return self.path / "record.json"

    @property
    def metrics(self) -> Path:
        """One JSON line an epoch."""
        return self.path / "metrics.jsonl"

    @property
    def best(self) -> Path:
        """Weights of the selected epoch, safetensors."""
        return self.path / "best.safetensors"

    @property
    def checkpoint(self) -> Path:
        """State at the end of the last finished epoch."""
        return self.path / "last.pt"

    @property
    def outcomes(self) -> Path:
        """Per-sample outcomes of each attack, safetensors."""
        return self.path / "outcomes.safetensors"

    def write_metrics(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Writes the whole history, so that no line can be missing or doubled."""
        lines = (json.dumps(row) + "\n" for row in rows)
        write_atomically(self.metrics, "".join(lines).encode())

    @contextmanager
    def locked(self, hold: bool = True) -> Iterator[None]:
        """Holds the folder for this process until the block ends or the process dies.

        Args:
            hold: False for the ranks that another process holds the folder for.

        Raises:
            FolderInUseError: If another process holds it.
        """
        if not hold:
            yield
            return
        with (self.path / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise FolderInUseError(
                    f"run folder {str(self.path)!r} is in use by another process"
                ) from None
            yield


def create_run_folder(runs_dir: str | Path, config: RunConfig) -> RunFolder:
    """Creates the folder of a configuration, or returns the one that is there.

    Args:
        runs_dir: Where runs land.
        config: The resolved configuration.

    Raises:
        ValueError: If the folder cannot be written, or holds another configuration.
    """
    path = Path(runs_dir) / config.run_id
    folder = RunFolder(path, config)
    try:
        path.mkdir(parents=True, exist_ok=True)
        (path / ".lock").touch()
    except OSError as error:
        raise ValueError(f"cannot write to run folder {str(path)!r}: {error.strerror}") from None
    file = path / "config.yaml"
    if not file.exists():
        write_atomically(file, dump_config(config).encode())
    elif load_config(file) != config:
        raise ValueError(
            f"run folder {str(path)!r} belongs to another configuration; move it away or choose "
            "another --runs-dir"
        )
    return folder


def open_run_folder(path: str | Path) -> RunFolder:
    """Opens an existing run's folder.

    Raises:
        ValueError: If it is none.
    """
    file = Path(path) / "config.yaml"
    if not file.is_file():
        raise ValueError(f"{str(path)!r} is no run folder: it holds no config.yaml")
    return RunFolder(Path(path), load_config(file))
