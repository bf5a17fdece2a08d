"""What is set for a GPU, seen without one."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from nasbench_at.attacks import AutoAttack, LinfPGD, attack_mode, folding
from nasbench_at.runtime.devices import select_device, without_autotuning, without_tf32
from nasbench_at.runtime.provenance import collect_provenance, package_version


def flags() -> tuple[bool, bool, bool]:
    cudnn = torch.backends.cudnn
    return cudnn.benchmark, cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32


@pytest.fixture(autouse=True)
def _as_torch_comes():
    cudnn, cublas = torch.backends.cudnn, torch.backends.cuda.matmul
    before = flags()
    cudnn.benchmark, cudnn.allow_tf32, cublas.allow_tf32 = True, True, True
    yield
    cudnn.benchmark, cudnn.allow_tf32, cublas.allow_tf32 = before


def test_float32_is_exact_on_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    select_device("cpu")
    assert flags() == (True, True, True)
    select_device("cuda")
    assert flags() == (True, False, False)


@pytest.mark.parametrize(
    ("context", "inside"),
    [(without_tf32, (True, False, False)), (without_autotuning, (False, True, True))],
    ids=["tf32", "autotuning"],
)
def test_contexts_put_back_what_was_set(context, inside):
    def fail() -> None:
        with context():
            assert flags() == inside
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert flags() == (True, True, True)


class Watched(nn.Sequential):
    """Notes the flags that it is called under."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 4))
        self.seen: set[tuple[bool, bool, bool]] = set()

    def forward(self, x):
        self.seen.add(flags())
        return super().forward(x)


@pytest.mark.parametrize(
    ("attack", "tunes"),
    [
        (LinfPGD(0.1, steps=2), True),
        (LinfPGD(0.1, steps=2, counts="any"), False),
        (LinfPGD(0.1, steps=2, restarts=2), False),
        (LinfPGD(0.1, step_size=0.05, steps=2, tau=0), False),
        (AutoAttack(0.1, attacks=("square",), square_queries=2), False),
    ],
    ids=["pgd", "any", "restarts", "early stop", "autoattack"],
)
def test_cudnn_is_not_tuned_for_batches_that_shrink(attack, tunes):
    net, x, y = Watched().eval(), torch.rand(6, 1, 8, 8), torch.arange(6) % 4
    attack(net, x, y)  # norms are folded on trial
    net.seen.clear()
    attack(net, x, y)
    assert net.seen == {(tunes, True, True)}


def test_folding_is_judged_without_tf32():
    net, x = Watched().eval(), torch.rand(6, 1, 8, 8)
    with attack_mode(net):
        with folding.folded_norms(net, x):
            assert net.seen == {(True, False, False)}
        net.seen.clear()
        assert folding.folding_agrees(net, x)
    assert net.seen == {(True, False, False)}


def test_checkout_that_is_not_installed_has_no_version(monkeypatch):
    assert package_version()
    monkeypatch.setattr("nasbench_at.runtime.provenance._PACKAGE", "no-such-package")
    assert collect_provenance(torch.device("cpu"))["nasbench_at"] is None


@pytest.mark.parametrize("users", [None, "7"])
def test_kernels_of_many_batch_sizes_are_remembered_unless_the_user_says_how_many(users):
    environment = {k: v for k, v in os.environ.items() if k != "ONEDNN_PRIMITIVE_CACHE_CAPACITY"}
    if users is not None:
        environment["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] = users
    code = "import nasbench_at.attacks, os; print(os.environ['ONEDNN_PRIMITIVE_CACHE_CAPACITY'])"
    printed = subprocess.check_output([sys.executable, "-c", code], env=environment, text=True)
    assert printed.strip() == (users or "16384")
