"""Choice of the device, and what is set once for it."""

from __future__ import annotations

import torch

__all__ = ["select_device"]


def select_device(name: str) -> torch.device:
    """Returns the device of a name; ``auto`` takes a GPU where there is one.

    On a GPU, cuDNN is told to try its algorithms on the first batch and keep the fastest.

    Args:
        name: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        ValueError: If the device does not exist here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"device must be auto, cpu, cuda or cuda:N, got {name!r}") from None
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"device must be auto, cpu, cuda or cuda:N, got {name!r}")
    if device.type == "cuda":
        if not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count():
            raise ValueError(
                f"device {name!r} is not available: this machine has "
                f"{torch.cuda.device_count()} GPUs"
            )
        torch.backends.cudnn.benchmark = True
    return device
