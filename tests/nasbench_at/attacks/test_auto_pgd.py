"""APGD, step by step against pyautoattack's."""

from __future__ import annotations

import pytest
import torch
from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted
from torch import Tensor

from nasbench_at.attacks.auto_pgd import AutoPGD, Loss, cross_entropy, dlr
from nasbench_at.attacks.guard import attack_mode

from .conftest import PerImage, build_net, images, predict

NUM_TARGETS = 5
SMALL = {"Linf": 0.003, "L2": 0.02}
"""Radii at which nobody is fooled."""


@pytest.fixture
def model() -> PerImage:
    return PerImage(build_net())


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def options(norm: str, eps: float, steps: int) -> dict[str, object]:
    return {"norm": norm, "eps": eps, "n_iter": steps, "seed": 0, "device": "cpu"}


def changed(found: Tensor, x: Tensor) -> Tensor:
    return (found != x).flatten(1).any(dim=1)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize(("name", "loss"), [("ce", cross_entropy), ("dlr", dlr)])
def test_iterates_are_the_library_s(norm: str, name: str, loss: Loss, model: PerImage) -> None:
    x = images(4)
    y = predict(model, x)
    model.seen.clear()
    with attack_mode(model), torch.no_grad():
        library = APGDAttack(model, loss=name, **options(norm, SMALL[norm], 100))
        library.perturb(x, y)
        expected = torch.stack(model.seen[len(x) :])  # it begins by looking at the clean images
        model.seen.clear()
        AutoPGD(SMALL[norm], norm).attack(model, x, y, loss, generator())
    assert len(expected) == 101 * len(x)
    assert torch.equal(torch.stack(model.seen), expected)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("max_rows", [1, 1000], ids=["one", "all"])
def test_iterates_towards_targets_are_the_library_s(
    norm: str, max_rows: int, model: PerImage
) -> None:
    x = images(4)
    y = predict(model, x)
    model.seen.clear()
    with attack_mode(model), torch.no_grad():
        library = APGDAttack_targeted(
            model, n_target_classes=NUM_TARGETS, **options(norm, SMALL[norm], 100)
        )
        library.perturb(x, y)
        expected = model.take_seen()
        attack = AutoPGD(SMALL[norm], norm)
        attack.attack_targets(model, x, y, NUM_TARGETS, generator(), max_rows=max_rows)
    assert len(expected) > NUM_TARGETS * 10 * len(x)  # in the end iterates repeat
    assert model.take_seen() == expected


@pytest.mark.parametrize(("norm", "eps"), [("Linf", 0.015), ("L2", 0.12)])
@pytest.mark.parametrize("max_rows", [1, 30, 1000], ids=["one", "two", "all"])
def test_who_is_fooled_is_what_the_library_finds(
    norm: str, eps: float, max_rows: int, model: PerImage
) -> None:
    x = images(12)
    y = predict(model, x)
    with attack_mode(model), torch.no_grad():
        library = APGDAttack_targeted(model, n_target_classes=NUM_TARGETS, **options(norm, eps, 20))
        expected = changed(library.perturb(x, y), x)
        attack = AutoPGD(eps, norm, steps=20)
        found = attack.attack_targets(model, x, y, NUM_TARGETS, generator(), max_rows=max_rows)
    assert torch.equal(changed(found, x), expected)
    assert 2 <= expected.sum() <= 10
    assert not (predict(model, found) == y)[expected].any()


@pytest.mark.parametrize("max_rows", [1, 30, 1000], ids=["one", "two", "all"])
def test_images_that_leave_change_no_other_image_s_iterates(max_rows: int, model: PerImage) -> None:
    x = images(12)
    y = predict(model, x)
    with attack_mode(model), torch.no_grad():
        library = APGDAttack_targeted(
            model, n_target_classes=NUM_TARGETS, **options("Linf", 0.015, 20)
        )
        model.seen.clear()
        fooled = changed(library.perturb(x, y), x)
        expected = [image for image in model.seen if near(image, x[~fooled], 0.015)]
        model.seen.clear()
        attack = AutoPGD(0.015, "Linf", steps=20)
        attack.attack_targets(model, x, y, NUM_TARGETS, generator(), max_rows=max_rows)
    assert len(expected) > 20 * NUM_TARGETS
    assert {image.numpy().tobytes() for image in expected} <= model.take_seen()


def near(image: Tensor, centers: Tensor, eps: float) -> bool:
    """Whether an image lies in the ball around one of some images."""
    return bool(((image - centers).abs().flatten(1).amax(dim=1) <= eps + 1e-6).any())


def test_last_iterate_counts_and_needs_no_gradient(model: PerImage) -> None:
    x = images(3)
    y = predict(model, x)
    tracked: list[bool] = []
    handle = model.register_forward_hook(lambda *_: tracked.append(torch.is_grad_enabled()))
    with attack_mode(model), torch.no_grad():
        AutoPGD(0.003, "Linf", steps=3).attack(model, x, y, cross_entropy, generator())
    handle.remove()
    assert tracked == [True, True, True, False]
