"""The registry of data sets: loaders of raw data by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from nasbench_at.config.suggestions import suggest

__all__ = ["Loader", "RawData", "find_loader", "list_data_sets", "register_data_set"]


class RawData(NamedTuple):
    """What a data set's loader returns: uint8 images ``(N, C, H, W)`` and labels ``(N,)``."""

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    num_classes: int


Loader = Callable[..., RawData]

_LOADERS: dict[str, Loader] = {}


def register_data_set(name: str) -> Callable[[Loader], Loader]:
    """Registers a loader of raw data under a name.

    A loader that has a parameter ``root`` is given the folder of the data files, a
    :class:`~pathlib.Path`; one that has a parameter ``download`` is told whether it may download.

    Raises:
        ValueError: If the name is taken.
    """
    if name in _LOADERS:
        raise ValueError(f"data set {name!r} is registered already; choose another name")

    def decorate(loader: Loader) -> Loader:
        _LOADERS[name] = loader
        return loader

    return decorate


def list_data_sets() -> tuple[str, ...]:
    """Returns the names of all registered data sets."""
    return tuple(_LOADERS)


def find_loader(name: str) -> Loader:
    """Returns the loader of a registered data set.

    Raises:
        ValueError: If the name is unknown; the message lists what is known.
    """
    if name not in _LOADERS:
        raise ValueError(
            f"unknown data set {name!r}; {suggest(name, _LOADERS)}; a file "
            "'path/to/file.npz' or a function 'module:function' will do, too"
        )
    return _LOADERS[name]
