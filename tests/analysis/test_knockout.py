from __future__ import annotations

import numpy as np
import pytest
import torch

from analysis.errors import UnsuitableRunsError
from analysis.knockout import _mask, _recalibrate, compute_run_knockout, draw_knockout
from analysis.run_images import first_images
from nasbench_at.config.architecture import architecture_of
from tests.analysis.runs import left_as_it_was, make_run


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path, blocks=("dense", "residual", "mbconv"))


def masked(run, name):
    return _mask(run, architecture_of(run.config.to_dict()), name)


def test_nothing_masked_is_the_network_itself(run):
    images, _ = first_images(run, "test", 8)
    assert torch.equal(masked(run, None)(images), run.network(images))


def test_others_share_the_weight_of_a_masked_block(run):
    whole = run.network.attention.weights()
    blocks = architecture_of(run.config.to_dict()).blocks[0]
    column = blocks.index("residual")
    expected = whole.clone()
    expected[:, column] = 0
    expected /= expected.sum(dim=1, keepdim=True)
    found = masked(run, "residual").attention.weights()
    assert torch.allclose(found, expected)
    assert (found[:, column] == 0).all()


def test_block_that_is_alone_in_a_module_stays(tmp_path):
    sets = (("residual", "dense"), ("residual",), ("residual", "dense"))
    run = make_run(tmp_path, blocks=sets)
    found = masked(run, "residual").attention.weights()
    assert found.sum(dim=1).tolist() == pytest.approx([1, 1, 1])
    assert found[1, 0] == 1
    assert (found[::2] == torch.eye(2)[1]).all() or (found[::2] == torch.eye(2)[0]).all()


def test_new_statistics_are_those_of_the_images(run):
    """What a norm of a block in the first module sees is the stem's output."""
    model = masked(run, "mbconv")
    images, labels = first_images(run, "train", 64)
    with torch.no_grad():
        mean = model.stem(images).mean(dim=(0, 2, 3))
    norms = [m for m in model.stages[0].modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for norm in norms:
        torch.nn.init.constant_(norm.running_mean, 100.0)
    _recalibrate(model, images, labels, None, 0)
    assert not model.training
    close = [
        len(norm.running_mean) == len(mean) and (norm.running_mean - mean).abs().max() < 1
        for norm in norms
    ]
    assert any(close)  # of 100 there is 0.5 left


def test_losses_are_paired_differences_of_accuracies(run):
    with left_as_it_was(run.network):
        found = compute_run_knockout(run, num_images=24)
    assert sorted(found.blocks) == ["dense", "mbconv", "residual"]
    assert found.losses.shape == found.low.shape == (2, 3)
    assert (found.low <= found.losses).all()
    assert (found.losses <= found.high).all()
    assert np.allclose(found.losses * 24, np.round(found.losses * 24))
    assert (np.array(found.accuracies)[:, None] - found.losses >= 0).all()
    again = compute_run_knockout(run, num_images=24)
    assert np.array_equal(again.losses, found.losses)


def test_figure_names_blocks_attack_and_images(run):
    found = compute_run_knockout(run, num_images=16)
    (axes,) = draw_knockout(found).axes
    assert [label.get_text() for label in axes.get_xticklabels()] == list(found.blocks)
    assert "16 images, 95 % intervals" in " ".join(axes.get_title().split())


def test_other_networks_are_refused(tmp_path):
    with pytest.raises(UnsuitableRunsError, match="a network of 'residual' alone"):
        compute_run_knockout(make_run(tmp_path, blocks=("residual",)))
