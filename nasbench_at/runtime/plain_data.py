"""Files of ``torch.save`` from anywhere: what is not plain data is refused and not run."""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

import torch

__all__ = ["read_plain_data"]


def read_plain_data(file: BinaryIO | Path) -> Any:
    """Reads what ``torch.save`` wrote onto the CPU, if it is tensors and plain data alone.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it holds anything else, which is not run. torch's own message is left out:
            it tells how to run it.
    """
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # noqa: BLE001 - torch's reader raises almost anything
        kind = type(error).__name__
        raise ValueError(
            f"it is not tensors and plain data that torch.save wrote ({kind})"
        ) from None
