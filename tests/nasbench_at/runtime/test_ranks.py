from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from nasbench_at.cli import main
from nasbench_at.config import resolve
from nasbench_at.networks.graph import build_network
from nasbench_at.records import read_record
from nasbench_at.runtime.ranks import Ranks, distributed
from nasbench_at.runtime.sync_norm import CpuSyncBatchNorm2d
from nasbench_at.training.step import TrainingStep
from tests.nasbench_at.conftest import save_extra, tiny_config, tiny_flags
from tests.nasbench_at.training.processes import results
from tests.nasbench_at.training.ranks import EXTRA, MASKED

ROOT = Path(__file__).resolve().parents[3]
CPU = torch.device("cpu")


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def environment(rank, world_size, port):
    return os.environ | {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world_size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
    }


def start_ranks(words, world_size):
    port = free_port()
    return [
        subprocess.Popen(
            [sys.executable, *words],
            cwd=ROOT,
            env=environment(rank, world_size, port),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(world_size)
    ]


def finish(processes):
    try:
        outputs = [process.communicate(timeout=200)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * len(processes), outputs
    return outputs


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """What each rank saw, by number of ranks; see ranks.py."""
    cache = {}

    def run(world_size):
        if world_size not in cache:
            out = tmp_path_factory.mktemp(f"ranks{world_size}")
            save_extra(out / EXTRA)
            finish(start_ranks(["-m", "tests.nasbench_at.training.ranks", str(out)], world_size))
            cache[world_size] = [
                torch.load(out / f"rank{rank}.pt", weights_only=True) for rank in range(world_size)
            ]
        return cache[world_size]

    return run


@pytest.fixture
def one_gloo_rank(monkeypatch):
    """A process group of this process alone."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


# --- one process


def test_single_process_is_the_main_rank_of_one(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with distributed(CPU) as ranks:
        assert ranks == Ranks(0, 1, 0)
        assert ranks.is_main
        assert not dist.is_initialized()
        net = nn.Linear(2, 2)
        assert ranks.wrap(net, sync_batch_norm=True) is net
        assert ranks.sum(torch.tensor([3])).tolist() == [3]


def test_flag_of_any_rank_is_everybody_s(one_gloo_rank, monkeypatch):
    assert Ranks().agree(True, False) == (True, False)
    assert Ranks(1, 2).agree(False, True) == (False, True)

    def add_another(counts):
        counts += torch.tensor([1, 0, 1])

    monkeypatch.setattr(dist, "all_reduce", add_another)
    assert Ranks(0, 2).agree(False, False, True) == (True, False, True)


def test_one_rank_of_torchrun_needs_no_group(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "1")
    with distributed(CPU) as ranks:
        assert ranks.world_size == 1
        assert not dist.is_initialized()


def test_more_ranks_than_gpus_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_RANK", "2")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    message = "rank 2 of this machine has no GPU: there are 2; start at most so many ranks"
    with pytest.raises(ValueError, match=message), distributed(torch.device("cuda")):
        pass
    assert not dist.is_initialized()


@pytest.mark.parametrize("method", ["at", "trades", "mart", "fast_at"])
@pytest.mark.parametrize("accumulation_steps", [1, 3])
def test_gradients_are_exchanged_once_a_step_and_never_in_the_attack(
    method, accumulation_steps, one_gloo_rank
):
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 4)
    )
    config = resolve(
        tiny_config(method=method, accumulation_steps=accumulation_steps, attack_steps=2, epochs=1)
    )
    step = TrainingStep(net, config, Ranks(0, 2))
    assert isinstance(step.wrapped, DistributedDataParallel)
    events = []

    def hook(_, bucket):
        events.append("exchange")
        future = torch.futures.Future()
        future.set_result(bucket.buffer())
        return future

    step.wrapped.register_comm_hook(None, hook)
    perturb = step.method.perturb

    def watched(*arguments):
        events.append("attack")
        images = perturb(*arguments)
        events.append("attacked")
        return images

    object.__setattr__(step.method, "perturb", watched)
    x, y = torch.rand(12, 1, 8, 8), torch.arange(12) % 4
    for _ in range(3):
        step(x, y, torch.Generator().manual_seed(0), num_images=24)
    attacks = ["attack", "attacked"] * accumulation_steps
    assert events == [*attacks, "exchange"] * 3


@pytest.mark.parametrize("attention", ["fixed", "learned"])
@pytest.mark.parametrize("method", ["at", "trades"])
def test_blocks_that_take_no_part_change_nothing_and_stop_no_rank(attention, method, one_gloo_rank):
    config = resolve(
        tiny_config(
            attention=attention,
            attention_keep=MASKED["attention_keep"],
            method=method,
            attack_steps=1,
            weight_decay=0.1,
            ema_decay=0.5,
        )
    )
    net = build_network(config.architecture((1, 8, 8), 4))
    step = TrainingStep(net, config, Ranks(0, 2))
    step.optimizers.set_rate(0.1)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    masked = {
        name for name, p in net.named_parameters() if not p.requires_grad and "blocks" in name
    }
    x, y = torch.rand(12, 1, 8, 8), torch.arange(12) % 4
    for _ in range(3):
        step(x, y, torch.Generator().manual_seed(0), num_images=24)
    for network in (net, step.evaluated):
        after = dict(network.named_parameters())
        unchanged = {name for name in after if torch.equal(after[name], before[name])}
        assert masked <= unchanged
        assert unchanged - masked <= {"attention.logits"}
    assert masked


def test_shared_statistics_are_an_option(one_gloo_rank):
    for shared in (True, False):
        net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
        wrapped = Ranks(0, 2).wrap(net, sync_batch_norm=shared)
        assert isinstance(net[1], CpuSyncBatchNorm2d) == shared
        assert wrapped.module is net
        assert set(net.state_dict()) == set(nn.Sequential(net[0], nn.BatchNorm2d(2)).state_dict())


# --- many processes


@pytest.mark.slow
@pytest.mark.parametrize("world_size", [2, 3])
@pytest.mark.parametrize("case", ["at", "mart", "masked", "extra"])
def test_ranks_that_share_a_batch_end_with_the_weights_of_one_rank(case, world_size, seen):
    (alone,) = seen(1)
    ranks = seen(world_size)
    for rank in ranks:
        assert rank[case]["num_ranks"] == world_size
        for name, tensor in alone[case]["network"].items():
            for other in (rank[case]["network"][name], rank[case]["own_network"][name]):
                torch.testing.assert_close(other, tensor, atol=1e-4, rtol=0, msg=name)
        row, expected = rank[case]["row"], alone[case]["row"]
        assert row["train_loss"] == pytest.approx(expected["train_loss"], abs=1e-4)
        assert row["train_accuracy"] == pytest.approx(expected["train_accuracy"])


@pytest.mark.slow
@pytest.mark.parametrize("case", ["at", "mart", "masked", "own_statistics"])
@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_exchange_gradients_once_a_step_and_nothing_in_the_attack(case, world_size, seen):
    for rank in seen(world_size):
        assert rank[case]["gradient_reduces"] == [1] * 5
        assert rank[case]["in_attacks"] == 0


@pytest.mark.slow
def test_ranks_without_shared_statistics_still_have_equal_networks(seen):
    first, second = (rank["own_statistics"]["own_network"] for rank in seen(2))
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


@pytest.mark.slow
def test_each_rank_has_attack_noise_of_its_own(seen):
    seeds = [rank["at"]["seeds"] for rank in (*seen(2), *seen(3)[2:])]
    assert len({seed for own in seeds for seed in own}) == 3 * 5


@pytest.mark.slow
@pytest.mark.parametrize("world_size", [2, 3])
def test_validation_counts_are_exact_for_any_number_of_ranks(world_size, seen):
    (alone,) = seen(1)
    natural, robust = alone["at"]["validation"]
    assert natural == round(natural)
    assert 0 < natural < 64
    for rank in seen(world_size):
        assert rank["at"]["validation"] == [natural, robust]


@pytest.mark.slow
@pytest.mark.parametrize("world_size", [2, 3])
def test_evaluation_is_shared_and_every_verdict_is_that_of_one_rank(world_size, seen):
    expected = seen(1)[0]["evaluation"]
    counts = {name: int(row.sum()) for name, row in expected.items()}
    assert counts["natural"] == 96
    assert 96 > counts["pgd"] > 0
    assert 96 > counts["aa/square"] > counts["aa"] > 0
    for rank in seen(world_size):
        assert list(rank["evaluation"]) == list(expected)
        for name, row in expected.items():
            assert torch.equal(rank["evaluation"][name], row), name


@pytest.mark.slow
def test_two_ranks_train_and_evaluate_through_the_command_line(tmp_path):
    words = [*tiny_flags(epochs=1, data="digits", batch_size=400), "--sync-batch-norm"]
    words = ["-m", "nasbench_at", "train", *words, "--device", "cpu", "--runs-dir", str(tmp_path)]
    first, second = finish(start_ranks(words, 2))
    (folder,) = tmp_path.iterdir()
    assert (folder / "record.json").exists()
    assert first.splitlines()[-1] == str(folder)
    assert str(folder) not in second

    words = ["evaluate", str(folder), "--attacks", "fgsm", "pgd", "--device", "cpu"]
    first, second = finish(start_ranks(["-m", "nasbench_at", *words], 2))
    assert first.splitlines()[-1] == str(folder)
    assert second == ""
    shared = read_record(folder / "record.json").evaluations[-1]
    assert main(words) == 0
    (alone,) = read_record(folder / "record.json").evaluations
    assert (shared.provenance["num_ranks"], alone.provenance["num_ranks"]) == (2, 1)
    counts = [[(row.key, row.num_correct) for row in each.results] for each in (shared, alone)]
    assert counts[0] == counts[1]


@pytest.mark.slow
def test_signal_to_one_rank_stops_all_and_the_run_goes_on_with_the_same_bits(tmp_path):
    words = [*tiny_flags(epochs=3, data="digits", batch_size=100), "--sync-batch-norm"]
    words = ["-m", "nasbench_at", "train", *words, "--device", "cpu", "--runs-dir"]
    interrupted, undisturbed = tmp_path / "interrupted", tmp_path / "undisturbed"
    ranks = start_ranks([*words, str(interrupted)], 2)
    while not list(interrupted.glob("*/metrics.jsonl")) or not any(
        path.stat().st_size for path in interrupted.glob("*/metrics.jsonl")
    ):
        assert all(rank.poll() is None for rank in ranks)
        time.sleep(0.05)
    ranks[1].terminate()
    outputs = [rank.communicate(timeout=200)[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [75, 75], outputs
    # Within an epoch, or after one: the metrics appear just before its end.
    assert "another rank: stopped " in outputs[0]
    assert "SIGTERM: stopped " in outputs[1]
    for runs in (interrupted, undisturbed):
        finish(start_ranks([*words, str(runs)], 2))
    (first,), (second,) = interrupted.iterdir(), undisturbed.iterdir()
    assert results(first) == results(second)


def test_more_ranks_than_gpus_are_bad_input(monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_RANK", "2")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", torch.backends.cudnn.benchmark)
    assert main(["train", *tiny_flags(), "--device", "cuda"]) == 2
    assert "rank 2 of this machine has no GPU" in capsys.readouterr().err
