"""Replayed functions where there is no GPU: as written, each time. tests/gpu has the others."""

import torch

from nasbench_at.attacks import LinfPGD
from nasbench_at.config.architecture import Architecture
from nasbench_at.networks.ds_net import DSNet
from nasbench_at.networks.graph import build_network
from nasbench_at.runtime.cuda_graphs import MIN_CALLS, Replayed


def test_cpu_computes_at_every_call():
    calls = []

    def double(x):
        calls.append(x)
        return (2 * x,)

    replayed = Replayed(double)
    for number in range(2 * MIN_CALLS):
        x = torch.full((3,), float(number))
        assert torch.equal(replayed(x)[0], 2 * x)
    assert len(calls) == 2 * MIN_CALLS


def test_attack_on_the_cpu_runs_the_network_at_every_step(monkeypatch):
    network = build_network(
        Architecture(blocks=("residual",), num_modules=3, init_channels=4, input_shape=(3, 8, 8))
    )
    attack = LinfPGD(0.1, steps=2 * MIN_CALLS)
    x, y = torch.rand(2, 3, 8, 8), torch.tensor([0, 1])
    attack(network, x, y)  # learns how to fold
    forward, seen = DSNet.forward, []
    monkeypatch.setattr(DSNet, "forward", lambda self, x: seen.append(1) or forward(self, x))
    attack(network, x, y)
    assert len(seen) == 2 * MIN_CALLS
