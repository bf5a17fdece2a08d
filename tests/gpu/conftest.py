"""What every test on a GPU needs: the device, float32 that is float32, equal random numbers."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
import torch


@pytest.fixture(scope="session")
def device() -> torch.device:
    """The GPU; GPU_TESTS_DEVICE=cpu tries the tests themselves where there is none."""
    device = torch.device(os.environ.get("GPU_TESTS_DEVICE", "cuda"))
    if device.type == "cuda" and not torch.cuda.is_available():
        pytest.skip("this machine has no GPU")
    return device


@pytest.fixture
def on_cuda(device: torch.device) -> None:
    """Skips what means nothing on another device."""
    if device.type != "cuda":
        pytest.skip(f"of no meaning on {device}")


@pytest.fixture
def exact() -> Iterator[None]:
    """No TF32, and the same algorithm each time."""
    settings: list[tuple[Any, str, bool]] = [
        (torch.backends.cuda.matmul, "allow_tf32", False),
        (torch.backends.cudnn, "allow_tf32", False),
        (torch.backends.cudnn, "deterministic", True),
        (torch.backends.cudnn, "benchmark", False),
    ]
    before = [(holder, name, getattr(holder, name)) for holder, name, _ in settings]
    for holder, name, value in settings:
        setattr(holder, name, value)
    yield
    for holder, name, value in before:
        setattr(holder, name, value)


@pytest.fixture
def same_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draws on the CPU whatever is drawn, since a GPU's generator gives other numbers."""
    for name in ("rand", "randn"):
        monkeypatch.setattr(torch, name, _drawn_on_cpu(getattr(torch, name)))


def _drawn_on_cpu(draw: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    def drawn(*size: Any, device: Any = None, **options: Any) -> torch.Tensor:
        return draw(*size, **options).to(device or "cpu")

    return drawn


@pytest.fixture
def no_waits(device: torch.device) -> Callable[[], AbstractContextManager[None]]:
    """A context in which torch refuses to let the host wait for the GPU."""

    @contextmanager
    def guard() -> Iterator[None]:
        if device.type != "cuda":
            yield
            return
        torch.cuda.synchronize()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the mode is a prototype
            torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")

    return guard


@pytest.fixture
def allocated(device: torch.device) -> Callable[[], int]:
    """Bytes of tensors on the GPU, 0 on other devices."""

    def measure() -> int:
        return torch.cuda.memory_allocated() if device.type == "cuda" else 0

    return measure
