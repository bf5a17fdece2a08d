"""A tiny DS-Net, a batch for it, and training steps on it, on any device."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nasbench_at.config import resolve
from nasbench_at.config.architecture import Architecture
from nasbench_at.networks.ds_net import DSNet
from nasbench_at.networks.graph import build_network
from nasbench_at.training.step import TrainingStep
from tests.nasbench_at.conftest import tiny_config

ARCHITECTURE = Architecture(
    num_modules=3, init_channels=8, widen_factor=2, num_classes=4, input_shape=(3, 8, 8)
)
METHODS = ("st", "at", "trades", "mart", "fat", "fat_trades", "fast_at")
# An image that is fooled leaves the batch, whose size the host must know.
WAITING = ("fat", "fat_trades")
BATCH_SIZE = 8


def make_network(architecture: Architecture = ARCHITECTURE) -> DSNet:
    """Returns the same network each time, channels_last, with statistics of a few batches."""
    torch.manual_seed(1)
    network = build_network(architecture).to(memory_format=torch.channels_last)
    with torch.no_grad():
        for _ in range(3):
            network(make_batch(32)[0])
    return network


def make_batch(size: int = BATCH_SIZE) -> tuple[Tensor, Tensor]:
    """Returns the same images and classes each time."""
    x = torch.rand(size, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    return x.contiguous(memory_format=torch.channels_last), torch.arange(size) % 4


def make_step(network: torch.nn.Module, method: str, **changes: Any) -> TrainingStep:
    """Returns a training step of a method with two attack steps from a random start."""
    values: dict[str, Any] = {"eps": 0.1, "step_size": 0.04, "attack_steps": 2}
    if method != "fast_at":
        values |= {"attack_start": "uniform", "attack_noise": 0.001}
    if method in ("trades", "mart", "fat_trades"):
        values["beta"] = 6.0
    return TrainingStep(network, resolve(tiny_config(method=method, **values | changes)))
