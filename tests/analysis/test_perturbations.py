from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from analysis.attack_steps import (
    compute_attack_steps,
    compute_run_attack_steps,
    draw_attack_steps,
)
from analysis.confusion import (
    ConfusionMatrix,
    compute_confusion,
    compute_run_confusion,
    draw_class_accuracy,
    draw_confusion,
)
from analysis.perturbations import (
    compute_perturbations,
    compute_run_perturbations,
    draw_perturbations,
)
from analysis.style import INK
from nasbench_at.attacks import FGSM, LinfPGD
from nasbench_at.records import wilson_interval
from tests.analysis.runs import left_as_it_was, make_run

ATTACK = FGSM(0.125)
SETTINGS = {"name": "pgd", "norm": "Linf", "eps": 0.1, "steps": 10}


class Brightness(nn.Module):
    """Class 1 where the mean pixel is above ½, class 0 below; the third class never."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(20.0))

    def forward(self, x):
        margin = self.scale * (x.mean(dim=(1, 2, 3)) - 0.5)
        return torch.stack([-margin, margin, torch.full_like(margin, -100.0)], dim=1)


def flat_images(*values):
    return torch.tensor(values).view(-1, 1, 1, 1).expand(-1, 1, 2, 2).contiguous()


IMAGES = flat_images(0.25, 0.4375, 0.5625, 0.75)
LABELS = torch.tensor([0, 0, 1, 1])


@pytest.fixture
def model():
    return Brightness()


def sigmoid(value):
    return 1 / (1 + np.exp(-value))


def test_images_move_by_eps_and_predictions_with_them(model):
    with left_as_it_was(model):
        found = compute_perturbations(model, IMAGES, LABELS, ATTACK)
    moves = np.array([1, 1, -1, -1]).reshape(-1, 1, 1, 1) / 8
    np.testing.assert_array_equal(found.difference, np.broadcast_to(moves, IMAGES.shape))
    np.testing.assert_array_equal(found.images, IMAGES.numpy())
    assert found.natural_prediction.tolist() == [0, 0, 1, 1]
    assert found.adversarial_prediction.tolist() == [0, 1, 0, 1]
    expected = [sigmoid(40 * distance) for distance in (0.25, 0.0625, 0.0625, 0.25)]
    np.testing.assert_allclose(found.natural_confidence, expected, rtol=1e-5)
    expected = [sigmoid(40 * distance) for distance in (0.125, 0.0625, 0.0625, 0.125)]
    np.testing.assert_allclose(found.adversarial_confidence, expected, rtol=1e-5)
    assert found.attack["eps"] == 0.125


def test_figure_shows_images_difference_and_confidence(model):
    found = compute_perturbations(model, IMAGES, LABELS, ATTACK)
    figure = draw_perturbations(found)
    axes = np.array(figure.axes).reshape(3, 4)
    assert axes[0, 0].get_title() == "0 100%"
    assert axes[1, 1].get_title() == "1 92%"
    assert axes[1, 1].title.get_color() != INK
    assert axes[1, 0].title.get_color() == INK
    assert axes[2, 3].get_xlabel() == "true: 1"
    # A move of 1/8, the largest there is, is drawn as white or black.
    assert axes[2, 0].images[0].get_array().max() == 1
    assert axes[2, 3].images[0].get_array().max() == 0
    assert figure.get_suptitle() == "fgsm, Linf ε 0.125, 1 step; difference times 4"


def test_colour_images_are_drawn_and_others_refused(model):
    found = compute_perturbations(model, IMAGES.expand(-1, 3, -1, -1), LABELS, FGSM(0.0))
    figure = draw_perturbations(found)
    assert figure.axes[0].images[0].get_array().shape == (2, 2, 3)
    assert (figure.axes[8].images[0].get_array() == 0.5).all()
    found = compute_perturbations(model, IMAGES.expand(-1, 2, -1, -1), LABELS, ATTACK)
    with pytest.raises(ValueError, match="must have 1 or 3 channels to be drawn, got 2"):
        draw_perturbations(found)


@pytest.mark.parametrize("batch_size", [1, 3, 128])
def test_predictions_are_counted_by_true_class(model, batch_size):
    with left_as_it_was(model):
        natural = compute_confusion(model, IMAGES, LABELS, batch_size=batch_size)
        attacked = compute_confusion(model, IMAGES, LABELS, ATTACK, batch_size=batch_size)
    assert natural.counts.tolist() == [[2, 0, 0], [0, 2, 0], [0, 0, 0]]
    assert natural.attack == {}
    assert attacked.counts.tolist() == [[1, 1, 0], [1, 1, 0], [0, 0, 0]]
    assert attacked.attack["name"] == "fgsm"
    assert (natural.accuracy, attacked.accuracy) == (1.0, 0.5)


MATRIX = ConfusionMatrix(np.array([[3, 1, 0], [2, 6, 2], [0, 0, 0]]), SETTINGS)


def test_accuracy_of_a_class_has_an_interval_and_is_nan_without_images():
    np.testing.assert_allclose(MATRIX.class_accuracy, [0.75, 0.6, np.nan])
    np.testing.assert_allclose(MATRIX.class_intervals[1], wilson_interval(6, 10))
    assert np.isnan(MATRIX.class_intervals[2]).all()
    assert MATRIX.accuracy == pytest.approx(9 / 14)
    assert MATRIX.class_sizes.tolist() == [4, 10, 0]


def test_confusion_is_drawn_with_its_counts():
    (axes,) = draw_confusion(MATRIX).axes
    assert [text.get_text() for text in axes.texts] == ["3", "1", "2", "6", "2"]
    np.testing.assert_allclose(axes.images[0].get_array()[1], [0.2, 0.6, 0.2])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["0", "1", "2"]
    assert axes.get_title() == "pgd, Linf ε 0.1, 10 steps, 14 images, accuracy 64.3%"


def test_class_accuracies_are_drawn_side_by_side():
    clean = ConfusionMatrix(np.array([[4, 0, 0], [1, 9, 0], [0, 0, 0]]), {})
    (axes,) = draw_class_accuracy([clean, MATRIX]).axes
    heights = [bar.get_height() for bar in axes.patches]
    np.testing.assert_allclose(heights, [1, 0.9, np.nan, 0.75, 0.6, np.nan])
    assert axes.get_title() == "14 images"


def test_class_accuracies_of_different_images_are_refused():
    other = ConfusionMatrix(np.eye(3, dtype=np.int64), {})
    with pytest.raises(ValueError, match="must be of the same images, got 2 different sets"):
        draw_class_accuracy([MATRIX, other])


def test_labels_the_model_has_no_class_for_are_refused(model):
    with pytest.raises(ValueError, match=r"labels must be in 0\.\.2, got labels from 0 to 3"):
        compute_confusion(model, IMAGES, torch.tensor([0, 0, 1, 3]))
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        compute_confusion(model, IMAGES, LABELS, batch_size=0)


def test_accuracy_falls_with_the_steps_until_the_ball_is_reached(model):
    # Steps of 1/16 from 1/4 and 1/16 away on both sides; on the line itself it is class 0.
    attack = LinfPGD(0.3125, step_size=0.0625, start="none", steps=1)
    with left_as_it_was(model):
        found = compute_attack_steps(model, IMAGES, LABELS, attack, steps=(1, 2, 5, 9))
    assert found.steps.tolist() == [0, 1, 2, 5, 9]
    assert found.accuracy.tolist() == [1.0, 0.75, 0.5, 0.0, 0.0]
    np.testing.assert_allclose(found.low[2], wilson_interval(2, 4)[0])
    np.testing.assert_allclose(found.high[2], wilson_interval(2, 4)[1])
    assert found.num_samples == 4
    assert "steps" not in found.attack


@pytest.mark.parametrize("steps", [(), (0, 1), (2, 2), (5, 1)])
def test_steps_that_do_not_grow_are_refused(model, steps):
    with pytest.raises(ValueError, match="steps must be at least 1 and ascending, got"):
        compute_attack_steps(model, IMAGES, LABELS, LinfPGD(0.1), steps=steps)


def test_steps_are_drawn_with_the_natural_accuracy(model):
    found = compute_attack_steps(model, IMAGES, LABELS, LinfPGD(0.125, start="none"), steps=(1, 4))
    (axes,) = draw_attack_steps(found).axes
    assert axes.lines[0].get_xdata().tolist() == [0, 1, 4]
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), found.accuracy)
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "1", "4"]
    assert axes.get_title() == "pgd, Linf ε 0.125, 4 images"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs"), blocks=("plain_conv",), eps=0.25)


def test_run_is_attacked_on_its_test_images(run):
    found = compute_run_perturbations(run, num_images=3)
    assert found.images.shape == (3, 1, 8, 8)
    assert found.labels.tolist() == [0, 1, 2]
    assert found.attack["eps"] == 0.25
    assert 0 < np.abs(found.difference).max() <= 0.25 + 1e-6


def test_run_has_a_confusion_matrix_and_a_curve_over_steps(run):
    natural = compute_run_confusion(run, natural=True)
    attacked = compute_run_confusion(run)
    assert natural.class_sizes.tolist() == attacked.class_sizes.tolist() == [6, 6, 6, 6]
    assert (natural.attack, attacked.attack["steps"]) == ({}, 10)
    curve = compute_run_attack_steps(run, steps=(1, 10))
    assert curve.accuracy[0] == natural.accuracy
    assert curve.accuracy[2] == attacked.accuracy
