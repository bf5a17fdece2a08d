"""Mixed precision: named recipes over ``torch.autocast``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nasbench_at.attacks import attack_mode, cross_entropy_objective, input_gradient
from nasbench_at.attacks.folding import folded_norms
from nasbench_at.attacks.fusion import fused
from nasbench_at.config import Precision
from nasbench_at.runtime.devices import uncompiled

__all__ = ["GradientAgreement", "MixedPrecision", "check_precision", "compare_gradients"]

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


@dataclass(frozen=True)
class GradientAgreement:
    """What low precision does to the gradients whose signs an attack under L∞ follows.

    Attributes:
        lost: Share of pixels whose gradient is exactly 0, and float32's is not.
        flipped: Share of pixels whose gradient has the other sign than float32's.
    """

    lost: float
    flipped: float

    @property
    def misled(self) -> float:
        """Share of pixels that the attack does not move as float32 would."""
        return self.lost + self.flipped


def compare_gradients(
    model: nn.Module, x: Tensor, y: Tensor, precision: MixedPrecision
) -> GradientAgreement:
    """Compares the input gradients of an attack step in a precision with those in float32.

    The model and the global random state are as before afterwards. Compiled parts run as they were
    written, so that float32 does not have them compiled once more.

    Args:
        model: The model that training attacks.
        x: Images in [0, 1].
        y: True classes.
        precision: The precision.

    Shapes:
        x: (N, C, H, W). y: (N,), int64.
    """
    with attack_mode(model), folded_norms(model, x), uncompiled():
        exact = input_gradient(model, x, y, cross_entropy_objective)
        with precision.autocast():
            found = input_gradient(fused(model, x), x, y, cross_entropy_objective)
    lost = (found == 0) & (exact != 0)
    flipped = found.sign() * exact.sign() < 0
    return GradientAgreement(*torch.stack([lost, flipped]).double().mean(dim=(1, 2, 3, 4)).tolist())
