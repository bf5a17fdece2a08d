"""Blocks from outside: a Python file, or an entry point of an installed package."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from importlib.metadata import entry_points
from pathlib import Path

from blocks.registry import registering_all_or_none

__all__ = ["ENTRY_POINT_GROUP", "load_entry_points", "load_plugin"]

ENTRY_POINT_GROUP = "nasbench_at.blocks"

_LOADED: dict[str, str] = {}
"""What each plugin's file held when it ran, by the name of its module."""


def load_plugin(path: str | Path) -> bool:
    """Runs a Python file, once a process, so that the blocks it defines are registered.

    Args:
        path: A ``.py`` file that calls :func:`blocks.register_block`.

    Returns:
        Whether it ran now, and not before.

    Raises:
        ValueError: If it is no Python file, fails while it runs (the cause is kept), or has
            changed since it ran: what it registered then cannot be taken back.
    """
    source = Path(path).resolve()
    if source.suffix != ".py" or not source.is_file():
        raise ValueError(f"a plugin must be an existing .py file, got {str(path)!r}")
    name = f"_block_plugin_{hashlib.sha256(bytes(source)).hexdigest()[:12]}"
    try:
        digest = hashlib.sha256(source.read_bytes()).hexdigest()
    except OSError as error:
        raise ValueError(f"cannot read plugin {str(path)!r}: {error.strerror}") from None
    if name in sys.modules:
        if _LOADED.get(name, digest) != digest:
            raise ValueError(
                f"plugin {str(path)!r} has changed since this process loaded it; start a new "
                "process"
            )
        return False
    spec = importlib.util.spec_from_file_location(name, source)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Registered before it runs, so that its classes can be pickled and deep-copied.
    sys.modules[name] = module
    _LOADED[name] = digest
    try:
        with registering_all_or_none():
            spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise ValueError(f"plugin {str(path)!r} failed: {error}") from error
    return True


def load_entry_points() -> None:
    """Loads every installed package's entry points of the group ``nasbench_at.blocks``."""
    for entry_point in entry_points(group=ENTRY_POINT_GROUP):
        entry_point.load()
