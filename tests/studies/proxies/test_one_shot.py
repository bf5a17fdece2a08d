from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
import torch
from torch import nn

from nasbench_at import Architecture, RunConfig, build_network
from nasbench_at.config import resolve
from nasbench_at.networks.ds_net import DSNet
from nasbench_at.training.launch import load_config_data
from studies.proxies import OneShot, train_one_shot
from studies.proxies.one_shot import _draw_subsets
from tests.nasbench_at.conftest import tiny_config
from tests.studies.proxies.test_comparison import compare, make_table

CPU = torch.device("cpu")


@pytest.fixture
def shot():
    torch.manual_seed(0)
    network = build_network(
        Architecture(
            blocks=("residual", "mbconv", "dense"),
            num_modules=3,
            init_channels=4,
            widen_factor=1,
            num_classes=4,
            input_shape=(1, 8, 8),
        )
    )
    network.train()(torch.rand(64, 1, 8, 8))
    with torch.no_grad():
        network.attention.logits.normal_()
    return OneShot(network.eval())


def test_subset_is_the_network_of_these_blocks(shot):
    x = torch.rand(5, 1, 8, 8)
    network = shot.network
    whole = network(x)
    with shot.subset((0, 2)) as part:
        assert part is network
        weights = part.attention.weights()
        found = part(x)
        features = part.stem(x)
        first = part.stages[0]
        expected = sum(weights[0, i] * first.blocks[i](features) for i in (0, 2))
        torch.testing.assert_close(first(features, weights[0]), expected)
    assert weights[:, 1].tolist() == [0, 0, 0]
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(3))
    assert not torch.allclose(found, whole)
    torch.testing.assert_close(network(x), whole)


def test_blocks_that_take_no_part_get_no_gradient(shot):
    with shot.subset((1,)) as part:
        part.train()(torch.rand(4, 1, 8, 8)).sum().backward()
    for module in (stage for stage in part.stages if hasattr(stage, "blocks")):
        for number, block in enumerate(module.blocks):
            has_gradient = any(p.grad is not None for p in block.parameters())
            assert has_gradient == (number == 1)


def test_everything_takes_part_again_after_a_failure(shot):
    with pytest.raises(RuntimeError, match="stop"), shot.subset((0,)):
        raise RuntimeError("stop")
    assert (shot.network.attention.weights() > 0).all()


def test_score_renews_the_statistics_of_the_norms(shot):
    config = resolve(tiny_config(blocks=("residual", "mbconv", "dense")))
    data = load_config_data(config, CPU)
    first = shot.score((0, 1), data, config)
    assert first < 0  # minus a cross entropy
    for module in shot.network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean += 5
    assert shot.score((0, 1), data, config) == first
    assert shot.score((0,), data, config) != first
    momenta = {m.momentum for m in shot.network.modules() if isinstance(m, nn.BatchNorm2d)}
    assert momenta == {0.1}


def test_draws_are_what_they_are_called():
    def count(draws, number=6000):
        subsets = _draw_subsets(4, draws, np.random.default_rng(0))
        return Counter(len(s) for s in itertools.islice(subsets, number))

    assert count("subset")[2] == pytest.approx(6000 * 6 / 15, rel=0.1)
    assert all(found == pytest.approx(1500, rel=0.1) for found in count("size").values())
    assert count("sandwich")[4] == pytest.approx(2000 * (1 + 1 / 15), rel=0.1)
    assert count("sandwich")[1] == pytest.approx(2000 * (1 + 4 / 15), rel=0.1)


def test_training_repeats_by_its_seed_and_moves_every_block():
    config = resolve(tiny_config(blocks=("residual", "mbconv")))
    data = load_config_data(config, CPU)
    seen = []
    trained = [
        train_one_shot(config, data, CPU, epochs=2, draws="size", on_epoch=seen.append)
        for _ in range(2)
    ]
    assert seen == [1, 2, 1, 2]
    states = [shot.network.state_dict() for shot, _ in trained]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert trained[0][1].epochs == 2
    untrained = train_one_shot(config, data, CPU, epochs=1, draws="size")[0].network.state_dict()
    moved = {
        name.split(".")[3]
        for name, value in states[0].items()
        if ".blocks." in name and not torch.equal(value, untrained[name])
    }
    assert moved == {"0", "1"}


def test_batches_have_blocks_of_their_own(monkeypatch):
    config = resolve(tiny_config(blocks=("residual", "mbconv")))
    forward, seen = DSNet.forward, set()

    def watched(self, x):
        seen.update(stage.active for stage in self.stages if hasattr(stage, "active"))
        return forward(self, x)

    monkeypatch.setattr(DSNet, "forward", watched)
    train_one_shot(config, load_config_data(config, CPU), CPU, epochs=4, draws="subset")
    assert seen == {(True, True), (True, False), (False, True)}


def test_one_shot_needs_a_ds_net_of_equal_modules():
    config = RunConfig(data="stripes", model="resnet18")
    data = load_config_data(resolve(tiny_config()), CPU)
    with pytest.raises(ValueError, match="one-shot training needs a DS-Net, got 'resnet18'"):
        train_one_shot(config, data, CPU, epochs=1)


def test_one_shot_refuses_extra_data_rather_than_leave_them_out():
    config = tiny_config(extra_data="generated.npz")
    data = load_config_data(resolve(tiny_config()), CPU)
    with pytest.raises(ValueError, match=r"knows no extra data, got 'generated\.npz'"):
        train_one_shot(config, data, CPU, epochs=1)


def test_comparison_takes_one_shot_training():
    with pytest.raises(ValueError, match="needs a table of subsets of the blocks of one of its"):
        compare(make_table(), scores={}, one_shot=("subset",), one_shot_epochs=1)
    table = make_table().filter(lambda record: list(record.config["blocks"]) != ["mbconv"])
    found = compare(table, scores={}, one_shot=("subset", "size"), one_shot_epochs=1)
    names = set(found.frame["proxy"]) - {"1 epoch", "2 epochs", "3 epochs"}
    assert names == {"one-shot, subset", "one-shot, size"}
