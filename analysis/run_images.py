"""The images of a run's data that an analysis is about."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from analysis.errors import UnsuitableRunsError
from nasbench_at.evaluation.runs import Run

__all__ = ["first_images"]


def first_images(
    run: Run, part: Literal["train", "test"], num_images: int | None = None
) -> tuple[Tensor, Tensor]:
    """Returns the first images of one part of a run's data, in [0, 1], and their classes.

    Args:
        run: The run.
        part: ``train`` (what is held out for selection left out) or ``test``.
        num_images: How many images; all by default.

    Raises:
        UnsuitableRunsError: If there are fewer.
    """
    source = run.data.train if part == "train" else run.data.test
    count = len(source) if num_images is None else num_images
    if not 1 <= count <= len(source):
        raise UnsuitableRunsError(f"num_images must lie in 1..{len(source)}, got {count}")
    return source.take(torch.arange(count))
