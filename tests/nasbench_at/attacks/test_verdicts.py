from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from nasbench_at.attacks import L2PGD, GradientAttack, LinfPGD, MarginPGD

from .conftest import build_net, images, predict

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
def batch(double: nn.Module) -> tuple[Tensor, Tensor]:
    x = images(NUM_IMAGES, dtype=torch.float64)
    return x, predict(double, x)


def undropped(model: nn.Module, x: Tensor, y: Tensor, *, attack: GradientAttack) -> Tensor:
    """Every iterate of every image, and its first one that fools the model, if any."""
    draws = torch.Generator().manual_seed(0)
    found = torch.full_like(x, torch.nan)
    for _ in range(attack.restarts):
        start = attack.replace(step_size=1e-300, steps=1, noise=0.0, restarts=1)
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
def test_any_verdict_equals_looking_at_every_iterate_of_all_images(
    attack: GradientAttack, double: nn.Module, batch: tuple[Tensor, Tensor]
) -> None:
    x, y = batch
    expected = undropped(double, x, y, attack=attack)
    fooled = ~expected.flatten(1).isnan().any(dim=1)
    assert 0 < fooled.sum() < NUM_IMAGES
    found = attack.replace(verdict="any")(double, x, y)
    assert torch.equal(predict(double, found) != y, fooled)
    torch.testing.assert_close(found[fooled], expected[fooled], rtol=0, atol=1e-12)


class Swing(nn.Module):
    """Two classes; the brightness picks the wrong one in a narrow band only."""

    def forward(self, x: Tensor) -> Tensor:
        brightness = x.flatten(1).mean(dim=1)
        score = 0.02 - (brightness - 0.55).abs()
        return torch.stack([torch.zeros_like(score), score], dim=1)


def test_last_verdict_keeps_the_last_iterate_even_if_it_is_right_again() -> None:
    x, y = torch.full((2, 1, 4, 4), 0.5), torch.zeros(2, dtype=torch.int64)

    def score(logits: Tensor, target: Tensor) -> Tensor:
        return logits[:, 1]

    attack = LinfPGD(0.2, step_size=0.06, steps=2, start="none", objective=score)
    last, anywhere = (attack.replace(verdict=v)(Swing(), x, y) for v in ("last", "any"))
    assert (predict(Swing(), anywhere) == 1).all()
    torch.testing.assert_close(anywhere, torch.full_like(x, 0.56))
    torch.testing.assert_close(last, torch.full_like(x, 0.5))  # stepped over the band and back
    assert (predict(Swing(), last) == 0).all()


def sizes_of_forward_passes(model: nn.Module, batch: tuple[Tensor, Tensor]) -> list[int]:
    """Returns a list that fills; not with the model's first attack, which looks for its norms."""
    LinfPGD(0.03, steps=1)(model, *batch)
    sizes: list[int] = []
    model.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    return sizes


def test_fooled_images_are_not_computed_any_more(
    double: nn.Module, batch: tuple[Tensor, Tensor]
) -> None:
    sizes = sizes_of_forward_passes(double, batch)
    LinfPGD(0.03, step_size=0.004, steps=8, verdict="any")(double, *batch)
    assert sizes[0] == NUM_IMAGES
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < NUM_IMAGES
    assert len(sizes) == 8


def test_images_that_the_model_gets_wrong_cost_one_forward(
    double: nn.Module, batch: tuple[Tensor, Tensor]
) -> None:
    x, y = batch
    sizes = sizes_of_forward_passes(double, batch)
    attack = LinfPGD(0.03, start="none", verdict="any", restarts=10**9)
    assert torch.equal(attack(double, x, (y + 1) % 10), x)
    assert sizes == [NUM_IMAGES, NUM_IMAGES]  # the attack, and the judgement before restarts
