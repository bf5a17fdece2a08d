from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from nasbench_at.attacks.objectives import (
    KLObjective,
    cross_entropy_objective,
    describe,
    margin_loss,
    margin_objective,
    restrict,
)

FIXTURE = Path(__file__).parents[2] / "fixtures" / "authors_losses.npz"


@pytest.fixture
def authors() -> dict[str, torch.Tensor]:
    with np.load(FIXTURE) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


def test_margin_loss_equals_the_authors(authors: dict[str, torch.Tensor]) -> None:
    loss = margin_loss(authors["adversarial_logits"], authors["target"])
    torch.testing.assert_close(loss, authors["cw_margin_loss_sum"], rtol=1e-5, atol=0)


def test_kl_objective_is_the_divergence_in_the_authors_trades_loss(
    authors: dict[str, torch.Tensor],
) -> None:
    natural, target = authors["natural_logits"], authors["target"]
    divergence = KLObjective(natural)(authors["adversarial_logits"], target).mean()
    natural_loss = F.cross_entropy(natural, target)
    for beta in (1, 6):
        expected = authors[f"trades_beta{beta}"]
        torch.testing.assert_close(natural_loss + beta * divergence, expected, rtol=1e-5, atol=0)


def test_margin_by_hand() -> None:
    logits = torch.tensor([[-1.0, -3.0, -2.0], [0.0, 5.0, -1.0], [0.0, 9.0, 0.0]])
    values = margin_objective(logits, torch.tensor([0, 0, 0]), confidence=6.0)
    assert values.tolist() == [-7.0, -1.0, 0.0]


def test_every_objective_has_one_value_a_sample() -> None:
    logits, target = torch.randn(5, 4), torch.tensor([0, 1, 2, 3, 0])
    for objective in (cross_entropy_objective, margin_objective, KLObjective(torch.randn(5, 4))):
        together = objective(logits, target)
        assert together.shape == (5,)
        if not isinstance(objective, KLObjective):
            alone = [objective(logits[i : i + 1], target[i : i + 1]).item() for i in range(5)]
            torch.testing.assert_close(together, torch.tensor(alone))


def test_kl_of_equal_logits_is_zero() -> None:
    logits = torch.randn(5, 4)
    values = KLObjective(logits)(logits + 3.0, torch.zeros(5, dtype=torch.int64))
    torch.testing.assert_close(values, torch.zeros(5))


def test_kl_survives_certainty() -> None:
    natural = torch.tensor([[1000.0, 0.0]], requires_grad=True)
    adversarial = torch.tensor([[0.0, 1.0]], requires_grad=True)
    value = KLObjective(natural)(adversarial, torch.tensor([0]))
    (gradient,) = torch.autograd.grad(value.sum(), adversarial)
    assert value.isfinite().all()
    assert gradient.isfinite().all()


def test_kl_passes_no_gradient_to_the_natural_logits() -> None:
    natural = torch.randn(3, 4, requires_grad=True)
    assert not KLObjective(natural)(torch.randn(3, 4), torch.zeros(3).long()).requires_grad


def test_restricted_objective_equals_the_rows_of_the_whole() -> None:
    natural, logits = torch.randn(5, 4), torch.randn(5, 4)
    target, rows = torch.tensor([0, 1, 2, 3, 0]), torch.tensor([4, 1])
    for objective in (cross_entropy_objective, KLObjective(natural)):
        part = restrict(objective, rows)(logits[rows], target[rows])
        torch.testing.assert_close(part, objective(logits, target)[rows])


def test_describe_names_objectives_for_records() -> None:
    assert describe(cross_entropy_objective) == {"objective": "cross_entropy"}
    assert describe(KLObjective(torch.zeros(1, 2))) == {"objective": "KLObjective"}
    bound = partial(margin_objective, confidence=3.0)
    assert describe(bound) == {"objective": "margin", "confidence": 3.0}
