from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from nasbench_at import evaluate
from nasbench_at.data import LabelledImages
from nasbench_at.evaluation.robustness import measure_robustness
from nasbench_at.evaluation.standard_attacks import standard_attacks

EPS = 0.1


@pytest.fixture(scope="module")
def digits():
    content = load_digits()
    return (content.images / 16).astype(np.float32)[:60], content.target[:60]


@pytest.fixture
def model(digits):
    """Nearest means of the classes: right on most of them, and not robust."""
    x, y = (torch.as_tensor(part) for part in digits)
    means = torch.stack([x[y == label].mean(0).flatten() for label in range(10)])
    linear = nn.Linear(64, 10)
    linear.weight.data = 2 * means
    linear.bias.data = -(means**2).sum(1)
    return nn.Sequential(nn.Flatten(), linear)


def test_arrays_and_tensors_are_measured_as_the_engine_does(digits, model):
    x, y = digits
    report = evaluate(model, x, y, eps=EPS, attacks=("fgsm", "pgd"), seed=3)
    images = torch.as_tensor(np.rint(x * 255).astype(np.uint8))[:, None]
    own = measure_robustness(
        model,
        LabelledImages(images, torch.as_tensor(y)),
        standard_attacks(("fgsm", "pgd"), eps=EPS, counts="any"),
        seed=3,
    )
    assert {name: row.num_correct for name, row in report.results.items()} == {
        name: row.num_correct for name, row in own.results.items()
    }
    assert 0 < report.results["pgd"].num_correct < report.results["natural"].num_correct
    pixels = images[:, 0].numpy()
    for other in (torch.as_tensor(x), torch.as_tensor(x)[:, None], pixels, pixels[..., None]):
        again = evaluate(model, other, torch.as_tensor(y), eps=EPS, attacks=("pgd",), seed=3)
        assert again.results["pgd"].num_correct == report.results["pgd"].num_correct


def test_part_of_the_images_is_drawn_by_the_seed(digits, model):
    x, y = digits
    parts = [
        evaluate(model, x, y, eps=EPS, attacks=(), num_images=20, seed=seed).results["natural"]
        for seed in (0, 0, 1)
    ]
    assert parts[0].subset == parts[1].subset != parts[2].subset
    assert parts[0].subset is not None
    few = evaluate(model, x, y, eps=EPS, attacks=("fgsm",), num_images=20)
    assert {row.num_samples for row in few.results.values()} == {20}


def test_report_is_a_table(digits, model):
    text = str(evaluate(model, *digits, eps=EPS, attacks=("pgd",)))
    assert text.splitlines()[0].split() == ["attack", "correct", "accuracy", "95", "%", "interval"]
    rows = [line.split()[0] for line in text.splitlines()[2:]]
    assert rows == ["natural", "pgd", "worst_case"]
    soft = evaluate(nn.Sequential(model, nn.Softmax(1)), *digits, eps=EPS, attacks=("pgd",))
    assert "warning: logits: outputs lie in" in str(soft)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attacks": ("pdg",)}, r"attacks must be .*; did you mean 'pgd'\?"),
        ({"eps": -0.1}, r"eps must be .* at least 0, .* got \(-0.1,\)"),
        ({"num_images": 61}, r"num_images must lie in 1..60, got 61"),
        ({"norm": "L1"}, r"norm must be .* got 'L1'"),
        (
            {"x": np.full((60, 8, 8), 2.0)},
            r"x must be uint8 or floats in \[0, 1\], got float64 in 2",
        ),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"x": np.zeros((60, 7, 7))}, r"the model cannot take images \(1, 7, 7\): mat1 and mat2"),
        ({"y": np.zeros(59, dtype=int)}, r"y must be integers \(60,\), one for each image"),
    ],
)
def test_bad_argument_is_one_line(digits, model, changes, message):
    x, y = digits
    with pytest.raises(ValueError, match=message) as caught:
        evaluate(**({"model": model, "x": x, "y": y, "eps": EPS} | changes))
    assert "\n" not in str(caught.value)
