from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from analysis.errors import UnsuitableRunsError
from analysis.transfer import Transfer, compute_run_transfer, compute_transfer, draw_transfer
from nasbench_at.attacks import FGSM
from tests.analysis.runs import left_as_it_was, make_run

ATTACK = FGSM(0.125)


class Brightness(nn.Module):
    """Class 1 where the mean pixel of one half is above a threshold."""

    def __init__(self, threshold=0.5, *, half=0, masked=False):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(20.0))
        self.threshold, self.half, self.masked = threshold, half, masked

    def forward(self, x):
        seen = x[:, :, :, self.half]
        if self.masked:
            # Where it counts, the gradient has the wrong sign.
            seen = (2 * seen).detach() - seen
        margin = self.scale * (seen.mean(dim=(1, 2)) - self.threshold)
        return torch.stack([-margin, margin], dim=1)


def images(*values):
    x = torch.tensor(values).view(-1, 1, 1, 1).expand(-1, 1, 2, 2).contiguous()
    return x, (torch.tensor(values) > 0.5).long()


def test_accuracy_is_by_source_and_target():
    # 0.4 and 0.6 fall to an attack of 0.125 on what looks at them; 0.25 and 0.75 do not.
    x, y = images(0.25, 0.4, 0.6, 0.75)
    models = {"left": Brightness(half=0), "right": Brightness(half=1)}
    with left_as_it_was(models["left"]), left_as_it_was(models["right"]):
        found = compute_transfer(models, x, y, ATTACK)
    assert found.names == ("left", "right")
    np.testing.assert_array_equal(found.accuracy, [[0.5, 1], [1, 0.5]])
    assert found.outcomes[0, 0].tolist() == [True, False, False, True]
    assert found.masked == []


def test_gradients_that_mislead_are_found():
    values = np.linspace(0.38, 0.62, 200)
    x, y = images(*values.tolist())
    models = {"honest": Brightness(), "masked": Brightness(masked=True)}
    found = compute_transfer(models, x, y, ATTACK)
    np.testing.assert_array_equal(found.accuracy, [[0, 0], [1, 1]])
    assert found.masked == [(0, 1)]
    frames = draw_transfer(found).axes[0].patches
    assert [(patch.get_x(), patch.get_y()) for patch in frames] == [(0.5, -0.5)]


def test_small_difference_is_no_sign_of_masking():
    def outcomes(num_own, num_carried):
        right = np.zeros((2, 2, 100), dtype=np.bool_)
        right[1, 1, :num_own], right[0, 1, :num_carried] = True, True
        return Transfer(("a", "b"), right, ATTACK.settings())

    assert outcomes(50, 45).masked == []  # p = 0.06
    assert outcomes(50, 44).masked == []  # p = 0.03, of two pairs
    assert outcomes(50, 43).masked == [(0, 1)]  # p = 0.016
    assert outcomes(43, 50).masked == []


def test_batches_are_attacked_with_numbers_of_their_own():
    x, y = images(*np.linspace(0.38, 0.62, 300).tolist())
    models = {"a": Brightness(), "b": Brightness(half=1)}
    random = FGSM(0.125, random_start=True)
    found, again, other = (compute_transfer(models, x, y, random, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(found.outcomes, again.outcomes)
    assert not np.array_equal(found.outcomes, other.outcomes)
    assert found.outcomes.shape == (2, 2, 300)


def test_figure_names_networks_and_says_that_nothing_is_masked():
    outcomes = np.ones((2, 2, 4), dtype=np.bool_)
    outcomes[0, 0, :3] = False
    figure = draw_transfer(Transfer(("a", "b"), outcomes, ATTACK.settings()))
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.texts] == ["25.0", "100.0", "100.0", "100.0"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a  1", "b  2"]
    assert axes.get_title() == "fgsm, Linf ε 0.125, 1 step, 4 images; none masked"
    assert not axes.patches


def test_bad_input_is_one_line(tmp_path):
    x, y = images(0.25, 0.75)
    with pytest.raises(ValueError, match="transfer needs at least 2 models, got 1"):
        compute_transfer({"a": Brightness()}, x, y, ATTACK)
    run = make_run(tmp_path)
    with pytest.raises(UnsuitableRunsError, match="transfer needs at least 2 runs, got 1"):
        compute_run_transfer({"a": run})
    other = make_run(tmp_path, eps=0.05)
    with pytest.raises(UnsuitableRunsError, match=r"needs runs of one eps, got 0\.031 and 0\.05"):
        compute_run_transfer({"a": run, "b": other})


def test_runs_are_attacked_by_pgd_20_on_their_test_images(tmp_path):
    runs = {str(seed): make_run(tmp_path, seed=seed) for seed in (0, 1)}
    found = compute_run_transfer(runs, num_images=10)
    assert found.outcomes.shape == (2, 2, 10)
    assert (found.attack["name"], found.attack["steps"], found.attack["eps"]) == ("pgd", 20, 0.031)
