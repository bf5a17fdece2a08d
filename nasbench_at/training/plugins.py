"""What others than the package register: blocks, networks, data sets, ways of training."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

from blocks import list_blocks, load_entry_points, load_plugin
from nasbench_at.data.registry import list_data_sets
from nasbench_at.networks.zoo import list_families, list_models
from nasbench_at.training.methods import list_methods

__all__ = ["load_plugins"]


def load_plugins(paths: Iterable[str]) -> None:
    """Loads the blocks of installed packages and a user's Python files, each once a process.

    A file that registers nothing when it is loaded is warned of.

    Args:
        paths: The files.

    Raises:
        ValueError: If a file is no Python file, fails, or has changed since it was loaded.
    """
    load_entry_points()
    for path in paths:
        before = _registered()
        if load_plugin(path) and _registered() == before:
            warnings.warn(
                f"plugin {path!r} registers nothing; the decorator blocks.register_block makes a "
                "class a block",
                stacklevel=2,
            )


def _registered() -> tuple[Iterable[str], ...]:
    return list_blocks(), list_models(), list_families(), list_data_sets(), list_methods()
