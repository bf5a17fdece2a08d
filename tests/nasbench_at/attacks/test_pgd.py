"""The attacks by their names: budget, optimum, definition, settings."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nasbench_at.attacks import (
    FGSM,
    L2PGD,
    GradientAttack,
    LinfPGD,
    MarginPGD,
)

from .conftest import Batch, build_net, images, predict

STARTS = ["uniform", "normal", "none"]
FAMILY: dict[str, GradientAttack] = {
    "fgsm": FGSM(0.1),
    "fgsm random": FGSM(0.1, random_start=True),
    "pgd uniform": LinfPGD(0.1, noise=0.01),
    "pgd normal": LinfPGD(0.1, start="normal", restarts=3),
    "pgd none": LinfPGD(0.1, start="none"),
    "pgd overshoot": LinfPGD(0.1, step_size=0.5),
    "l2": L2PGD(0.7, restarts=2),
    "l2 noise": L2PGD(0.7, noise=0.01, start="normal"),
    "cw": MarginPGD(0.1, steps=5),
    "cw any": MarginPGD(0.1, steps=5, counts="any", restarts=2),
    "pgd any": LinfPGD(0.1, start="normal", noise=0.01, counts="any"),
    "l2 any": L2PGD(0.7, restarts=2, counts="any"),
    "fat": LinfPGD(0.1, noise=0.01, tau=1, restarts=2),
    "fat normal": LinfPGD(0.1, start="normal", noise=0.1, tau=2),
    "l2 fat": L2PGD(0.7, tau=0),
}
whole_family = pytest.mark.parametrize("attack", FAMILY.values(), ids=FAMILY)


def length(attack: GradientAttack, delta: Tensor) -> float:
    order = math.inf if attack.norm.name == "Linf" else 2
    return torch.linalg.vector_norm(delta.double().flatten(1), order, dim=1).max().item()


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# The budget


@whole_family
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_images_stay_valid_and_within_the_budget(
    attack: GradientAttack, dtype: torch.dtype, seed: int
) -> None:
    net = build_net(seed=seed).to(dtype)
    x = images(4, seed=seed, dtype=dtype).round(decimals=1)  # some pixels at 0 and 1
    x_adv = attack(net, x, predict(net, x), generator=generator(seed))
    rounding = torch.finfo(dtype).eps * (1 if attack.norm.name == "Linf" else 8)
    assert 0.5 * attack.eps < length(attack, x_adv - x) <= attack.eps + rounding
    assert x_adv.min() >= 0
    assert x_adv.max() <= 1
    assert x_adv.dtype == dtype


@whole_family
def test_budget_zero_is_the_identity(attack: GradientAttack, net: nn.Module, batch: Batch) -> None:
    nothing = dataclasses.replace(attack, eps=0.0)
    assert torch.equal(nothing(net, *batch), batch.x)


@pytest.mark.parametrize("attack", [FGSM(0), LinfPGD(0), L2PGD(0), MarginPGD(0)])
def test_attacks_accept_budget_zero(attack: GradientAttack, net: nn.Module, batch: Batch) -> None:
    assert torch.equal(attack(net, *batch), batch.x)


@whole_family
def test_layout_and_clean_images_are_kept(
    attack: GradientAttack, net: nn.Module, batch: Batch
) -> None:
    x = batch.x.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)
    before = x.clone()
    narrow = nn.Sequential(nn.Conv2d(3, 1, 1), net)
    x_adv = attack(narrow, x, batch.y)
    assert x_adv.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(x, before)


# The optimum


def linear_model(dtype: torch.dtype = torch.float64) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 2)).to(dtype)


@pytest.mark.parametrize(
    "attack",
    [
        FGSM(0.1),
        LinfPGD(0.1, steps=8),
        LinfPGD(0.1, steps=8, start="normal"),
        MarginPGD(0.1, steps=8),
    ],
    ids=["fgsm", "pgd", "pgd normal", "cw"],
)
def test_linf_attacks_reach_the_optimum_of_a_linear_model(attack: GradientAttack) -> None:
    model, x = linear_model(), images(6, dtype=torch.float64)
    y = torch.tensor([0, 1, 0, 1, 0, 1])
    weight = model[1].weight.detach()
    towards = (weight[1 - y] - weight[y]).view(-1, 1, 8, 8)
    best = (x + 0.1 * towards.sign()).clamp(0, 1)
    torch.testing.assert_close(attack(model, x, y), best)


def test_l2_attack_reaches_the_optimum_of_a_linear_model() -> None:
    model, x = linear_model(), torch.full((4, 1, 8, 8), 0.5, dtype=torch.float64)
    y = torch.tensor([0, 1, 0, 1])
    weight = model[1].weight.detach()
    towards = (weight[1 - y] - weight[y]).view(-1, 1, 8, 8)
    best = x + 0.3 * towards / towards.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    attack = L2PGD(0.3, step_size=0.3, steps=60)
    torch.testing.assert_close(attack(model, x, y), best, rtol=1e-6, atol=1e-6)


# The definition


def reference_pgd(
    model: nn.Module, x: Tensor, y: Tensor, *, attack: GradientAttack, seed: int
) -> Tensor:
    """L-infinity PGD on the cross-entropy: one sample at a time, one pixel rule a line."""
    draws = generator(seed)
    x_adv = x.clone()
    if attack.start == "uniform":
        x_adv = x + attack.eps * (2 * torch.rand(x.shape, generator=draws, dtype=x.dtype) - 1)
        x_adv = torch.minimum(torch.maximum(x_adv, torch.zeros_like(x)), torch.ones_like(x))
    if attack.start == "normal":
        x_adv = x + 0.001 * torch.randn(x.shape, generator=draws, dtype=x.dtype)
    noises = [torch.zeros_like(x)] * attack.steps
    if attack.noise:
        noises = [
            attack.noise * torch.randn(x.shape, generator=draws, dtype=x.dtype)
            for _ in range(attack.steps)
        ]
    result = []
    for i in range(len(x)):
        image, point = x[i : i + 1], x_adv[i : i + 1]
        for noise in noises:
            point = point.detach().clone().requires_grad_()
            F.cross_entropy(model(point), y[i : i + 1]).backward()
            assert point.grad is not None
            moved = point.detach() + attack.step_size * torch.sign(point.grad) + noise[i : i + 1]
            moved = torch.minimum(torch.maximum(moved, image - attack.eps), image + attack.eps)
            point = torch.minimum(torch.maximum(moved, torch.tensor(0.0)), torch.tensor(1.0))
        result.append(point)
    return torch.cat(result)


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_pgd_equals_a_slow_reference(start: Any, noise: float) -> None:
    net, x = build_net().double(), images(5, dtype=torch.float64)
    y = predict(net, x)
    attack = LinfPGD(0.1, step_size=0.03, steps=7, start=start, noise=noise)
    expected = reference_pgd(net, x, y, attack=attack, seed=3)
    found = attack(net, x, y, generator=generator(3))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_fgsm_with_random_start_is_one_projected_step() -> None:
    net, x = build_net().double(), images(5, dtype=torch.float64)
    y = predict(net, x)
    attack = FGSM(0.1, random_start=True)
    assert attack.start == "uniform"
    expected = reference_pgd(net, x, y, attack=attack, seed=3)
    torch.testing.assert_close(attack(net, x, y, generator=generator(3)), expected)


def test_margin_attack_climbs_the_margin(net: nn.Module, batch: Batch) -> None:
    def margin(logits: Tensor, target: Tensor) -> Tensor:
        true = logits.gather(1, target[:, None]).squeeze(1)
        return logits.scatter(1, target[:, None], -1e4).amax(dim=1) - true

    expected = LinfPGD(0.1, steps=5, objective=margin)(net, *batch)
    torch.testing.assert_close(MarginPGD(0.1, steps=5)(net, *batch), expected)


def test_margin_attack_stops_at_its_confidence(net: nn.Module, batch: Batch) -> None:
    satisfied = MarginPGD(0.1, steps=5, start="none", confidence=-100.0)
    assert torch.equal(satisfied(net, *batch), batch.x)


# Settings and their limits


@whole_family
def test_settings_are_json_and_complete(attack: GradientAttack) -> None:
    settings = attack.settings()
    assert json.loads(json.dumps(settings)) == settings
    fields = {field.name for field in dataclasses.fields(attack)}
    assert fields - {"random_start", "tau"} <= settings.keys()  # the first says the start


@whole_family
def test_replaced_attack_is_the_one_made_so(attack: GradientAttack) -> None:
    longer = dataclasses.replace(attack, steps=40)
    assert type(longer) is type(attack)
    assert longer.settings() == attack.settings() | {"steps": 40}


def test_defaults_are_recorded() -> None:
    assert LinfPGD(0.1).settings() == {
        "name": "pgd",
        "norm": "Linf",
        "eps": 0.1,
        "step_size": 0.025,
        "steps": 10,
        "start": "uniform",
        "noise": 0.0,
        "restarts": 1,
        "counts": "last",
        "mode": "eval",
        "objective": "cross_entropy",
    }
    assert LinfPGD(0.1, tau=2).settings() == LinfPGD(0.1).settings() | {"tau": 2}
    assert MarginPGD(0.1).settings()["confidence"] == 50.0
    assert MarginPGD(0.1).name == "cw"
    assert FGSM(0.1).name == "fgsm"
    assert L2PGD(0.1).name == "pgd_l2"


BAD_SETTINGS = {
    "eps in 0..255": ({"eps": 8}, r"eps must lie in \[0, 1\], got 8; divide pixel units by 255"),
    "no step": ({"step_size": 0.0}, "step_size must be positive and finite, got 0.0"),
    "nan step": ({"step_size": math.nan}, "step_size must be positive and finite, got nan"),
    "infinite step": ({"step_size": math.inf}, "step_size must be positive and finite, got inf"),
    "no steps": ({"steps": 0}, "steps must be at least 1, got 0"),
    "no restarts": ({"restarts": 0}, "restarts must be at least 1, got 0"),
    "negative noise": ({"noise": -0.1}, "noise must be finite and at least 0, got -0.1"),
    "start": ({"start": "zero"}, "start must be one of uniform, normal, none, got 'zero'"),
    "counts": ({"counts": "first"}, "counts must be one of last, any, got 'first'"),
    "any in train mode": (
        {"counts": "any", "mode": "train"},
        "counts 'any' must not go with mode 'train', got both",
    ),
    "negative tau": ({"tau": -1}, "tau must be at least 0, got -1"),
    "tau and any": ({"tau": 2, "counts": "any"}, "tau must not go with counts 'any', got 2"),
    "tau in train mode": ({"tau": 2, "mode": "train"}, "tau must not go with mode 'train', got 2"),
    "mode": ({"mode": "test"}, "mode must be one of eval, train, keep, got 'test'"),
}


@pytest.mark.parametrize(("changes", "message"), BAD_SETTINGS.values(), ids=BAD_SETTINGS)
def test_bad_settings_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LinfPGD(**{"eps": 0.1} | changes)
