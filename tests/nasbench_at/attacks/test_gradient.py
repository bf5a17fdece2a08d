"""The loop: its randomness, restarts, what counts, and early stop."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nasbench_at.attacks import (
    L2PGD,
    GradientAttack,
    KLObjective,
    LinfPGD,
    MarginPGD,
    cross_entropy_objective,
    input_gradient,
    margin_objective,
)

from .conftest import Batch, build_net, images, predict


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# The call


def test_objective_of_a_call_replaces_the_attack_s_own(net: nn.Module, batch: Batch) -> None:
    natural = KLObjective(net(batch.x))
    attack = LinfPGD(0.1, steps=3, start="normal")
    own = LinfPGD(0.1, steps=3, start="normal", objective=natural)
    found = attack(net, *batch, objective=natural)
    assert torch.equal(found, own(net, *batch))
    assert not torch.equal(found, attack(net, *batch))


def test_train_mode_sees_other_gradients_than_eval_mode(net: nn.Module, batch: Batch) -> None:
    evaluated, trained = (
        LinfPGD(0.1, steps=2, mode=mode)(net, *batch) for mode in ("eval", "train")
    )
    assert not torch.equal(evaluated, trained)


def test_gradient_of_a_sample_is_its_own_whatever_the_batch() -> None:
    net, x = build_net().double(), images(4, dtype=torch.float64)
    y = predict(net, x)
    together = input_gradient(net, x, y, cross_entropy_objective)
    alone = input_gradient(net, x[2:3], y[2:3], cross_entropy_objective)
    torch.testing.assert_close(together[2:3], alone)


def test_attack_works_where_the_caller_switched_gradients_off(net: nn.Module, batch: Batch) -> None:
    attack = LinfPGD(0.1, steps=2)
    with torch.no_grad():
        inside = attack(net, *batch)
    assert torch.equal(inside, attack(net, *batch))


# Randomness


def test_same_seed_gives_the_same_bits(net: nn.Module, batch: Batch) -> None:
    attack = LinfPGD(0.1, noise=0.01, restarts=2)
    first, second, other = (attack(net, *batch, generator=generator(s)) for s in (7, 7, 8))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_without_a_generator_the_seed_is_zero(net: nn.Module, batch: Batch) -> None:
    attack = LinfPGD(0.1, noise=0.01)
    torch.manual_seed(5)
    found = attack(net, *batch)
    assert torch.equal(found, attack(net, *batch, generator=generator(0)))


# Restarts


def fooled(net: nn.Module, x_adv: Tensor, y: Tensor) -> Tensor:
    return predict(net, x_adv) != y


@pytest.mark.parametrize("noise", [0.0, 0.02])
@pytest.mark.parametrize("use_kl", [False, True])
def test_restarts_equal_full_runs_of_which_each_sample_takes_its_best(
    noise: float, use_kl: bool, net: nn.Module
) -> None:
    x = images(64)
    y = predict(net, x)
    objective = KLObjective(net(x)) if use_kl else cross_entropy_objective
    once = LinfPGD(0.05, steps=1, noise=noise)
    draws = generator(1)
    runs = [once(net, x, y, generator=draws, objective=objective) for _ in range(3)]

    expected = runs[0]
    for run in runs[1:]:
        with torch.no_grad():
            rises = objective(net(run), y) > objective(net(expected), y)
        takes = ~fooled(net, expected, y) & (fooled(net, run, y) | rises)
        expected = torch.where(takes.view(-1, 1, 1, 1), run, expected)
    assert 0 < fooled(net, runs[0], y).sum() < fooled(net, expected, y).sum() < 64

    found = replace(once, restarts=3)(net, x, y, generator=generator(1), objective=objective)
    torch.testing.assert_close(found, expected)


def test_more_restarts_never_unfool(net: nn.Module) -> None:
    x = images(64)
    y = predict(net, x)
    attacks = (LinfPGD(0.05, steps=1, restarts=restarts) for restarts in (1, 2, 4, 8))
    verdicts = [fooled(net, attack(net, x, y), y) for attack in attacks]
    for fewer, more in pairwise(verdicts):
        assert not (fewer & ~more).any()
    assert verdicts[0].sum() < verdicts[-1].sum()


def test_fooled_sample_keeps_its_first_perturbation(net: nn.Module) -> None:
    x = images(64)
    y = predict(net, x)
    first = LinfPGD(0.05, steps=1)(net, x, y)
    kept = fooled(net, first, y)
    assert torch.equal(LinfPGD(0.05, steps=1, restarts=5)(net, x, y)[kept], first[kept])


def test_restarts_end_when_all_are_fooled(net: nn.Module, batch: Batch) -> None:
    attack = LinfPGD(1.0, start="none", restarts=10**9)
    assert fooled(net, attack(net, *batch), batch.y).all()


# What counts

NUM_IMAGES = 48
ATTACKS: dict[str, GradientAttack] = {
    "pgd": LinfPGD(0.03, step_size=0.004, steps=8),
    "pgd noise": LinfPGD(0.03, step_size=0.004, steps=8, noise=0.01),
    "pgd none": LinfPGD(0.03, step_size=0.004, steps=8, start="none"),
    "pgd restarts": LinfPGD(0.03, step_size=0.001, steps=3, restarts=4),
    "cw": MarginPGD(0.03, step_size=0.004, steps=8),
    "l2": L2PGD(0.15, step_size=0.02, steps=8),
}
each_attack = pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)


@pytest.fixture
def double() -> nn.Module:
    """In float64, rounding cannot decide a verdict when the batches have other sizes."""
    return build_net().double()


@pytest.fixture
def double_batch(double: nn.Module) -> Batch:
    x = images(NUM_IMAGES, dtype=torch.float64)
    return Batch(x, predict(double, x))


def undropped(model: nn.Module, x: Tensor, y: Tensor, *, attack: GradientAttack) -> Tensor:
    """Every iterate of every image, and its first one that fools the model, if any."""
    draws = torch.Generator().manual_seed(0)
    found = torch.full_like(x, torch.nan)
    for _ in range(attack.restarts):
        start = replace(attack, step_size=1e-300, steps=1, noise=0.0, restarts=1)
        iterate = start(model, x, y, generator=draws)  # a step of no length: the start itself
        iterates = [iterate]
        for _ in range(attack.steps):
            leaf = iterate.clone().requires_grad_()
            attack.objective(model(leaf), y).sum().backward()
            assert leaf.grad is not None
            iterate = iterate + attack.step_size * attack.norm.ascend(leaf.grad)
            if attack.noise:
                iterate = iterate + attack.noise * torch.randn(
                    x.shape, generator=draws, dtype=x.dtype
                )
            iterate = attack.norm.project(iterate, x, attack.eps)
            iterates.append(iterate)
        for iterate in iterates:
            fools = (predict(model, iterate) != y) & found.flatten(1).isnan().any(dim=1)
            found[fools] = iterate[fools]
    return found


@each_attack
def test_any_equals_looking_at_every_iterate_of_all_images(
    attack: GradientAttack, double: nn.Module, double_batch: Batch
) -> None:
    x, y = double_batch
    expected = undropped(double, x, y, attack=attack)
    fooled = ~expected.flatten(1).isnan().any(dim=1)
    assert 0 < fooled.sum() < NUM_IMAGES
    found = replace(attack, counts="any")(double, x, y)
    assert torch.equal(predict(double, found) != y, fooled)
    torch.testing.assert_close(found[fooled], expected[fooled], rtol=0, atol=1e-12)


class Swing(nn.Module):
    """Two classes; the brightness picks the wrong one in a narrow band only."""

    def forward(self, x: Tensor) -> Tensor:
        brightness = x.flatten(1).mean(dim=1)
        score = 0.02 - (brightness - 0.55).abs()
        return torch.stack([torch.zeros_like(score), score], dim=1)


def test_last_keeps_the_last_iterate_even_if_it_is_right_again() -> None:
    x, y = torch.full((2, 1, 4, 4), 0.5), torch.zeros(2, dtype=torch.int64)

    def score(logits: Tensor, target: Tensor) -> Tensor:
        return logits[:, 1]

    attack = LinfPGD(0.2, step_size=0.06, steps=2, start="none", objective=score)
    last, anywhere = (replace(attack, counts=v)(Swing(), x, y) for v in ("last", "any"))
    assert (predict(Swing(), anywhere) == 1).all()
    torch.testing.assert_close(anywhere, torch.full_like(x, 0.56))
    torch.testing.assert_close(last, torch.full_like(x, 0.5))  # stepped over the band and back
    assert (predict(Swing(), last) == 0).all()


def sizes_of_forward_passes(model: nn.Module, batch: Batch) -> list[int]:
    """Returns a list that fills; not with the model's first attack, which looks for its norms."""
    sizes: list[int] = []
    model.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    LinfPGD(0.03, steps=1)(model, *batch)
    sizes.clear()
    return sizes


def test_fooled_images_are_not_computed_any_more(double: nn.Module, double_batch: Batch) -> None:
    sizes = sizes_of_forward_passes(double, double_batch)
    LinfPGD(0.03, step_size=0.004, steps=8, counts="any")(double, *double_batch)
    assert sizes[0] == NUM_IMAGES
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < NUM_IMAGES
    assert len(sizes) == 8


def test_images_that_the_model_gets_wrong_cost_one_forward(
    double: nn.Module, double_batch: Batch
) -> None:
    x, y = double_batch
    sizes = sizes_of_forward_passes(double, double_batch)
    attack = LinfPGD(0.03, start="none", counts="any", restarts=10**9)
    assert torch.equal(attack(double, x, (y + 1) % 10), x)
    assert sizes == [NUM_IMAGES, NUM_IMAGES]  # the attack, and the judgement before restarts


@pytest.mark.parametrize("changes", [{"counts": "any"}, {"tau": 1}])
def test_clean_images_are_not_written_into(
    changes: dict[str, Any], net: nn.Module, batch: Batch
) -> None:
    before = batch.x.clone()
    x_adv = LinfPGD(0.1, start="none", **changes)(net, *batch)
    assert not torch.equal(x_adv, before)
    assert torch.equal(batch.x, before)


def test_normal_start_that_fools_is_not_kept_as_it_may_be_no_valid_image(
    net: nn.Module, batch: Batch
) -> None:
    x = torch.zeros_like(batch.x)
    wrong = (predict(net, x) + 1) % 10
    assert LinfPGD(0.1, start="normal", counts="any")(net, x, wrong).min() == 0


# Early stop, against the authors' algorithm

EPS, STEP, STEPS = 0.2, 0.05, 6


@pytest.fixture
def mixed(double):
    x = images(24, dtype=torch.float64)
    y = predict(double, x)
    y[::6] = (y[::6] + 1) % 10  # some are fooled from the start
    return Batch(x, y)


def early_stop(**changes):
    return replace(LinfPGD(EPS, step_size=STEP, steps=STEPS, tau=0), **changes)


def early_stop_reference(net, batch, *, tau, start, noise, natural_logits=None):
    """The authors' algorithm for one image after the other; returns images and steps taken."""
    x, y = batch
    draws = generator(3)
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
def test_images_are_those_of_the_slow_reference(start, noise, tau, double, mixed):
    expected, counts = early_stop_reference(double, mixed, tau=tau, start=start, noise=noise)
    assert len(set(counts)) > 2  # images leave at different steps
    found = early_stop(tau=tau, start=start, noise=noise)(double, *mixed, generator=generator(3))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("tau", [0, 2])
def test_divergence_from_the_natural_logits_is_climbed_image_by_image(tau, double, mixed):
    with torch.no_grad():
        logits = double(mixed.x)
    settings = {"tau": tau, "start": "normal", "noise": 0.0}
    expected, _ = early_stop_reference(double, mixed, natural_logits=logits, **settings)
    found = early_stop(**settings)(
        double, *mixed, generator=generator(3), objective=KLObjective(logits)
    )
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("start", ["uniform", "none"])
def test_large_tau_is_plain_pgd(start, double, mixed):
    plain = LinfPGD(EPS, step_size=STEP, steps=STEPS, start=start, noise=0.01)
    expected = plain(double, *mixed, generator=generator(3))
    found = early_stop(tau=STEPS, start=start, noise=0.01)(double, *mixed, generator=generator(3))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_fewer_further_steps_are_never_further_from_the_class_boundary(double, mixed):
    counts = []
    for tau in (0, STEPS):
        found = early_stop(tau=tau)(double, *mixed, generator=generator(3))
        counts.append(fooled(double, found, mixed.y).sum())
    assert counts[0] >= counts[1]  # nobody who was fooled goes on


def test_image_that_is_fooled_already_stays_where_it_starts(double, mixed):
    wrong = (mixed.y + 1) % 10
    wrong = torch.where(predict(double, mixed.x) == wrong, (wrong + 1) % 10, wrong)
    found = early_stop(start="none")(double, mixed.x, wrong, generator=generator(3))
    assert torch.equal(found, mixed.x)


def test_normal_start_is_clipped_to_valid_pixels(double, mixed):
    x = torch.zeros_like(mixed.x)
    y = (predict(double, x) + 1) % 10
    found = early_stop(start="normal")(double, x, y)
    assert found.min() == 0
    assert 0 < found.max() < 0.01


def test_fate_of_an_image_does_not_depend_on_the_others(double, mixed):
    whole = early_stop(start="none", tau=1)(double, *mixed)
    part = early_stop(start="none", tau=1)(double, mixed.x[7:9], mixed.y[7:9])
    torch.testing.assert_close(part, whole[7:9], rtol=0, atol=1e-12)


class Ridge(nn.Module):
    """The true class leads by a constant less the distance of each pixel from a half."""

    def __init__(self, *, linear: bool) -> None:
        super().__init__()
        self.linear = linear
        self.num_rows: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.num_rows.append(len(x))
        distance = (x - 0.5 if self.linear else (x - 0.5).abs()).flatten(1).sum(dim=1)
        return torch.stack((100 + distance, torch.zeros_like(distance)), dim=1)


@pytest.mark.parametrize("linear", [True, False], ids=["stands", "goes to and fro"])
def test_sample_whose_iterates_repeat_leaves(linear: bool) -> None:
    x, y = torch.full((3, 1, 4, 4), 0.5), torch.zeros(3, dtype=torch.int64)
    model = Ridge(linear=linear)
    attack = LinfPGD(0.1, steps=100, step_size=0.026, counts="any", objective=margin_objective)
    assert predict(model, attack(model, x, y)).eq(y).all()
    assert sum(model.num_rows) < 3 * 15
    for keeps in (replace(attack, counts="last"), replace(attack, noise=1e-4)):
        model.num_rows.clear()
        keeps(model, x, y)
        assert sum(model.num_rows) >= 3 * 100
