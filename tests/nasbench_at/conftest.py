"""A data set of stripes that trains in a blink, and a run on it that is finished."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nasbench_at import RunConfig, train
from nasbench_at.config import resolve
from nasbench_at.data import RawData, register_data_set

TINY: dict[str, Any] = {
    "data": "stripes",
    "blocks": ("residual", "mbconv"),
    "num_modules": 3,
    "init_channels": 4,
    "widen_factor": 1,
    "epochs": 2,
    "attack_steps": 2,
    "batch_size": 64,
}
"""Drop-connect of mbconv and the uniform start of the attack both draw random numbers."""


def make_stripes(num_train: int = 160, num_test: int = 24) -> RawData:
    """Noisy 1x8x8 images; class i of four has a bright pair of rows i."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(num_train + num_test) % 4
    images = torch.randint(0, 90, (len(labels), 1, 8, 8), generator=generator)
    for i, label in enumerate(labels.tolist()):
        images[i, :, 2 * label : 2 * label + 2] += 150
    pixels = images.to(torch.uint8)
    return RawData(
        pixels[:num_train], labels[:num_train], pixels[num_train:], labels[num_train:], 4
    )


register_data_set("stripes")(make_stripes)


def save_extra(path: Path, count: int = 40, brightness: int = 5) -> str:
    """Writes a file of generated stripes; returns its path."""
    images, labels, *_ = make_stripes(count)
    np.savez(path, x=images.numpy() + np.uint8(brightness), y=labels.numpy())
    return str(path)


def tiny_config(**changes: Any) -> RunConfig:
    return RunConfig(**{**TINY, **changes})


def tiny_flags(**changes: Any) -> list[str]:
    """The words of the command line that stand for :func:`tiny_config`."""
    words: list[str] = []
    for name, value in {**TINY, **changes}.items():
        values = value if isinstance(value, tuple | list) else (value,)
        words += [f"--{name.replace('_', '-')}", *map(str, values)]
    return words


def one_line(error: pytest.ExceptionInfo[BaseException]) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


@pytest.fixture
def own_data_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Data sets that a test registers end with it."""
    registry = sys.modules[register_data_set.__module__]
    monkeypatch.setattr(registry, "_LOADERS", dict(registry._LOADERS))


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run; only to be read."""
    runs = tmp_path_factory.mktemp("trained")
    config = resolve(tiny_config())
    train(config, runs_dir=runs, device="cpu")
    return runs / config.run_id


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of the finished run's folder."""
    return Path(shutil.copytree(trained, tmp_path / "runs" / trained.name))
