"""Attacks on a GPU: their budgets, their verdicts against the CPU's, no waits, no memory kept."""

from __future__ import annotations

import copy

import pytest
import torch

from nasbench_at.attacks import FGSM, L2PGD, AutoAttack, LinfPGD, MarginPGD, folding
from nasbench_at.attacks.guard import attack_mode
from nasbench_at.networks.ds_net import DSNet
from nasbench_at.runtime.cuda_graphs import Replayed
from tests.gpu.networks import make_batch, make_network

pytestmark = pytest.mark.gpu

EPS = {"Linf": 0.05, "L2": 0.5}
ATTACKS = [
    FGSM(EPS["Linf"]),
    FGSM(EPS["Linf"], random_start=True),
    LinfPGD(EPS["Linf"], steps=5, noise=0.001),
    LinfPGD(EPS["Linf"], steps=5, restarts=2),
    LinfPGD(EPS["Linf"], steps=5, counts="any"),
    LinfPGD(EPS["Linf"], steps=5, start="normal", mode="train"),
    L2PGD(EPS["L2"], steps=5),
    MarginPGD(EPS["Linf"], steps=5),
]
IDS = [f"{a.name}-{a.start}-{a.mode}-{a.counts}-{a.restarts}" for a in ATTACKS]
EVERY_ATTACK = pytest.mark.parametrize("attack", ATTACKS, ids=IDS)


def radii(x_adv, x, norm):
    order = torch.inf if norm == "Linf" else 2
    return torch.linalg.vector_norm((x_adv - x).flatten(1), ord=order, dim=1)


def victim(device, size=32, dtype=torch.float32):
    """A network in eval mode, images, and the classes that it gives to most of them."""
    network = make_network().eval()
    x, _ = make_batch(size)
    with torch.no_grad():
        network.head.bias -= network(x).mean(dim=0)
        y = network(x).argmax(dim=1)
    y[::8] = (y[::8] + 1) % 4
    return network.to(device, dtype), x.to(device, dtype), y.to(device)


def predict(network, x):
    with torch.no_grad():
        return network(x).argmax(dim=1)


@EVERY_ATTACK
def test_images_stay_in_the_ball_and_in_the_unit_cube(device, attack):
    network, x, y = victim(device)
    x_adv = attack(network, x, y, generator=torch.Generator(device).manual_seed(0))
    assert x_adv.device == x.device
    assert radii(x_adv, x, attack.norm.name).max() <= EPS[attack.norm.name] + 1e-6
    assert x_adv.min() >= 0
    assert x_adv.max() <= 1
    assert x_adv.is_contiguous(memory_format=torch.channels_last)
    assert not torch.equal(x_adv, x)


@EVERY_ATTACK
def test_images_are_the_cpu_s(device, exact, same_draws, attack):
    found = []
    for place in (torch.device("cpu"), device):
        network, x, y = victim(place, dtype=torch.float64)
        x_adv = attack(network, x, y, generator=torch.Generator().manual_seed(0))
        found.append((x_adv.cpu(), (predict(network, x_adv) == y).cpu()))
    (expected, expected_correct), (x_adv, correct) = found
    assert torch.equal(correct, expected_correct)
    torch.testing.assert_close(x_adv, expected, rtol=0, atol=1e-6)


@EVERY_ATTACK
def test_verdicts_in_float32_are_nearly_the_cpu_s(device, exact, same_draws, attack):
    verdicts = []
    for place in (torch.device("cpu"), device):
        network, x, y = victim(place, size=64)
        x_adv = attack(network, x, y, generator=torch.Generator().manual_seed(0))
        verdicts.append((predict(network, x_adv) == y).cpu())
    assert (verdicts[0] == verdicts[1]).float().mean() >= 0.95


def test_same_seed_gives_the_same_images(device, exact):
    network, x, y = victim(device)
    attack = LinfPGD(EPS["Linf"], steps=3)
    first, again, other = (
        attack(network, x, y, generator=torch.Generator(device).manual_seed(seed))
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_global_random_state_is_left_as_it_was(device):
    network, x, y = victim(device)
    torch.manual_seed(5)
    before = torch.rand(4, device=device)
    torch.manual_seed(5)
    LinfPGD(EPS["Linf"], steps=2)(network, x, y)
    assert torch.equal(torch.rand(4, device=device), before)


@pytest.mark.parametrize(
    "attack",
    [a for a in ATTACKS if a.counts == "last" and a.restarts == 1],
    ids=lambda a: f"{a.name}-{a.start}-{a.mode}",
)
def test_host_does_not_wait_within_an_attack(device, no_waits, attack):
    network, x, y = victim(device)
    attack(network, x, y)
    with no_waits():
        attack(network, x, y, generator=torch.Generator(device).manual_seed(0))


@pytest.mark.usefixtures("on_cuda")
@EVERY_ATTACK
def test_no_memory_is_kept(device, allocated, attack):
    network, x, y = victim(device)
    attack(network, x, y)
    before = allocated()
    for _ in range(3):
        attack(network, x, y)
    assert allocated() <= before
    assert all(p.grad is None for p in network.parameters())


def test_norms_are_folded_with_the_settings_that_torch_comes_with(device):
    network, x, _ = victim(device)
    with attack_mode(network):
        with folding.folded_norms(network, x):
            norms = [m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)]
        assert not norms
        assert folding._PLANS[network].plan.pairs
        assert folding.folding_agrees(network, x)


# --- CUDA graphs


def count_forwards(network, monkeypatch):
    """Returns a list that grows with each forward pass which the host starts."""
    seen = []
    forward = DSNet.forward

    def counted(self, x):
        seen.append(len(x))
        return forward(self, x)

    monkeypatch.setattr(DSNet, "forward", counted)
    return seen


@pytest.mark.usefixtures("on_cuda")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_replayed_steps_give_the_bits_of_computed_ones(device, exact, monkeypatch, precision):
    network, x, y = victim(device)
    attack = LinfPGD(EPS["Linf"], steps=8)
    found = []
    for is_replayable in (False, True):
        monkeypatch.setattr(DSNet, "is_replayable", is_replayable)
        with torch.autocast("cuda", torch.bfloat16, enabled=precision == "bf16"):
            attack(network, x, y)  # learns how to fold
            seen = count_forwards(network, monkeypatch)
            found.append([attack(network, x, y) for _ in range(3)])
        assert len(seen) == 3 * (2 if is_replayable else 8)
    for computed, replayed in zip(*found, strict=True):
        assert torch.equal(computed, replayed)


@pytest.mark.usefixtures("on_cuda")
def test_replayed_steps_see_the_weights_of_now(device, exact, monkeypatch):
    network, x, y = victim(device)
    attack = LinfPGD(EPS["Linf"], steps=6)
    attack(network, x, y)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(0.9)
    replayed = attack(network, x, y)
    monkeypatch.setattr(DSNet, "is_replayable", False)
    assert torch.equal(replayed, attack(network, x, y))


@pytest.mark.usefixtures("on_cuda")
def test_hooks_are_called_at_every_step(device):
    network, x, y = victim(device)
    seen = []
    handle = network.head.register_forward_hook(lambda *_: seen.append(1))
    LinfPGD(EPS["Linf"], steps=6)(network, x, y)
    handle.remove()
    assert len(seen) >= 6


@pytest.mark.usefixtures("on_cuda")
def test_what_makes_the_host_wait_is_computed_as_written(device):
    def scaled(x):
        return (x * float(x.sum()),)

    def doubled(x):
        return (2 * x,)

    waiting, plain = Replayed(scaled), Replayed(doubled)
    for number in range(1, 5):
        x = torch.full((4,), float(number), device=device)
        assert torch.equal(waiting(x)[0], x * 4 * number)
        assert torch.equal(plain(x)[0], 2 * x)


def test_autoattack_is_the_cpu_s(device, exact):
    pytest.importorskip("pyautoattack", reason="pyautoattack is not installed")
    attack = AutoAttack(0.03, attacks=("apgd-ce", "square"), square_queries=50)
    shares = []
    for place in (torch.device("cpu"), device):
        network, x, y = victim(place, size=16)
        before = copy.deepcopy(network.state_dict())
        result = attack.run(network, x, y)
        assert result.x_adv.device.type == place.type
        assert radii(result.x_adv, x, "Linf").max() <= 0.03 + 1e-6
        torch.testing.assert_close(network.state_dict(), before, rtol=0, atol=0)
        shares.append({n: float(r.float().mean()) for n, r in result.robust_after.items()})
    assert shares[1] == pytest.approx(shares[0], abs=0.2)
