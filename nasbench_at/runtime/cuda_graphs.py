"""A function that a GPU computes again and again, started by one call of the host each time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor

__all__ = ["MIN_CALLS", "Replayed"]

Tensors: TypeAlias = tuple[Tensor, ...]

MIN_CALLS = 4
"""Calls below which recording costs more than it brings: it takes as long as a call or two."""


class Replayed:
    """A function of one tensor whose kernels are recorded once, as a CUDA graph, and replayed.

    A network of many small kernels keeps a GPU waiting for the host, which starts them one by one.
    The first call computes as written, so that cuDNN chooses its algorithms; the second records,
    and it and all later ones replay, with the same bits. Where a function cannot be recorded,
    because it makes the host wait, say, every call computes as written.

    What the function reads besides its argument must keep its place in memory, and it must do the
    same operations each time. A result is overwritten by the next call.

    Args:
        function: Maps a tensor to tensors, with gradients of its own if need be.
    """

    def __init__(self, function: Callable[[Tensor], Tensors]) -> None:
        self._function = function
        self._num_calls = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._input: Tensor
        self._outputs: Tensors

    def __call__(self, x: Tensor) -> Tensors:
        """Returns the function's results for `x`, always of one shape, layout and device."""
        self._num_calls += 1
        if self._num_calls == 2:
            self._graph = self._record(x)
        if self._graph is None:
            return self._function(x)
        self._input.copy_(x)
        self._graph.replay()
        return self._outputs

    def _record(self, x: Tensor) -> torch.cuda.CUDAGraph | None:
        """Returns the recorded function; None if it cannot be recorded."""
        if not x.is_cuda:
            return None
        memory = _memory_of(x.device)
        graph = torch.cuda.CUDAGraph()
        self._input = x.clone()
        present = torch.cuda.current_stream(x.device)
        memory.stream.wait_stream(present)
        try:
            with torch.cuda.stream(memory.stream):
                # Other threads of this process, such as NCCL's, may go on meanwhile.
                graph.capture_begin(pool=memory.pool, capture_error_mode="thread_local")
                try:
                    self._outputs = self._function(self._input)
                finally:
                    graph.capture_end()
        except RuntimeError:
            memory.start_anew()
            return None
        finally:
            present.wait_stream(memory.stream)
        memory.latest = graph
        return graph


class _Memory:
    """Where the graphs of a device record, one after another, in the same memory.

    The latest graph is kept until there is the next one: memory that no graph holds is not lent
    again.
    """

    def __init__(self, device: torch.device) -> None:
        self.stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch's
        self.start_anew()

    def start_anew(self) -> None:
        """Takes other memory for the next graph."""
        self.pool: Any = torch.cuda.graph_pool_handle()
        self.latest: torch.cuda.CUDAGraph | None = None


_MEMORY: dict[torch.device, _Memory] = {}


def _memory_of(device: torch.device) -> _Memory:
    if device not in _MEMORY:
        _MEMORY[device] = _Memory(device)
    return _MEMORY[device]
