from __future__ import annotations

import types
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import nasbench_at.training.methods as methods
from nasbench_at import RunConfig
from nasbench_at.config import resolve
from nasbench_at.training.methods import (
    create_method,
    list_methods,
    register_method,
    training_attack,
)
from nasbench_at.training.trainer import validation_attack

CONFIG = resolve(RunConfig(eps=0.2, attack_steps=3))


@pytest.fixture
def net():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(256, 5)
    )


@pytest.fixture
def batch():
    return torch.rand(6, 1, 8, 8), torch.arange(6) % 5


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_adversarial_training_is_there():
    assert "at" in list_methods()


def test_unknown_method_gets_a_suggestion():
    with pytest.raises(ValueError, match="unknown method 'att'; did you mean 'at' or 'fat'"):
        create_method("att", CONFIG)


def test_taken_name_is_refused():
    with pytest.raises(ValueError, match="method 'at' is registered already; choose another name"):
        register_method("at")


def test_registered_method_is_built_from_the_configuration(monkeypatch):
    monkeypatch.setattr(methods, "_METHODS", dict(methods._METHODS))

    def factory(config):
        return ("mine", config)

    assert register_method("mine")(factory) is factory
    assert "mine" in list_methods()
    assert create_method("mine", CONFIG) == ("mine", CONFIG)


def test_training_attack_has_the_configured_settings():
    values = replace(CONFIG, attack_noise=0.25, attack_start="normal", step_size=0.03)
    settings = training_attack(values).settings()
    expected = {"eps": 0.2, "steps": 3, "noise": 0.25, "start": "normal", "step_size": 0.03}
    assert expected.items() <= settings.items()
    assert settings["objective"] == "cross_entropy"


def test_perturbed_images_are_valid_near_and_harder(net, batch):
    x, y = batch
    x_adv = create_method("at", CONFIG).perturb(net, x, y, generator())
    assert 0.1 < (x_adv - x).abs().max() <= 0.2 + 1e-6
    assert 0 <= x_adv.min() <= x_adv.max() <= 1
    net.eval()
    assert F.cross_entropy(net(x_adv), y) > F.cross_entropy(net(x), y)


def test_perturbing_draws_from_its_generator_alone(net, batch):
    method = create_method("at", CONFIG)
    before = torch.get_rng_state()
    one, same, other = (method.perturb(net, *batch, generator(seed)) for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_perturbing_leaves_the_model_as_it_was(net, batch):
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    create_method("at", CONFIG).perturb(net.train(), *batch, generator())
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert net.training
    assert all(p.grad is None and p.requires_grad for p in net.parameters())


def test_loss_is_the_cross_entropy_of_the_perturbed_images(net, batch):
    x, y = batch
    x_adv = torch.rand_like(x)
    loss, logits = create_method("at", CONFIG).loss(net.eval(), x, x_adv, y)
    torch.testing.assert_close(logits, net(x_adv))
    torch.testing.assert_close(loss, F.cross_entropy(net(x_adv), y))
    loss.backward()
    assert all(p.grad is not None for p in net.parameters())


# --- every method, against the recipe and against a slow reference

METHODS = ("st", "at", "trades", "mart", "fat", "fat_trades", "fast_at")


def made(method, recipe="authors", epoch=1, **changes):
    config = resolve(RunConfig(data="cifar10", method=method, recipe=recipe, **changes))
    return create_method(method, config).start_epoch(epoch)


class Calls(nn.Module):
    """Counts forward passes and notes what each was given."""

    def __init__(self, net):
        super().__init__()
        self.net = net
        self.notes = types.SimpleNamespace(inputs=[], modes=[])  # a list would be a setting

    @property
    def inputs(self):
        return self.notes.inputs

    @property
    def modes(self):
        return self.notes.modes

    def forward(self, x):
        self.inputs.append(x.detach().clone())
        self.modes.append(self.net.training)
        return self.net(x)


def calls_of_second_attack(method, net, batch):
    """The first one also searches the network for norms that it can do without, once."""
    calls = Calls(net).eval()
    method.perturb(calls, *batch, generator())
    calls.inputs.clear()
    method.perturb(calls, *batch, generator())
    return calls


def test_methods_of_the_paper_and_of_friendly_and_fast_training_are_there():
    assert set(METHODS) <= set(list_methods())


@pytest.mark.parametrize(
    ("method", "recipe", "start", "noise"),
    [
        ("at", "paper", "uniform", 0.0),
        ("at", "authors", "uniform", 0.001),
        ("trades", "paper", "normal", 0.0),
        ("trades", "authors", "normal", 0.001),
        ("mart", "paper", "normal", 0.0),
        ("mart", "authors", "uniform", 0.0),
        ("fat", "authors", "uniform", 0.001),
        ("fat_trades", "authors", "normal", 0.0),
    ],
)
def test_inner_attack_is_the_recipe_s(method, recipe, start, noise):
    settings = made(method, recipe).attack.settings()
    expected = {"eps": 0.031, "step_size": 0.007, "steps": 10, "start": start, "noise": noise}
    assert expected.items() <= settings.items()
    assert settings["name"] == "pgd"
    assert settings.get("tau") == (0 if method.startswith("fat") else None)


def test_fast_training_takes_one_long_step_in_training_mode():
    settings = made("fast_at").attack.settings()
    assert settings["eps"] == pytest.approx(8 / 255)
    assert settings["step_size"] == pytest.approx(10 / 255)
    expected = {"steps": 1, "start": "uniform", "noise": 0.0, "mode": "train"}
    assert expected.items() <= settings.items()


def test_standard_training_attacks_nothing(net, batch):
    x, y = batch
    method = made("st")
    assert method.perturb(net, x, y, generator()) is x
    loss, logits = method.loss(net.eval(), x, x, y)
    torch.testing.assert_close(loss, F.cross_entropy(net(x), y))
    torch.testing.assert_close(logits, net(x))


@pytest.mark.parametrize(
    ("method", "taus"),
    [
        ("fat", {1: 0, 50: 0, 51: 1, 90: 1, 91: 2, 120: 2}),
        ("fat_trades", {1: 0, 30: 0, 31: 1, 50: 1, 51: 2, 70: 2, 71: 3, 85: 3}),
    ],
)
@pytest.mark.parametrize("recipe", ["paper", "authors"])
def test_friendly_training_grows_tau_by_epoch(method, taus, recipe):
    assert {epoch: made(method, recipe, epoch).attack.tau for epoch in taus} == taus


def test_epoch_of_a_method_does_not_depend_on_earlier_ones():
    method = made("fat")
    assert method.start_epoch(120).start_epoch(1).attack.tau == 0


@pytest.mark.parametrize("method", ["st", "at", "trades", "mart", "fast_at"])
def test_epochs_of_other_methods_are_alike(method):
    first, last = (made(method, epoch=epoch) for epoch in (1, 85))
    if method != "st":
        assert first.attack.settings() == last.attack.settings()


@pytest.mark.parametrize(
    ("method", "num_calls"), [("at", 4), ("mart", 4), ("trades", 5), ("fast_at", 1), ("st", 0)]
)
def test_attack_calls_the_model_once_a_step_and_trades_once_more(method, num_calls, net, batch):
    changes = {} if method == "fast_at" else {"attack_steps": 4}
    calls = calls_of_second_attack(made(method, **changes), net, batch)
    assert len(calls.inputs) == num_calls
    if method == "trades":
        assert torch.equal(calls.inputs[0], batch[0])
        assert not any(torch.equal(x, batch[0]) for x in calls.inputs[1:])


def test_friendly_trades_computes_the_natural_logits_once(net, batch):
    calls = calls_of_second_attack(made("fat_trades", epoch=85, attack_steps=3), net, batch)
    whole = [x for x in calls.inputs if x.shape == batch[0].shape and torch.equal(x, batch[0])]
    assert len(whole) == 1
    assert len(calls.inputs) <= 1 + 3


@pytest.mark.parametrize("method", METHODS)
def test_attack_runs_in_eval_mode_but_for_fast_training(method, net, batch):
    calls = Calls(net).train()
    made(method).perturb(calls, *batch, generator())
    assert set(calls.modes) <= {method == "fast_at"}
    assert net.training


@pytest.mark.parametrize("method", METHODS)
def test_no_attack_moves_the_statistics(method, net, batch):
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    made(method).perturb(net.train(), *batch, generator())
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in net.parameters())


def test_fast_training_normalises_its_attack_by_the_batch(net, batch):
    net[1].running_mean.fill_(50.0)  # in eval mode no unit would be active
    x, y = batch
    x_adv = made("fast_at").perturb(net.train(), x, y, generator())
    inside = (x_adv > 0) & (x_adv < 1)
    assert (x_adv - x)[inside].abs().max() == pytest.approx(8 / 255, abs=1e-6)
    moved = x_adv - made("fast_at").perturb(net.train(), x, y, generator(1))
    assert (moved == 0).float().mean() > 0.1  # both ended on the same face of the ball


@pytest.mark.parametrize("method", ["trades", "fat_trades", "mart"])
def test_model_sees_adversarial_images_first_and_clean_ones_second(method, net, batch):
    x, y = batch
    x_adv = torch.rand_like(x)
    calls = Calls(net).train()
    _, logits = made(method).loss(calls, x, x_adv, y)
    assert len(calls.inputs) == 2
    assert torch.equal(calls.inputs[0], x_adv)
    assert torch.equal(calls.inputs[1], x)
    net.eval()
    twin = made(method).loss(net, x, x_adv, y)
    torch.testing.assert_close(twin.logits, net(x_adv))
    assert logits.shape == twin.logits.shape


@pytest.mark.parametrize("beta", [1.0, 6.0])
def test_losses_weigh_the_robust_term_by_beta(beta, net, batch):
    x, y = batch
    x_adv = torch.rand_like(x)
    net = net.double().eval()
    x, x_adv = x.double(), x_adv.double()
    natural, adversarial = net(x).softmax(1), net(x_adv).softmax(1)
    divergence = (natural * (natural.log() - adversarial.log())).sum(1)
    trades = F.cross_entropy(net(x), y) + beta * divergence.mean()
    true = natural[range(len(y)), y]
    wrong = torch.stack(
        [
            torch.cat((row[:label], row[label + 1 :])).max()
            for row, label in zip(adversarial, y, strict=True)
        ]
    )
    boosted = F.cross_entropy(net(x_adv), y) - (1.0001 - wrong).log().mean()
    mart = boosted + beta * (divergence * (1 - true)).mean()
    for method, expected in (("trades", trades), ("mart", mart), ("fat_trades", trades)):
        loss, _ = made(method, beta=beta).loss(net, x, x_adv, y)
        torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("method", ["trades", "mart", "fat_trades"])
def test_method_without_its_beta_is_refused(method):
    with pytest.raises(ValueError, match="beta must be set for this method, got None"):
        create_method(method, replace(CONFIG, beta=None))


@pytest.mark.parametrize("recipe", ["paper", "authors"])
@pytest.mark.parametrize("method", ["at", "trades", "mart"])
def test_perturbed_images_are_those_of_a_slow_reference(method, recipe, net, batch):
    net = net.double().eval()
    x, y = batch[0].double(), batch[1]
    settings = made(method, recipe).attack.settings()
    draws = generator(7)
    if settings["start"] == "uniform":
        point = x + 0.031 * (2 * torch.rand(x.shape, generator=draws, dtype=x.dtype) - 1)
        point = point.clamp(0, 1)
    else:
        point = x + 0.001 * torch.randn(x.shape, generator=draws, dtype=x.dtype)
    natural = net(x).softmax(1).detach()
    for _ in range(10):
        point.requires_grad_()
        if method == "trades":
            loss = (natural * (natural.log() - net(point).log_softmax(1))).sum()
        else:
            loss = F.cross_entropy(net(point), y)
        loss.backward()
        moved = point.detach() + 0.007 * point.grad.sign()
        if settings["noise"]:
            moved = moved + 0.001 * torch.randn(x.shape, generator=draws, dtype=x.dtype)
        point = torch.min(torch.max(moved, x - 0.031), x + 0.031).clamp(0, 1)
    found = made(method, recipe).perturb(net, x, y, generator(7))
    torch.testing.assert_close(found, point, rtol=0, atol=1e-12)


# --- L2


@pytest.mark.parametrize("method", ["at", "trades", "mart", "fat", "fat_trades"])
def test_every_attack_of_l2_stays_within_its_radius(method, net, batch):
    x, y = batch
    found = made(method, "paper", norm="L2", eps=0.7)
    assert found.attack.settings()["norm"] == "L2"
    assert found.attack.step_size == pytest.approx(0.7 * 15 / 128)
    lengths = (found.perturb(net.eval(), x, y, generator()) - x).flatten(1).norm(dim=1)
    assert (lengths <= 0.7 + 1e-5).all()
    assert lengths.max() > 0.09
    # L-infinity's ball of this radius would let the images go much farther.
    far = made(method, "paper", eps=0.7).perturb(net, x, y, generator())
    assert (far - x).flatten(1).norm(dim=1).max() > 0.7


def test_l2_training_attack_is_normalised_ascent_and_projection(net, batch):
    """Against the loop written plainly, image by image."""
    x, y = batch
    net.eval()
    config = resolve(
        RunConfig(norm="L2", eps=0.3, step_size=0.1, attack_steps=5, attack_start="none")
    )
    found = create_method("at", config).perturb(net, x, y, generator())
    for i in range(len(x)):
        image = x[i : i + 1]
        x_adv = image.clone()
        for _ in range(5):
            x_adv = x_adv.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(F.cross_entropy(net(x_adv), y[i : i + 1]), x_adv)
            delta = x_adv.detach() + 0.1 * gradient / gradient.square().sum().sqrt() - image
            length = float(delta.square().sum().sqrt())
            x_adv = (image + delta * min(1.0, 0.3 / length)).clamp(0, 1)
        torch.testing.assert_close(found[i : i + 1], x_adv, atol=1e-5, rtol=1e-4)


def test_robustness_while_training_is_that_of_the_run_s_norm():
    config = resolve(RunConfig(norm="L2", attack_steps=20))
    settings = validation_attack(config).settings()
    expected = {"norm": "L2", "eps": 0.5, "step_size": config.step_size, "steps": 20}
    assert expected.items() <= settings.items()
    settings = validation_attack(replace(config, attack_steps=1)).settings()
    assert {"norm": "L2", "eps": 0.5, "step_size": 0.125, "steps": 10}.items() <= settings.items()
