"""Whole runs on a GPU: trained, killed, resumed, shared by ranks, evaluated, in a study."""

from __future__ import annotations

import json
import os
import signal
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from nasbench_at import evaluate_run, train
from nasbench_at.cli import find_commands
from nasbench_at.config import resolve
from nasbench_at.runtime.ranks import Ranks, distributed
from nasbench_at.training.interruption import InterruptedTraining
from nasbench_at.training.trainer import NoReport
from tests.gpu.networks import make_batch, make_network, make_step
from tests.nasbench_at.conftest import tiny_config

pytestmark = pytest.mark.gpu

# 144 training images: three batches of one size.
CHANGES: dict[str, Any] = {"batch_size": 48, "epochs": 2, "augment": True}


class StopAfter(NoReport):
    """Asks the run to stop, as a scheduler does, after some steps."""

    def __init__(self, num_steps: int) -> None:
        self.left = num_steps

    def step(self) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGTERM)


class ForbidWaits(NoReport):
    """Refuses waits from the end of an epoch's first step to the end of its last."""

    def __init__(self, no_waits: Any, num_steps: int) -> None:
        self.no_waits, self.num_steps, self.taken = no_waits, num_steps, 0
        self.guarded = 0

    def step(self) -> None:
        self.taken += 1
        if self.taken == 1:
            self.context = self.no_waits()
            self.context.__enter__()
        elif self.taken == self.num_steps:
            self.context.__exit__(None, None, None)
            self.taken, self.guarded = 0, self.guarded + 1


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def weights(runs: Path) -> dict[str, torch.Tensor]:
    (path,) = runs.glob("*/best.safetensors")
    return load_file(path)


def metrics(runs: Path) -> list[dict[str, Any]]:
    (path,) = runs.glob("*/metrics.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize("changes", [{}, {"ema_decay": 0.9}, {"precision": "fp16"}], ids=str)
@pytest.mark.parametrize("num_steps", [2, 4], ids=["first epoch", "second epoch"])
def test_stopped_run_goes_on_to_the_same_end(device, tmp_path, changes, num_steps):
    config = tiny_config(**CHANGES | changes)
    train(config, runs_dir=tmp_path / "whole", device=device.type)
    with pytest.raises(InterruptedTraining, match="SIGTERM"):
        train(
            config,
            runs_dir=tmp_path / "parts",
            device=device.type,
            reporter=StopAfter(num_steps),
        )
    train(config, runs_dir=tmp_path / "parts", device=device.type)
    torch.testing.assert_close(
        weights(tmp_path / "parts"), weights(tmp_path / "whole"), rtol=1e-4, atol=1e-5
    )
    whole, parts = metrics(tmp_path / "whole"), metrics(tmp_path / "parts")
    assert [row["epoch"] for row in parts] == [1, 2]
    for row, expected in zip(parts, whole, strict=True):
        assert row["train_loss"] == pytest.approx(expected["train_loss"], rel=1e-4)


def test_host_does_not_wait_between_steps(device, tmp_path, no_waits):
    reporter = ForbidWaits(no_waits, num_steps=3)
    train(tiny_config(**CHANGES), runs_dir=tmp_path, device=device.type, reporter=reporter)
    assert reporter.guarded == 2


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_run_is_trained_and_evaluated(device, tmp_path, precision):
    config = resolve(tiny_config(**CHANGES, precision=precision))
    record = train(config, runs_dir=tmp_path, device=device.type)
    if device.type == "cuda":
        assert record.provenance["device"] == torch.cuda.get_device_name()
    record = evaluate_run(
        tmp_path / config.run_id, attacks=("fgsm", "pgd", "cw"), device=device.type
    )
    accuracies = {name: record.accuracy(name) for name in ("natural", "fgsm", "pgd", "cw")}
    assert all(0 <= accuracy <= 1 for accuracy in accuracies.values())
    assert accuracies["pgd"] <= accuracies["natural"]


def test_run_is_evaluated_with_autoattack(device, tmp_path):
    pytest.importorskip("pyautoattack", reason="pyautoattack is not installed")
    config = resolve(tiny_config(**CHANGES))
    train(config, runs_dir=tmp_path, device=device.type)
    record = evaluate_run(
        tmp_path / config.run_id, attacks=("pgd", "apgd-ce"), device=device.type, aa_samples=12
    )
    assert 0 <= record.accuracy("apgd-ce") <= 1


@pytest.mark.parametrize("sync_batch_norm", [True, False], ids=["shared norms", "own norms"])
# What torch says of a group without a GPU of its own, and of its buckets' strides.
@pytest.mark.filterwarnings("ignore")
def test_one_rank_of_nccl_takes_the_step_of_none(
    device, exact, same_draws, monkeypatch, sync_batch_norm
):
    """A run with one rank starts no group. So the group has one rank, and the run counts two."""
    real = dist.init_process_group
    monkeypatch.setattr(
        dist, "init_process_group", lambda backend: real(backend, rank=0, world_size=1)
    )
    for name, value in {
        "WORLD_SIZE": "2",
        "LOCAL_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
    }.items():
        monkeypatch.setenv(name, value)
    x, y = (tensor.to(device) for tensor in make_batch())
    moved = []
    with distributed(device) as ranks:
        assert ranks.world_size == 2
        if device.type == "cuda":
            assert "nccl" in dist.get_backend_config()
        assert ranks.agree(True, False) == (True, False)
        assert ranks.true_on_all(y >= 0).all()
        ranks.barrier()
        for place in (Ranks(), ranks):
            network = make_network().to(device)
            before = [p.detach().clone() for p in network.parameters()]
            step = make_step(network, "trades", sync_batch_norm=sync_batch_norm)
            if place is ranks:
                step.ranks = ranks
                step.wrapped = ranks.wrap(network, sync_batch_norm=sync_batch_norm)
                assert isinstance(step.wrapped, DistributedDataParallel)
                shared = any(isinstance(m, nn.SyncBatchNorm) for m in network.modules())
                assert shared == (sync_batch_norm and device.type == "cuda")
            torch.manual_seed(0)
            step.optimizers.set_rate(0.05)
            noise = torch.Generator().manual_seed(0)
            step(x, y, noise, num_images=len(y) * place.world_size)
            moved.append(
                torch.cat(
                    [
                        (p.detach() - old).flatten()
                        for p, old in zip(network.parameters(), before, strict=True)
                    ]
                )
            )
    assert not dist.is_initialized()
    assert float((moved[1] - moved[0]).norm() / moved[0].norm()) < 0.05


@pytest.mark.timeout(280)
def test_study_of_two_workers_shares_a_gpu(device, tmp_path, monkeypatch):
    pytest.importorskip("optuna", reason="optuna is not installed")
    if "study" not in find_commands():
        pytest.skip("nasbench-at is not installed")
    from studies import recipes, run_study
    from tests.studies.conftest import tiny_run, write_stripes

    monkeypatch.chdir(tmp_path)
    known = [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(known))
    study = recipes.block_space(tiny_run(write_stripes(tmp_path), epochs=1))
    result = run_study(study, workers=2, device=device.type)
    assert [trial.state.name for trial in result.trials] == ["COMPLETE"] * 3
    assert {"natural", "pgd"} <= set(result.frame().columns)
