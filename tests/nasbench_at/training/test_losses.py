from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from nasbench_at.training.losses import margin_loss, mart_loss, trades_loss

FIXTURE = Path(__file__).resolve().parents[2] / "fixtures" / "authors_losses.npz"
LOSSES = [trades_loss, mart_loss]


@pytest.fixture(scope="module")
def authors():
    with np.load(FIXTURE) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


@pytest.fixture
def logits():
    """Natural and adversarial logits of six images and five classes, and the true classes."""
    generator = torch.Generator().manual_seed(1)
    natural, adversarial = torch.randn(2, 6, 5, generator=generator, dtype=torch.float64).mul(3)
    return natural, adversarial, torch.tensor([0, 1, 2, 3, 4, 0])


def softmax(row):
    exps = [math.exp(value - max(row)) for value in row]
    return [value / sum(exps) for value in exps]


def trades_by_hand(natural, adversarial, target, beta):
    total = 0.0
    for z, z_adv, y in zip(natural, adversarial, target, strict=True):
        p, q = softmax(z), softmax(z_adv)
        divergence = sum(a * (math.log(a) - math.log(b)) for a, b in zip(p, q, strict=True))
        total += -math.log(p[y]) + beta * divergence
    return total / len(target)


def mart_by_hand(natural, adversarial, target, beta):
    total = 0.0
    for z, z_adv, y in zip(natural, adversarial, target, strict=True):
        p, q = softmax(z), softmax(z_adv)
        wrong = max(b for i, b in enumerate(q) if i != y)
        boosted = -math.log(q[y]) - math.log(1.0001 - wrong + 1e-12)
        divergence = sum(a * (math.log(a) - math.log(b + 1e-12)) for a, b in zip(p, q, strict=True))
        total += boosted + beta * divergence * (1.0000001 - p[y])
    return total / len(target)


@pytest.mark.parametrize(
    ("loss", "beta", "key"),
    [
        (trades_loss, 1.0, "trades_beta1"),
        (trades_loss, 6.0, "trades_beta6"),
        (mart_loss, 6.0, "mart_beta6"),
    ],
)
def test_value_equals_the_authors(loss, beta, key, authors):
    value = loss(
        authors["natural_logits"], authors["adversarial_logits"], authors["target"], beta=beta
    )
    assert value.ndim == 0
    assert value.item() == pytest.approx(authors[key].item(), rel=1e-5)


def test_margin_loss_is_what_the_authors_add_up(authors):
    logits, target = authors["adversarial_logits"], authors["target"]
    value = margin_loss(logits, target, confidence=50.0).sum()
    assert value.abs().item() == pytest.approx(abs(authors["cw_margin_loss_sum"].item()), rel=1e-5)


@pytest.mark.parametrize("beta", [0.0, 1.0, 6.0])
@pytest.mark.parametrize(
    ("loss", "by_hand"), [(trades_loss, trades_by_hand), (mart_loss, mart_by_hand)]
)
def test_value_equals_a_slow_reference_in_double_precision(loss, by_hand, beta, logits):
    expected = by_hand(*(tensor.tolist() for tensor in logits), beta)
    assert loss(*logits, beta=beta).item() == pytest.approx(expected, rel=1e-10)


def test_trades_without_its_robust_term_is_cross_entropy(logits):
    natural, _, target = logits
    torch.testing.assert_close(trades_loss(*logits, beta=0.0), F.cross_entropy(natural, target))


def test_mart_without_its_robust_term_ignores_the_natural_images(logits):
    natural, adversarial, target = logits
    value = mart_loss(natural, adversarial, target, beta=0.0)
    torch.testing.assert_close(mart_loss(-natural, adversarial, target, beta=0.0), value)
    assert value > F.cross_entropy(adversarial, target)


@pytest.mark.parametrize("loss", LOSSES)
def test_equal_logits_leave_no_robust_term(loss, logits):
    natural, _, target = logits
    without, with_term = (loss(natural, natural, target, beta=beta) for beta in (0.0, 6.0))
    torch.testing.assert_close(with_term, without, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("loss", LOSSES)
def test_robust_term_grows_with_beta(loss, logits):
    values = [loss(*logits, beta=beta).item() for beta in (0.0, 1.0, 2.0)]
    assert values[0] < values[1] < values[2]
    assert values[2] - values[1] == pytest.approx(values[1] - values[0])


@pytest.mark.parametrize("loss", LOSSES)
def test_gradients_flow_through_every_factor(loss, logits):
    natural, adversarial, target = logits
    torch.autograd.gradcheck(
        lambda z, z_adv: loss(z, z_adv, target, beta=6.0),
        (natural.requires_grad_(), adversarial.requires_grad_()),
    )


def test_mart_takes_the_most_likely_wrong_class_also_where_the_answer_is_right():
    natural = torch.zeros(1, 3, dtype=torch.float64)
    adversarial = torch.tensor([[4.0, 1.0, 0.0]], dtype=torch.float64)
    values = [mart_loss(natural, adversarial, torch.tensor([y]), beta=0.0).item() for y in range(3)]
    expected = [mart_by_hand(natural.tolist(), adversarial.tolist(), [y], 0.0) for y in range(3)]
    assert values == pytest.approx(expected)


@pytest.mark.parametrize(
    "loss",
    [
        trades_loss,
        mart_loss,
    ],
)
def test_extreme_logits_give_a_finite_loss_and_gradient(loss):
    natural = torch.tensor([[80.0, 0.0, -80.0]], requires_grad=True)
    adversarial = torch.tensor([[-80.0, 80.0, 0.0]], requires_grad=True)
    value = loss(natural, adversarial, torch.tensor([0]), beta=6.0)
    value.backward()
    assert value.isfinite()
    assert natural.grad.isfinite().all()
    assert adversarial.grad.isfinite().all()


@pytest.mark.parametrize("loss", LOSSES)
def test_logits_are_not_changed(loss, logits):
    before = [tensor.clone() for tensor in logits]
    loss(*logits, beta=6.0)
    assert all(torch.equal(*pair) for pair in zip(logits, before, strict=True))
