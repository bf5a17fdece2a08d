"""The mean loss of a network at points around its weights, on as many threads as help."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from queue import SimpleQueue
from typing import TypeAlias

import torch
from torch import Tensor, nn

from analysis.landscape.directions import Direction
from analysis.landscape.weights import Move, moving_weights
from nasbench_at.attacks import Attack, attack_mode
from nasbench_at.attacks.objectives import Objective
from nasbench_at.runtime.devices import SMALL_NETWORK
from nasbench_at.runtime.seeding import make_generator

__all__ = ["LossesAt", "Measure", "Point", "count_workers", "measuring"]

MOST_WORKERS = 8
"""Beyond that, threads wait for Python's lock more than they compute."""

Point: TypeAlias = tuple[float, ...]
LossesAt: TypeAlias = Callable[[Sequence[Point]], Iterator[float]]
"""From points to their losses, in order."""


@dataclass(frozen=True)
class Measure:
    """Measures the mean loss of a model, as its weights are, on these images.

    Attributes:
        images: Shape ``(N, ...)``, on the model's device.
        labels: Shape ``(N,)``.
        loss: Maps logits and labels to a value an image.
        batch_size: Images of a forward pass.
    """

    images: Tensor
    labels: Tensor
    loss: Objective
    batch_size: int

    @torch.inference_mode()
    def __call__(self, model: nn.Module) -> float:
        """Returns the mean loss; one that is no number is infinite."""
        total = torch.zeros((), dtype=torch.float64, device=self.images.device)
        for x, y in self._batches():
            losses = self.loss(model(x), y)
            if losses.shape != y.shape:
                raise ValueError(
                    f"loss must return a value an image, shape {tuple(y.shape)}, got shape "
                    f"{tuple(losses.shape)}"
                )
            total += losses.sum(dtype=torch.float64)
        mean = float(total) / len(self.labels)
        return float("inf") if mean != mean else mean

    def attacked(self, model: nn.Module, attack: Attack, seed: int) -> Measure:
        """Returns the measure on the images after an attack, whose starts a seed decides."""
        images = []
        for number, (x, y) in enumerate(self._batches()):
            generator = make_generator(seed, "landscape attack", number, device=x.device)
            images.append(attack(model, x, y, generator=generator))
        return replace(self, images=torch.cat(images))

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, len(self.labels), self.batch_size):
            rows = slice(start, start + self.batch_size)
            yield self.images[rows], self.labels[rows]


@contextmanager
def measuring(
    model: nn.Module,
    measure: Measure,
    directions: Sequence[Direction],
) -> Iterator[LossesAt]:
    """Lends a model out to be measured at points; afterwards it is as it was.

    Args:
        model: At the origin.
        measure: What to measure.
        directions: The axes.
    """
    num_workers = count_workers(model, measure.images.device)
    idle: SimpleQueue[tuple[nn.Module, Move]] = SimpleQueue()

    def loss_at(point: Point) -> float:
        own, move = idle.get()
        try:
            move(point)
            return measure(own)
        finally:
            idle.put((own, move))

    with ExitStack() as stack:
        for own in [model, *(copy.deepcopy(model) for _ in range(num_workers - 1))]:
            stack.enter_context(attack_mode(own))
            move = stack.enter_context(moving_weights(own, directions, images=measure.images))
            idle.put((own, move))
        if num_workers == 1:
            yield lambda points: map(loss_at, points)
            return
        stack.enter_context(_threads_shared_by(num_workers))
        pool = stack.enter_context(ThreadPoolExecutor(num_workers))
        # After an exception, what has not begun shall not begin any more.
        stack.callback(pool.shutdown, wait=False, cancel_futures=True)
        yield lambda points: pool.map(loss_at, points)


def count_workers(model: nn.Module, device: torch.device) -> int:
    """Returns how many threads take points, each with a copy of the model.

    That is one, but for a small network on the CPU ``OMP_NUM_THREADS`` or all cores, at most 8: its
    operations are too short to be shared out.
    """
    size = sum(parameter.numel() for parameter in model.parameters())
    if device.type != "cpu" or size >= SMALL_NETWORK:
        return 1
    # A network so small was given one thread when it was built: the other cores are free.
    cores = torch.get_num_threads() if "OMP_NUM_THREADS" in os.environ else os.cpu_count()
    return min(cores or 1, MOST_WORKERS)


@contextmanager
def _threads_shared_by(num_workers: int) -> Iterator[None]:
    """Gives each worker its part of the threads that an operation would have."""
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, before // num_workers))
    try:
        yield
    finally:
        torch.set_num_threads(before)
