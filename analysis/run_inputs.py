"""What an analysis of a run starts from: its network, its data, some images of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn

from analysis.errors import UnsuitableRunsError
from nasbench_at.data import DataSet
from nasbench_at.evaluation.run_evaluation import load_run
from nasbench_at.records.run_folders import RunFolder, open_run_folder

__all__ = ["Part", "RunInputs", "load_run_inputs"]

Part: TypeAlias = Literal["train", "test"]


@dataclass(frozen=True)
class RunInputs:
    """A run, loaded.

    Attributes:
        folder: The run's folder.
        data: Its data set.
        model: Its selected network, in eval mode.
        images: Images in [0, 1], shape ``(N, C, H, W)``.
        labels: True classes, shape ``(N,)``.
    """

    folder: RunFolder
    data: DataSet
    model: nn.Module
    images: Tensor
    labels: Tensor


def load_run_inputs(
    path: str | Path,
    *,
    part: Part,
    num_images: int | None = None,
    device: str = "auto",
    data_root: str | Path | None = None,
) -> RunInputs:
    """Loads a run's selected network and the first images of one part of its data.

    Args:
        path: The run's folder.
        part: ``train`` (what is held out for selection left out) or ``test``.
        num_images: How many images; all by default.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        data_root: Where the data set's files lie.

    Raises:
        ValueError: If the folder or its weights are not usable, or there are fewer images.
    """
    if part not in get_args(Part):
        raise ValueError(f"part must be one of {', '.join(get_args(Part))}, got {part!r}")
    folder = open_run_folder(path)
    model, data = load_run(folder, device, data_root)
    source = data.train if part == "train" else data.test
    count = len(source) if num_images is None else num_images
    if not 1 <= count <= len(source):
        raise UnsuitableRunsError(f"num_images must lie in 1..{len(source)}, got {count}")
    images, labels = source.take(torch.arange(count))
    return RunInputs(folder, data, model, images, labels)
