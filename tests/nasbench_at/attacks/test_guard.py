from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from nasbench_at.attacks import (
    FGSM,
    L2PGD,
    Attack,
    AutoAttack,
    LinfPGD,
    MarginPGD,
    attack_mode,
    run_checks,
)

from .conftest import Batch

ATTACKS = {
    "fgsm": FGSM(0.1, random_start=True),
    "pgd": LinfPGD(0.1, steps=3, noise=0.001, restarts=2),
    "pgd train": LinfPGD(0.1, steps=3, mode="train"),
    "pgd keep": LinfPGD(0.1, steps=3, mode="keep"),
    "pgd any": LinfPGD(0.1, steps=3, noise=0.01, counts="any"),
    "fat": LinfPGD(0.1, steps=3, noise=0.01, tau=1),
    "l2": L2PGD(0.5, steps=3),
    "cw": MarginPGD(0.1, steps=3),
    "aa": AutoAttack(0.5, square_queries=2),
}


@contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """Assert that everything an attack could disturb is afterwards as it was before."""
    state = copy.deepcopy(model.state_dict())
    training = [module.training for module in model.modules()]
    requires_grad = [parameter.requires_grad for parameter in model.parameters()]
    grads = [parameter.grad for parameter in model.parameters()]
    grad_values = copy.deepcopy(grads)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    tracking = [norm.track_running_stats for norm in norms]
    random_state = torch.get_rng_state()
    yield
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name]), name
    assert [module.training for module in model.modules()] == training
    assert [parameter.requires_grad for parameter in model.parameters()] == requires_grad
    assert [norm.track_running_stats for norm in norms] == tracking
    for parameter, grad, value in zip(model.parameters(), grads, grad_values, strict=True):
        assert parameter.grad is grad
        assert grad is None or torch.equal(grad, value)
    assert torch.equal(torch.get_rng_state(), random_state)


def disarrange(net: nn.Sequential) -> None:
    """Mixed training flags, a frozen weight, some gradients: a state worth restoring."""
    net.train()
    net[2].eval()
    net[0].weight.requires_grad_(False)
    net[5].weight.grad = torch.ones_like(net[5].weight)


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_attack_leaves_model_and_random_state_as_found(
    attack: Attack, net: nn.Sequential, batch: Batch
) -> None:
    disarrange(net)
    with unchanged(net):
        x_adv = attack(net, *batch)
    assert not x_adv.requires_grad


def test_trust_checks_leave_model_and_random_state_as_found(
    net: nn.Sequential, batch: Batch
) -> None:
    disarrange(net)
    with unchanged(net):
        run_checks(net, *batch, attack=LinfPGD(0.1, steps=2))


def attack_that_fails(net: nn.Sequential) -> None:
    net(torch.rand(4, 1, 8, 8))
    raise RuntimeError("half way")


@pytest.mark.parametrize("mode", ["eval", "train", "keep"])
def test_model_is_restored_after_an_exception(mode: str, net: nn.Sequential) -> None:
    disarrange(net)
    with unchanged(net), pytest.raises(RuntimeError, match="half way"), attack_mode(net, mode):
        attack_that_fails(net)


def test_modes_set_the_flags(net: nn.Sequential) -> None:
    disarrange(net)
    before = [module.training for module in net.modules()]
    with attack_mode(net):
        assert not any(module.training for module in net.modules())
    with attack_mode(net, "train"):
        assert all(module.training for module in net.modules())
    with attack_mode(net, "keep"):
        assert [module.training for module in net.modules()] == before


def test_parameters_need_no_gradient_inside(net: nn.Sequential) -> None:
    with attack_mode(net):
        assert not any(parameter.requires_grad for parameter in net.parameters())


def test_train_mode_normalises_with_the_statistics_of_the_batch(net: nn.Sequential) -> None:
    x = torch.rand(8, 1, 8, 8) * 0.1
    features, norm = net[0](x), net[1]
    own = F.batch_norm(features, None, None, norm.weight, norm.bias, training=True)
    with attack_mode(net, "train"):
        torch.testing.assert_close(norm(features), own)
    with attack_mode(net, "eval"):
        assert not torch.allclose(norm(features), own, atol=0.1)


def test_untracked_batchnorm_stays_untracked() -> None:
    norm = nn.BatchNorm2d(3, track_running_stats=False)
    with unchanged(norm), attack_mode(norm, "train"):
        norm(torch.rand(4, 3, 2, 2))
    assert norm.track_running_stats is False


def test_graph_built_before_an_attack_still_reaches_the_weights(
    net: nn.Sequential, batch: Batch
) -> None:
    twin = copy.deepcopy(net)
    loss = F.cross_entropy(net(batch.x), batch.y)
    LinfPGD(0.1, steps=2)(net, *batch)
    loss.backward()
    F.cross_entropy(twin(batch.x), batch.y).backward()
    for ours, theirs in zip(net.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


def test_unknown_mode_is_named(net: nn.Sequential) -> None:
    with (
        pytest.raises(ValueError, match="mode must be one of eval, train, keep, got 'test'"),
        attack_mode(net, "test"),  # type: ignore[arg-type]
    ):
        pass


@pytest.mark.parametrize(
    "layers",
    [
        [nn.Conv2d(1, 4, 3), nn.InstanceNorm2d(4, track_running_stats=True)],
        [spectral_norm(nn.Conv2d(1, 4, 3))],
    ],
    ids=["instance norm", "spectral norm"],
)
def test_buffers_of_other_layers_in_training_mode_are_as_before(layers, batch: Batch) -> None:
    net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(144, 10)).train()
    with unchanged(net):
        LinfPGD(0.1, steps=2, mode="train")(net, *batch)
