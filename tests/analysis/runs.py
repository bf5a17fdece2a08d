"""A run's folder without the training, and what a model must look like afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nasbench_at.config import resolve
from nasbench_at.evaluation.runs import Run
from nasbench_at.records.run_folders import create_run_folder
from nasbench_at.training.checkpoints import save_weights
from nasbench_at.training.launch import create_network, load_config_data
from tests.nasbench_at.conftest import tiny_config


def make_run(runs_dir: Path, **changes: Any) -> Run:
    """A tiny run on stripes whose network has seen images but no gradient."""
    config = resolve(tiny_config(**{"batch_size": 32, **changes}))
    folder = create_run_folder(runs_dir, config)
    device = torch.device("cpu")
    data = load_config_data(config, device)
    network = create_network(config, data, device).train()
    network(data.train.take(torch.arange(64))[0])
    save_weights(folder.best, network, {"epoch": 2})
    return Run(folder, device)


@contextmanager
def left_as_it_was(model: nn.Module) -> Iterator[None]:
    """Fails if weights, buffers, modes, gradients or hooks of a model are others afterwards."""

    def snapshot() -> list[Any]:
        return [
            {name: tensor.clone() for name, tensor in model.state_dict().items()},
            [(parameter.requires_grad, parameter.grad) for parameter in model.parameters()],
            [(module.training, len(module._forward_pre_hooks)) for module in model.modules()],
            torch.get_rng_state(),
        ]

    before = snapshot()
    yield
    after = snapshot()
    assert before[1:3] == after[1:3]
    assert torch.equal(before[3], after[3])
    assert all(torch.equal(after[0][name], tensor) for name, tensor in before[0].items())
