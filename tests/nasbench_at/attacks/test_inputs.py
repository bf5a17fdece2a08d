from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from nasbench_at.attacks import (
    FGSM,
    L2PGD,
    AutoAttack,
    LinfPGD,
    MarginPGD,
    check_inputs,
    run_checks,
)

X = torch.full((2, 1, 8, 8), 0.5)
Y = torch.tensor([0, 3])

BAD = {
    "bytes": (X.to(torch.uint8), Y, r"images must be floating point in \[0, 1\], got torch.uint8"),
    "float labels": (X, Y.float(), "labels must be int64, got torch.float32"),
    "one label missing": (X, Y[:1], r"one length, got shapes \(2, 1, 8, 8\) and \(1,\)"),
    "one-hot labels": (X, torch.eye(2).long(), r"got shapes \(2, 1, 8, 8\) and \(2, 2\)"),
    "nothing": (X[:0], Y[:0], "at least one image, got none"),
    "pixels in 0..255": (255 * X, Y, r"lie in \[0, 1\], got values from 127.5 to 127.5"),
    "normalised pixels": (X - 1, Y, r"lie in \[0, 1\], got values from -0.5 to -0.5"),
    "nan": (X * math.nan, Y, r"lie in \[0, 1\], got values from nan to nan"),
    "negative label": (X, Y - 1, r"labels must be at least 0, got labels from -1 to 2"),
}


@pytest.mark.parametrize(("x", "y", "message"), BAD.values(), ids=BAD)
def test_bad_inputs_are_named(x: Tensor, y: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_inputs(x, y)


@pytest.mark.parametrize("attack", [FGSM(0.1), LinfPGD(0.1), L2PGD(1.0), MarginPGD(0.1)])
def test_gradient_attacks_refuse_bad_inputs(attack: LinfPGD, net: torch.nn.Module) -> None:
    with pytest.raises(ValueError, match=r"images must lie in \[0, 1\]"):
        attack(net, 255 * X, Y)


def test_autoattack_and_trust_checks_refuse_bad_inputs(net: torch.nn.Module) -> None:
    with pytest.raises(ValueError, match=r"images must lie in \[0, 1\]"):
        AutoAttack(0.1).run(net, 255 * X, Y)
    with pytest.raises(ValueError, match=r"labels must be in 0..9, got labels from 7 to 10"):
        AutoAttack(0.1).run(net, X, Y + 7)
    with pytest.raises(ValueError, match="labels must be at least 0"):
        run_checks(net, X, Y - 1, attack=LinfPGD(0.1))


def test_label_beyond_the_classes_is_named() -> None:
    check_inputs(X, Y, num_classes=4)
    with pytest.raises(ValueError, match=r"labels must be in 0\.\.2, got labels from 0 to 3"):
        check_inputs(X, Y, num_classes=3)


def test_values_need_not_be_looked_at() -> None:
    check_inputs(255 * X, Y - 1, check_values=False)
    with pytest.raises(ValueError, match="labels must be int64"):
        check_inputs(X, Y.float(), check_values=False)
