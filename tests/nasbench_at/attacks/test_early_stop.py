"""FAT's attack against a slow reference in double precision, one image at a time."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from nasbench_at.attacks import EarlyStopPGD, KLObjective, LinfPGD

from .conftest import Batch, build_net, images, predict

EPS, STEP, STEPS = 0.2, 0.05, 6


@pytest.fixture
def net():
    return build_net().double()


@pytest.fixture
def batch(net):
    x = images(24, dtype=torch.float64)
    y = predict(net, x)
    y[::6] = (y[::6] + 1) % 10  # some are fooled from the start
    return Batch(x, y)


def generator(seed=3):
    return torch.Generator().manual_seed(seed)


def attack(**changes):
    return replace(EarlyStopPGD(EPS, step_size=STEP, steps=STEPS), **changes)


def reference(net, batch, *, tau, start, noise, natural_logits=None):
    """The authors' algorithm for one image after the other; returns images and steps taken."""
    x, y = batch
    draws = generator()
    match start:
        case "uniform":
            offset = EPS * (2 * torch.rand(x.shape, generator=draws, dtype=x.dtype) - 1)
        case "normal":
            offset = 0.001 * torch.randn(x.shape, generator=draws, dtype=x.dtype)
        case "none":
            offset = torch.zeros_like(x)
    noises = [
        noise * torch.randn(x.shape, generator=draws, dtype=x.dtype) if noise else 0 * x
        for _ in range(STEPS)
    ]
    results, counts = [], []
    for i in range(len(x)):
        clean, label = x[i : i + 1], y[i : i + 1]
        point, counter, count = (clean + offset[i]).clamp(0, 1), tau, 0
        for step in range(STEPS):
            point.requires_grad_()
            logits = net(point)
            if logits.argmax() != label:
                if counter == 0:
                    break
                counter -= 1
            if natural_logits is None:
                loss = F.cross_entropy(logits, label)
            else:
                natural = natural_logits[i].softmax(dim=0)
                loss = (natural * (natural.log() - logits[0].log_softmax(dim=0))).sum()
            (gradient,) = torch.autograd.grad(loss, point)
            moved = point.detach() + STEP * gradient.sign() + noises[step][i]
            point = torch.min(torch.max(moved, clean - EPS), clean + EPS).clamp(0, 1)
            count += 1
        results.append(point.detach())
        counts.append(count)
    return torch.cat(results), counts


@pytest.mark.parametrize("start", ["uniform", "normal", "none"])
@pytest.mark.parametrize("noise", [0.0, 0.02])
@pytest.mark.parametrize("tau", [0, 1, 3])
def test_images_are_those_of_the_slow_reference(start, noise, tau, net, batch):
    expected, counts = reference(net, batch, tau=tau, start=start, noise=noise)
    assert len(set(counts)) > 2  # images leave at different steps
    found = attack(tau=tau, start=start, noise=noise)(net, *batch, generator=generator())
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("tau", [0, 2])
def test_divergence_from_the_natural_logits_is_climbed_image_by_image(tau, net, batch):
    with torch.no_grad():
        logits = net(batch.x)
    settings = {"tau": tau, "start": "normal", "noise": 0.0}
    expected, _ = reference(net, batch, natural_logits=logits, **settings)
    found = attack(**settings)(net, *batch, generator=generator(), objective=KLObjective(logits))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("start", ["uniform", "none"])
def test_large_tau_is_plain_pgd(start, net, batch):
    plain = LinfPGD(EPS, step_size=STEP, steps=STEPS, start=start, noise=0.01)
    expected = plain(net, *batch, generator=generator())
    found = attack(tau=STEPS, start=start, noise=0.01)(net, *batch, generator=generator())
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_fewer_further_steps_are_never_further_from_the_class_boundary(net, batch):
    fooled = [
        (predict(net, attack(tau=tau)(net, *batch, generator=generator())) != batch.y).sum()
        for tau in (0, STEPS)
    ]
    assert fooled[0] >= fooled[1]  # nobody who was fooled goes on


def test_image_that_is_fooled_already_stays_where_it_starts(net, batch):
    wrong = (batch.y + 1) % 10
    wrong = torch.where(predict(net, batch.x) == wrong, (wrong + 1) % 10, wrong)
    found = attack(start="none")(net, batch.x, wrong, generator=generator())
    assert torch.equal(found, batch.x)


@pytest.mark.parametrize("start", ["uniform", "normal"])
def test_images_stay_in_the_budget_and_valid(start, net, batch):
    x = batch.x.round()  # on the edge of what is valid
    found = attack(start=start, noise=0.1, tau=2)(net, x, batch.y)
    assert (found - x).abs().max() <= EPS + 1e-12
    assert 0 <= found.min() <= found.max() <= 1
    assert not found.requires_grad


def test_normal_start_is_clipped_to_valid_pixels(net, batch):
    x = torch.zeros_like(batch.x)
    y = (predict(net, x) + 1) % 10
    found = attack(start="normal")(net, x, y)
    assert found.min() == 0
    assert 0 < found.max() < 0.01


def test_fate_of_an_image_does_not_depend_on_the_others(net, batch):
    whole = attack(start="none", tau=1)(net, *batch)
    part = attack(start="none", tau=1)(net, batch.x[7:9], batch.y[7:9])
    torch.testing.assert_close(part, whole[7:9], rtol=0, atol=1e-12)


def test_model_inputs_and_global_random_state_are_untouched(net, batch):
    net.train()
    state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    x, random_state = batch.x.clone(), torch.get_rng_state()
    attack(noise=0.01)(net, *batch)
    assert torch.equal(batch.x, x)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(torch.equal(tensor, state[name]) for name, tensor in net.state_dict().items())
    assert all(module.training for module in net.modules())
    assert all(p.requires_grad and p.grad is None for p in net.parameters())


def test_repeated_call_gives_the_same_images(net, batch):
    first, second = (attack(noise=0.01)(net, *batch) for _ in range(2))
    assert torch.equal(first, second)


def test_settings_say_all_that_decides_the_result():
    settings = attack(tau=2, noise=0.5, start="normal").settings()
    assert settings == {
        "name": "early_stop_pgd",
        "norm": "Linf",
        "eps": EPS,
        "step_size": STEP,
        "steps": STEPS,
        "tau": 2,
        "start": "normal",
        "noise": 0.5,
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"eps": 2.0}, r"eps must lie in \[0, 1\], got 2.0"),
        ({"steps": 0}, "steps must be at least 1 and tau at least 0, got 0 and 0"),
        ({"tau": -1}, "steps must be at least 1 and tau at least 0, got 6 and -1"),
    ],
)
def test_value_out_of_range_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        attack(**changes)
