"""How everything here is timed: in turn, so that a busy machine slows both sides alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

__all__ = ["matmul_peak", "resident_mib", "time_in_turn"]


def time_in_turn(
    functions: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    warmup: int = 2,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Returns each function's median seconds over ``rounds`` calls, taken in turn."""
    for function in functions.values():
        for _ in range(warmup):
            function()
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            start = clock()
            function()
            seconds[name].append(clock() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def matmul_peak(size: int = 1536, repeats: int = 5, *, dtype: torch.dtype = torch.float32) -> float:
    """Returns the machine's matrix-multiply speed in FLOP/s: the best of a few."""
    a, b = torch.rand(2, size, size).to(dtype)
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def resident_mib() -> float:
    """Returns the process's resident memory in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20
