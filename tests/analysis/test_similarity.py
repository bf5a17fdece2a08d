from __future__ import annotations

import numpy as np
import pytest
import torch

from analysis.errors import UnsuitableRunsError
from analysis.similarity import (
    BlockSimilarity,
    ModuleSimilarity,
    compute_run_similarity,
    compute_similarity,
    draw_similarity,
    linear_cka,
)
from nasbench_at import Architecture, AttentionSpec, build_network
from nasbench_at.attacks import FGSM
from tests.analysis.runs import left_as_it_was, make_run

ATTACK = FGSM(0.1)


def make_network(blocks=("residual", "residual", "mbconv"), **changes):
    torch.manual_seed(0)
    architecture = Architecture(
        blocks=blocks,
        num_modules=3,
        init_channels=4,
        widen_factor=1,
        num_classes=4,
        input_shape=(1, 8, 8),
        **changes,
    )
    network = build_network(architecture)
    network.train()(torch.rand(32, 1, 8, 8))
    return network.eval()


@pytest.fixture
def batch():
    torch.manual_seed(1)
    return torch.rand(12, 1, 8, 8), torch.randint(4, (12,))


def test_cka_is_that_of_its_definition():
    first, second = torch.randn(20, 5), torch.randn(20, 3, 2)
    x, y = (f.flatten(1).double() - f.flatten(1).double().mean(dim=0) for f in (first, second))
    expected = (y.T @ x).norm() ** 2 / ((x.T @ x).norm() * (y.T @ y).norm())
    assert linear_cka(first, second) == pytest.approx(float(expected))
    assert 0 < linear_cka(first, second) < 1


def test_cka_does_not_see_rotation_scale_or_shift_but_sees_stretching():
    x = torch.randn(30, 4, dtype=torch.float64)
    rotation = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64)).Q
    assert linear_cka(x, 3 * x @ rotation + 7) == pytest.approx(1)
    assert linear_cka(x, x * torch.tensor([1, 1, 1, 100])) < 0.9


def test_cka_of_uncorrelated_features_is_zero_and_of_a_constant_unknown():
    columns = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    assert linear_cka(columns[:, :1], columns[:, 1:]) == pytest.approx(0)
    assert np.isnan(linear_cka(columns, torch.ones(4, 2)))


def test_blocks_of_equal_weights_are_alike(batch):
    network = make_network()
    for stage in network.stages:
        if hasattr(stage, "blocks"):
            stage.blocks[1].load_state_dict(stage.blocks[0].state_dict())
    with left_as_it_was(network):
        found = compute_similarity(network, *batch, ATTACK)
    assert found.num_images == 12
    assert [module.blocks for module in found.modules] == [("residual", "residual", "mbconv")] * 3
    for module in found.modules:
        for values in (module.clean, module.attacked):
            np.testing.assert_allclose(np.diag(values), 1)
            np.testing.assert_allclose(values, values.T)
            assert values[0, 1] == pytest.approx(1)
            assert 0 < values[0, 2] < 1 - 1e-5
        assert np.abs(module.clean - module.attacked).max() > 1e-7
    assert not any(module._forward_hooks for module in network.modules())


def test_similarity_is_that_of_the_blocks_outputs(batch):
    network = make_network(("residual", "mbconv"))
    x, _ = batch
    with torch.no_grad():
        features = network.stem(x)
        first, second = (block(features) for block in network.stages[0].blocks)
    found = compute_similarity(network, *batch, ATTACK)
    assert found.modules[0].clean[0, 1] == pytest.approx(linear_cka(first, second), rel=1e-5)


def test_block_that_takes_no_part_is_left_out(batch):
    spec = AttentionSpec(keep=((0, 2), (0, 1, 2), (1,)))
    found = compute_similarity(make_network(attention=spec), *batch, ATTACK)
    assert [len(module.blocks) for module in found.modules] == [2, 3, 1]


def test_bad_input_is_one_line(batch):
    x, y = batch
    with pytest.raises(ValueError, match="model must be a DS-Net, got a Linear"):
        compute_similarity(torch.nn.Linear(2, 2), x, y, ATTACK)
    with pytest.raises(ValueError, match="similarity needs at least 2 images, got 1"):
        compute_similarity(make_network(), x[:1], y[:1], ATTACK)


def test_run_is_compared_on_its_test_images(tmp_path):
    found = compute_run_similarity(make_run(tmp_path), num_images=16)
    assert found.num_images == 16
    assert found.attack["name"] == "pgd"
    lonely = make_run(tmp_path, blocks=("residual",), attention_init=None)
    with pytest.raises(UnsuitableRunsError, match="needs a module of at least two blocks"):
        compute_run_similarity(lonely, num_images=16)


def test_figure_shows_means_by_pair_and_by_module():
    nan = np.nan
    first = ModuleSimilarity(("a", "b"), np.array([[1, 0.2], [0.2, 1]]), np.eye(2))
    second = ModuleSimilarity(
        ("b", "a", "c"),
        np.array([[1, 0.4, 0.6], [0.4, 1, nan], [0.6, nan, nan]]),
        np.eye(3),
    )
    figure = draw_similarity(BlockSimilarity((first, second), 9, ATTACK.settings()))
    clean, attacked, lines = figure.axes
    texts = {text.get_position(): text.get_text() for text in clean.texts}
    assert texts == {
        (0, 0): "1.00",
        (1, 1): "1.00",
        (1, 0): "0.30",
        (0, 1): "0.30",
        (2, 1): "0.60",
        (1, 2): "0.60",
    }
    assert [label.get_text() for label in attacked.get_xticklabels()] == ["a", "b", "c"]
    drawn = {line.get_label(): line.get_ydata() for line in lines.lines}
    np.testing.assert_allclose(drawn["clean"], [0.2, 0.5])
    np.testing.assert_allclose(drawn["attacked"], [0, 0])
