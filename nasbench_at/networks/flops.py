"""Floating-point operations of a forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

__all__ = ["FlopCounter", "count_flops"]


def count_flops(network: nn.Module, input_shape: Sequence[int]) -> int:
    """Counts the operations of one input's forward pass, on the default device.

    On the meta device that takes no memory and no arithmetic.

    Args:
        network: A module in eval mode.
        input_shape: Shape of its input, without the batch.
    """
    counter = FlopCounter()
    with counter, torch.no_grad():
        network(torch.empty(1, *input_shape))
    return counter.total


class FlopCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up torch's own formulas; its `FlopCounterMode` fails where a network takes a gradient.

    That an implicit Euler step does.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        """Runs an operation and counts it if there is a formula."""
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.total += formula(*args, **kwargs, out_val=out)
        return out
