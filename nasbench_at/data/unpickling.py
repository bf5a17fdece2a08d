"""Reads the pickles that CIFAR comes in, without running what a pickle may ask for."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["load_arrays"]


def _latin1(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes must be encoded as latin1, got {encoding!r}")
    return text.encode("latin1")


# NumPy's own rebuilding functions, found without naming the private modules they live in.
_reconstruct: Any = np.zeros(1).__reduce__()[0]
_from_buffer: Any = np.zeros(1).__reduce_ex__(5)[0]
_scalar: Any = np.uint8(0).__reduce__()[0]

_ALLOWED: Mapping[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _latin1,
    **{
        (f"{core}.{module}", function.__name__): function
        for core in ("numpy.core", "numpy._core")
        for module, function in (
            ("multiarray", _reconstruct),
            ("multiarray", _scalar),
            ("numeric", _from_buffer),
        )
    },
}


class _ArrayUnpickler(pickle.Unpickler):
    """Knows containers, strings, numbers and NumPy arrays; any other name is refused."""

    def find_class(self, module: str, name: str) -> Any:
        """Looks a global name up among the allowed ones."""
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"refused to load {module}.{name}; only NumPy arrays are allowed"
            ) from None


def load_arrays(path: Path) -> Mapping[str, Any]:
    """Loads a pickled dictionary of arrays, lists, numbers and strings, of Python 2 or 3.

    Returns:
        The dictionary, its keys as strings.

    Raises:
        ValueError: If it is no dictionary.
        pickle.UnpicklingError: If it asks for anything else.
    """
    with path.open("rb") as file:
        content = _ArrayUnpickler(file, encoding="latin1").load()
    if not isinstance(content, dict):
        raise ValueError(f"must hold a dictionary, got {type(content).__name__}")
    return {
        key.decode("latin1") if isinstance(key, bytes) else str(key): value
        for key, value in content.items()
    }
