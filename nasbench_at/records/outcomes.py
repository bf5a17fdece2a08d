"""The file of a record's per-sample outcomes: which images are classified correctly."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["SUBSET_PREFIX", "outcomes_path", "read_outcomes"]

SUBSET_PREFIX = "subset-"
"""Begins the names of the rows that say which images a part is of."""


def outcomes_path(record: Path) -> Path:
    """Returns where a record's per-sample outcomes lie: beside it."""
    if record.name == "record.json":
        return record.with_name("outcomes.safetensors")
    return record.with_suffix(".outcomes.safetensors")


def read_outcomes(record: Path) -> dict[str, NDArray[Any]]:
    """Returns a record's per-sample outcomes: whether each image is classified correctly.

    Returns:
        By :attr:`AttackResult.key <nasbench_at.records.AttackResult.key>`, bool ``(num_samples,)``;
        and under ``subset-<hash>`` the indices of the images of rows with that ``subset``.

    Raises:
        ValueError: If there are none or they cannot be read; the message names the file.
    """
    # Imported here: numpy takes longer to load than a query of thousands of records.
    import safetensors
    import safetensors.numpy

    path = outcomes_path(record)
    try:
        return safetensors.numpy.load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise ValueError(f"cannot read outcomes {str(path)!r}: {error}") from None
