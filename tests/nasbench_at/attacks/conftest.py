"""A small network and a batch that it classifies correctly."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn


class Batch(NamedTuple):
    x: Tensor
    y: Tensor


def build_net(*, num_classes: int = 10, seed: int = 0) -> nn.Sequential:
    """Conv, BatchNorm with statistics of its own, ReLU, Dropout, Linear on 1x8x8; in eval mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Flatten(),
            nn.Linear(8 * 64, num_classes),
        )
        with torch.no_grad():
            net(torch.rand(64, 1, 8, 8))
    return net.eval()


def images(num_images: int, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(num_images, 1, 8, 8, generator=generator, dtype=torch.float64).to(dtype)


def predict(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return model(x).argmax(dim=1)


class PerImage(nn.Module):
    """Computes each image by itself, so that no bit depends on the others; records images."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.extend(x.detach().clone())
        return torch.cat([self.model(image.unsqueeze(0)) for image in x])

    def take_seen(self) -> set[bytes]:
        """Returns the images since the last call."""
        seen = {image.contiguous().numpy().tobytes() for image in self.seen}
        self.seen.clear()
        return seen


@pytest.fixture
def net() -> nn.Sequential:
    return build_net()


@pytest.fixture
def batch(net: nn.Sequential) -> Batch:
    x = images(16)
    return Batch(x, predict(net, x))
