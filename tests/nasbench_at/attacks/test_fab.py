"""FAB-T, step by step against pyautoattack's."""

from __future__ import annotations

import pytest
import torch
from pyautoattack.fab_pt import FABAttack_PT

from nasbench_at.attacks.fab import FAB
from nasbench_at.attacks.guard import attack_mode

from .conftest import PerImage, build_net, images, predict

NUM_TARGETS = 4
STEPS = 20


def library(model: PerImage, norm: str, eps: float) -> FABAttack_PT:
    found = FABAttack_PT(
        model, norm=norm, eps=eps, n_iter=STEPS, targeted=True, n_target_classes=NUM_TARGETS
    )
    found.device = "cpu"
    return found


@pytest.fixture
def model() -> PerImage:
    return PerImage(build_net())


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("max_rows", [1, 1000], ids=["one", "all"])
def test_iterates_are_the_library_s(norm: str, max_rows: int, model: PerImage) -> None:
    x = images(4)
    y = predict(model, x)
    model.seen.clear()
    with attack_mode(model), torch.no_grad():
        library(model, norm, 1e-6).perturb(x, y)
        expected = model.take_seen()
        attack = FAB(1e-6, norm, steps=STEPS)
        attack.attack_targets(model, x, y, NUM_TARGETS, max_rows=max_rows)
    found = model.take_seen()
    assert found <= expected
    assert len(found) > 1.5 * STEPS * NUM_TARGETS * len(x)
    # At the end of a target the library looks at the nearest image once more.
    assert len(expected - found) <= NUM_TARGETS * len(x)


@pytest.mark.parametrize(("norm", "eps"), [("Linf", 0.015), ("L2", 0.12)])
@pytest.mark.parametrize("max_rows", [1, 30, 1000], ids=["one", "two", "all"])
def test_who_is_fooled_is_what_the_library_finds(
    norm: str, eps: float, max_rows: int, model: PerImage
) -> None:
    x = images(12)
    y = predict(model, x)
    with attack_mode(model), torch.no_grad():
        expected = (library(model, norm, eps).perturb(x, y) != x).flatten(1).any(dim=1)
        attack = FAB(eps, norm, steps=STEPS)
        found = attack.attack_targets(model, x, y, NUM_TARGETS, max_rows=max_rows)
    assert torch.equal((found != x).flatten(1).any(dim=1), expected)
    assert 2 <= expected.sum() <= 10
    assert not (predict(model, found) == y)[expected].any()
    order = torch.inf if norm == "Linf" else 2
    assert torch.linalg.vector_norm((found - x).flatten(1), ord=order, dim=1).max() <= eps


def test_fooled_image_leaves_all_of_its_targets(model: PerImage) -> None:
    x = images(3)
    y = predict(model, x)
    model.seen.clear()
    with attack_mode(model), torch.no_grad():
        FAB(1.0, "Linf", steps=1000).attack_targets(model, x, y, NUM_TARGETS, max_rows=1000)
    assert len(model.seen) < 10 * NUM_TARGETS * len(x)
