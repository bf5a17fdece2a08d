"""Shared by all tests: one thread, one seed, the arrays of the authors' code, small networks."""

from __future__ import annotations

import os
import re
import signal
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings
from torch import Tensor

import blocks.registry
from nasbench_at.config.architecture import Architecture

FIXTURES = Path(__file__).parent / "fixtures"

torch.set_num_threads(1)

# A shell's background jobs are deaf to SIGINT, and so would be the commands that tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Of this process alone: two that compile the same code at once can read each other's unfinished
# libraries.
_COMPILED = tempfile.TemporaryDirectory(prefix="compiled-")
os.environ["TORCHINDUCTOR_CACHE_DIR"] = _COMPILED.name

# How fast the machine happens to be decides nothing.
settings.register_profile("any_speed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any_speed")


OPTIONAL_ON_A_GPU = (
    "docstring_parser",
    "foolbox",
    "importlinter",
    "optuna",
    "pyarrow",
    "pyautoattack",
)
"""Packages that a machine lent for its GPU may lack."""


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Skips by name the modules that cannot be imported there, where tests for a GPU are run."""
    report = yield
    missing = re.search(r"ModuleNotFoundError: No module named '(\w+)", str(report.longrepr))
    if (
        collector.config.option.markexpr == "gpu"
        and report.failed
        and missing
        and missing[1] in OPTIONAL_ON_A_GPU
    ):
        report.outcome = "skipped"
        report.longrepr = (str(collector.path), 0, f"Skipped: {missing[1]} is not installed")
    return report


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def own_registry(monkeypatch: pytest.MonkeyPatch) -> dict[str, blocks.BlockInfo]:
    """A copy of the block registry, so that what a test registers ends with it."""
    registry = dict(blocks.registry._REGISTRY)
    monkeypatch.setattr(blocks.registry, "_REGISTRY", registry)
    return registry


def forget_plugins() -> None:
    """Lets plugins be loaded anew, as in another process."""
    for name in [name for name in sys.modules if name.startswith("_block_plugin_")]:
        del sys.modules[name]


@pytest.fixture
def tiny_architecture() -> Architecture:
    """Three modules of the four default blocks, 4, 8 and 16 channels, images of 8x8."""
    return Architecture(num_modules=3, init_channels=4, widen_factor=2, input_shape=(3, 8, 8))


def _load(name: str) -> dict[str, Tensor]:
    with np.load(FIXTURES / name) as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays.files}


@pytest.fixture(scope="session")
def authors_blocks() -> dict[str, Tensor]:
    """States, inputs and outputs of each of the authors' blocks."""
    return _load("authors_blocks.npz")


@pytest.fixture(scope="session")
def authors_network() -> dict[str, Tensor]:
    """State, attention weights, input and results of the authors' DS-Net with three modules."""
    return _load("authors_dsnet_v1_tiny.npz")
