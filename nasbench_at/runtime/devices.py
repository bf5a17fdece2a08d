"""Choice of the device, and what is set once for it."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import nn

__all__ = ["fit_threads", "select_device", "uncompiled", "without_autotuning", "without_tf32"]

# oneDNN makes kernels for each size of a batch. By default it remembers a thousand: those of a
# network's forward and backward pass for six sizes, while attacks shrink their batches through all
# of them. It reads this once, at the first convolution.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "16384")

SMALL_NETWORK = 1_000_000
"""Parameters below which a second thread costs more than it brings."""


def select_device(name: str) -> torch.device:
    """Returns the device of a name; ``auto`` takes a GPU where there is one.

    On a GPU, cuDNN is told to try its algorithms on the first batch and keep the fastest, and that
    float32 is float32: by default torch lets convolutions round to TF32's ten bits.

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
        _set_tf32(False, False)
    return device


def _set_tf32(convolutions: bool, products: bool) -> tuple[bool, bool]:
    """Lets convolutions and matrix products round to TF32 or not; returns what was so before."""
    cudnn, cublas = torch.backends.cudnn, torch.backends.cuda.matmul
    with warnings.catch_warnings():
        # torch 2.9 and later speak of new names for these, which older ones do not know.
        warnings.simplefilter("ignore", UserWarning)
        before = bool(cudnn.allow_tf32), bool(cublas.allow_tf32)
        cudnn.allow_tf32, cublas.allow_tf32 = convolutions, products
    return before


@contextmanager
def without_tf32() -> Iterator[None]:
    """Lets float32 be exact on a GPU for the length of the block."""
    before = _set_tf32(False, False)
    try:
        yield
    finally:
        _set_tf32(*before)


def uncompiled() -> AbstractContextManager[object]:
    """Lets compiled parts run as they were written. Importing the compiler takes seconds."""
    if "torch._dynamo" not in sys.modules:
        return nullcontext()
    stance: AbstractContextManager[object] = torch.compiler.set_stance("force_eager")
    return stance


@contextmanager
def without_autotuning() -> Iterator[None]:
    """Keeps cuDNN from trying its algorithms anew for each size of a batch that shrinks."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def fit_threads(network: nn.Module) -> None:
    """Lets a small network on the CPU compute with one thread.

    Its operations are too short to be shared: more threads mostly wait for each other, and on a
    busy machine slow it down many times. ``OMP_NUM_THREADS``, if set, is left alone.

    Args:
        network: The network that is about to compute.
    """
    num_params = sum(parameter.numel() for parameter in network.parameters())
    on_cpu = all(parameter.device.type == "cpu" for parameter in network.parameters())
    if on_cpu and num_params < SMALL_NETWORK and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)
