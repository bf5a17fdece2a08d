"""A data set in a file, which workers in other processes can read too, and a study that is tiny."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from nasbench_at import RunConfig

if TYPE_CHECKING:
    from studies.config import StudyConfig


@pytest.fixture(scope="session")
def stripes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_stripes(tmp_path_factory.mktemp("data"))


def write_stripes(folder: Path) -> Path:
    """Noisy 1x8x8 images; class i of four has a bright pair of rows i."""
    rng = np.random.default_rng(0)
    labels = np.arange(184) % 4
    images = rng.integers(0, 90, (184, 1, 8, 8))
    for i, label in enumerate(labels):
        images[i, :, 2 * label : 2 * label + 2] += 150
    path = folder / "stripes.npz"
    np.savez(
        path,
        x_train=images[:160].astype(np.uint8),
        y_train=labels[:160],
        x_test=images[160:].astype(np.uint8),
        y_test=labels[160:],
    )
    return path


@pytest.fixture
def base(stripes: Path) -> RunConfig:
    return tiny_run(stripes)


def tiny_run(stripes: Path, **changes: Any) -> RunConfig:
    values: dict[str, Any] = {
        "data": str(stripes),
        "blocks": ("residual", "mbconv"),
        "num_modules": 3,
        "init_channels": 4,
        "widen_factor": 1,
        "epochs": 2,
        "attack_steps": 2,
        "batch_size": 64,
    }
    return RunConfig(**{**values, **changes})


@pytest.fixture
def tiny_study(base: RunConfig) -> StudyConfig:
    """Three runs: each of two blocks, and both."""
    # Here, so that tests are collected where Optuna is not installed.
    from studies.recipes import block_space

    return block_space(base)
