"""Mixed precision: named recipes over ``torch.autocast``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from nasbench_at.config import Precision

__all__ = ["MixedPrecision", "check_precision"]

_DTYPES: Mapping[Precision, torch.dtype] = {
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp16_unscaled": torch.float16,
}


@dataclass(frozen=True)
class MixedPrecision:
    """The autocast context and the loss scaler of a precision.

    ``fp16_unscaled`` is what the DS-Net authors ran with apex at O1: fp16 where autocast allows, no
    loss scaling, and the sigmoid in float32 (which the squeeze-excite gate always is). apex's lists
    of half-precision operations and autocast's are not identical. Attacks add their objective up
    over the batch, so that unscaled half-precision gradients keep their sign.

    Attributes:
        name: The precision.
        device: Where it computes.
        scaler: Scales the loss for ``fp16``; passes it through otherwise.
    """

    name: Precision
    device: torch.device
    scaler: torch.amp.GradScaler

    @classmethod
    def create(cls, name: Precision, device: torch.device) -> MixedPrecision:
        """Returns a precision on a device."""
        return cls(name, device, torch.amp.GradScaler(device.type, enabled=name == "fp16"))

    def autocast(self) -> torch.autocast:
        """Returns the context for forward passes, the attack's and the loss's."""
        dtype = _DTYPES.get(self.name)
        return torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None)


def check_precision(name: Precision, device: torch.device) -> None:
    """Checks that a device computes a convolution and its gradient in a precision.

    Raises:
        ValueError: If it does not.
    """
    dtype = _DTYPES.get(name)
    if dtype is None:
        return
    convolution = torch.nn.Conv2d(3, 8, 3).to(device)
    try:
        with torch.autocast(device.type, dtype=dtype):
            convolution(torch.rand(2, 3, 8, 8, device=device)).sum().backward()
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"precision {name!r} does not work on this {device.type}: {reason}; use bf16 or fp32"
        ) from None
