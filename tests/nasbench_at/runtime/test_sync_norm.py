from __future__ import annotations

import copy

import pytest
import torch
import torch.distributed as dist
from torch import nn

from nasbench_at.attacks import attack_mode
from nasbench_at.attacks.folding import folded_norms
from nasbench_at.runtime import sync_norm
from nasbench_at.runtime.sync_norm import CpuSyncBatchNorm2d, share_batch_norm


@pytest.fixture
def one_gloo_rank():
    """A process group of this process alone."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def pair():
    """A plain network and its twin with shared statistics, in double precision."""
    plain = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3, eps=1e-3, momentum=0.3)).double()
    with torch.no_grad():
        plain[1].weight.uniform_(0.5, 2)
        plain[1].bias.normal_()
    shared = copy.deepcopy(plain)
    share_batch_norm(shared)
    return plain, shared


def images(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 2 + torch.randn(5, 2, 6, 6, generator=generator, dtype=torch.float64)


def assert_same_state(plain, shared):
    state = shared.state_dict()
    assert list(state) == list(plain.state_dict())
    for name, tensor in plain.state_dict().items():
        torch.testing.assert_close(state[name], tensor, rtol=1e-9, atol=1e-12)


def test_output_gradients_and_statistics_are_those_of_the_plain_norm(one_gloo_rank):
    plain, shared = pair()
    for seed in range(3):
        found, gradients = [], []
        for net in (plain, shared):
            x = images(seed).requires_grad_()
            net.zero_grad()
            output = net(x)
            (output * images(9)[:, :1, :4, :4]).square().sum().backward()
            found.append(output.detach())
            gradients.append([x.grad, *(p.grad for p in net.parameters())])
        torch.testing.assert_close(*found, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(*gradients, rtol=1e-7, atol=1e-7)
    assert_same_state(plain, shared)
    assert shared[1].num_batches_tracked == 3


def test_eval_mode_uses_the_running_statistics_and_talks_to_no_one():
    plain, shared = pair()
    for net in (plain, shared):
        net[1].running_mean.fill_(0.5)
    torch.testing.assert_close(shared.eval()(images()), plain.eval()(images()))
    assert_same_state(plain, shared)


def test_attack_in_training_mode_stays_local(monkeypatch):
    plain, shared = pair()

    def talk(tensor):
        raise AssertionError("an attack talked to other ranks")

    monkeypatch.setattr(sync_norm, "all_reduce", talk)
    outputs = []
    for net in (plain, shared):
        with attack_mode(net, "train"):
            outputs.append(net(images()))
    torch.testing.assert_close(*outputs)
    assert_same_state(plain, shared)


def test_parameters_and_buffers_stay_the_same_objects():
    plain = nn.Sequential(nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3)), nn.BatchNorm2d(3))
    before = {**dict(plain.named_parameters()), **dict(plain.named_buffers())}
    plain.eval()
    share_batch_norm(plain)
    after = {**dict(plain.named_parameters()), **dict(plain.named_buffers())}
    assert before.keys() == after.keys()
    assert all(after[name] is tensor for name, tensor in before.items())
    norms = [module for module in plain.modules() if isinstance(module, nn.BatchNorm2d)]
    assert [type(norm) for norm in norms] == [CpuSyncBatchNorm2d] * 2
    assert not any(norm.training for norm in norms)


def test_attack_in_training_mode_asks_no_other_gpu(monkeypatch):
    plain = nn.BatchNorm2d(3)
    shared = sync_norm.GpuSyncBatchNorm2d(3)
    asked = []
    monkeypatch.setattr(nn.SyncBatchNorm, "forward", lambda self, x: asked.append(x) or x)
    x = torch.rand(4, 3, 5, 5)
    with attack_mode(shared, "train"), attack_mode(plain, "train"):
        assert torch.equal(shared(x), plain(x))
    assert not asked
    shared.train()(x)
    assert len(asked) == 1


def test_norm_that_gpus_share_is_folded():
    net = nn.Sequential(nn.Conv2d(1, 3, 3), sync_norm.GpuSyncBatchNorm2d(3)).eval()
    with folded_norms(net, torch.rand(2, 1, 8, 8)):
        assert isinstance(net[1], nn.Identity)
