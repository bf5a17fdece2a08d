from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from analysis.attention import (
    AttentionHistory,
    AttentionWeights,
    attention_distances,
    attention_entropy,
    compute_attention,
    compute_attention_history,
    draw_attention,
    draw_attention_distances,
    draw_attention_entropy,
    draw_attention_history,
)
from nasbench_at import RunConfig
from nasbench_at.config import resolve
from nasbench_at.networks.graph import build_network
from nasbench_at.networks.zoo import create_model
from nasbench_at.records import mean_interval
from nasbench_at.records.run_folders import RunFolder, create_run_folder
from nasbench_at.training.checkpoints import save_weights

BLOCKS = ("residual", "dense")


def make_run(runs_dir: Path, seed: int = 0, **changes: Any) -> tuple[RunFolder, torch.Tensor]:
    """A run with weights as its training would have left them, and its network's own weights."""
    values = {"blocks": BLOCKS, "num_modules": 3, "init_channels": 4, "widen_factor": 1}
    config = resolve(RunConfig(**{**values, **changes}, seed=seed))
    torch.manual_seed(seed)
    if config.model == "ds_net":
        network = build_network(config.architecture((1, 8, 8), 10))
    else:
        network = create_model(config.model, 10, (1, 8, 8), **config.model_options)
    folder = create_run_folder(runs_dir, config)
    save_weights(folder.best, network, {"epoch": 1})
    return folder, network.attention.weights().detach()


def group(weights: Any, name: str = "a group") -> AttentionWeights:
    array = np.asarray(weights, dtype=np.float64)
    names = tuple("abcdef"[: array.shape[2]])
    runs = tuple(f"run {i}" for i in range(len(array)))
    return AttentionWeights(name, runs, names, (names,) * array.shape[1], array)


def test_weights_are_those_of_the_networks_and_the_random_state_is_kept(tmp_path):
    runs = [make_run(tmp_path, seed) for seed in (0, 1)]
    before = torch.get_rng_state()
    found = compute_attention([runs[0][0], runs[1][0]], name="at")
    assert torch.equal(torch.get_rng_state(), before)
    expected = torch.stack([weights for _, weights in runs])
    np.testing.assert_allclose(found.weights, expected, rtol=1e-6)
    assert found.name == "at"
    assert found.blocks == BLOCKS
    assert found.modules == (BLOCKS,) * 3
    assert found.runs == tuple(folder.config.run_id for folder, _ in runs)


def test_module_without_a_block_has_nan_and_columns_are_sorted_by_name(tmp_path):
    blocks = (("residual", "dense"), ("residual", "residual"), ("mbconv",))
    folder, weights = make_run(tmp_path, blocks=blocks)
    found = compute_attention([folder])
    assert found.blocks == ("residual", "dense", "residual_2", "mbconv")
    nan = math.nan
    expected = [
        [weights[0, 0], weights[0, 1], nan, nan],
        [weights[1, 0], nan, weights[1, 1], nan],
        [nan, nan, nan, 1.0],
    ]
    np.testing.assert_allclose(found.weights[0], expected, rtol=1e-6)


def test_block_that_is_left_out_weighs_nothing(tmp_path):
    folder, _ = make_run(tmp_path, attention_keep=((0, 1), (1,), (0, 1)))
    (weights,) = compute_attention([folder]).weights
    np.testing.assert_array_equal(weights[1], [0.0, 1.0])


def test_network_by_name_may_be_a_ds_net(tmp_path):
    config = {"blocks": RunConfig().blocks, "num_modules": 15, "init_channels": 20}
    folder, weights = make_run(tmp_path, model="tiny_ds_net", **config, widen_factor=4)
    np.testing.assert_allclose(compute_attention([folder]).weights[0], weights, rtol=1e-6)


def test_run_without_attention_is_named(tmp_path):
    config = resolve(RunConfig(model="tiny_resnet"))
    folder = create_run_folder(tmp_path, config)
    for compute in (lambda run: compute_attention([run]), compute_attention_history):
        with pytest.raises(ValueError, match=f"{config.run_id}.* 'tiny_resnet' is no DS-Net"):
            compute(folder)


def test_runs_of_other_blocks_are_named(tmp_path):
    one, _ = make_run(tmp_path)
    other, _ = make_run(tmp_path, blocks=("residual", "mbconv"))
    match = "3 modules of residual, dense of .* and 3 modules of residual, mbconv of"
    with pytest.raises(ValueError, match=match):
        compute_attention([one, other])


def test_a_run_counts_once(tmp_path):
    folder, _ = make_run(tmp_path)
    with pytest.raises(ValueError, match=r"each run counts once, got 'digits-at-.*' 2 times"):
        compute_attention([folder, folder])
    with pytest.raises(ValueError, match="at least one run, got none"):
        compute_attention([])


def test_missing_or_foreign_weights_are_named(tmp_path):
    folder, _ = make_run(tmp_path)
    other, _ = make_run(tmp_path, num_modules=4)
    folder.best.write_bytes(other.best.read_bytes())
    with pytest.raises(ValueError, match=r"shape \(4, 2\), its network has \(3, 2\)"):
        compute_attention([folder])
    folder.best.unlink()
    with pytest.raises(ValueError, match=r"cannot read attention weights from .*best\.safetensors"):
        compute_attention([folder])


def test_history_is_that_of_the_metrics(tmp_path):
    folder, _ = make_run(tmp_path, blocks=(("dense",), ("residual", "dense"), ("residual",)))
    rows = [[[1.0, 0.0], [0.25, 0.75], [1.0, 0.0]], [[1.0, 0.0], [0.5, 0.5], [1.0, 0.0]]]
    folder.write_metrics([{"epoch": i + 1, "attention": row} for i, row in enumerate(rows)])
    found = compute_attention_history(folder)
    assert found.epochs.tolist() == [1, 2]
    assert found.blocks == ("dense", "residual")
    nan = math.nan
    first = [[1, nan], [0.75, 0.25], [nan, 1]]
    np.testing.assert_array_equal(found.weights[0], first)
    np.testing.assert_array_equal(found.weights[1, 1], [0.5, 0.5])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "No such file"),
        ("", "hold no epoch"),
        ('{"epoch": 1}', "no key 'attention'"),
        ("{", "Expecting property name"),
        (json.dumps({"epoch": 1, "attention": [[1.0]]}), r"shape \(1, 1\), its network has"),
    ],
)
def test_metrics_without_weights_are_named(tmp_path, text, reason):
    folder, _ = make_run(tmp_path)
    if text is not None:
        folder.metrics.write_text(text)
    with pytest.raises(ValueError, match=rf"metrics\.jsonl.*{reason}"):
        compute_attention_history(folder)


def test_entropy_has_closed_forms():
    weights = np.array([[0.25, 0.25, 0.25, 0.25], [0.5, 0.5, 0.0, math.nan], [1, 0, 0, math.nan]])
    np.testing.assert_allclose(attention_entropy(weights), [math.log(4), math.log(2), 0])
    np.testing.assert_allclose(attention_entropy(weights, normalised=True), [1, 1, math.nan])
    skew = np.array([[[0.9, 0.1]]])
    expected = -0.9 * math.log(0.9) - 0.1 * math.log(0.1)
    np.testing.assert_allclose(attention_entropy(skew), [[expected]])
    np.testing.assert_allclose(attention_entropy(skew, normalised=True), expected / math.log(2))


def test_distance_is_the_largest_difference():
    nan = math.nan
    weights = np.array(
        [[[0.5, 0.5], [1, nan]], [[0.2, 0.8], [1, nan]], [[0.6, 0.4], [1, nan]]], dtype=np.float64
    )
    expected = [[0, 0.3, 0.1], [0.3, 0, 0.4], [0.1, 0.4, 0]]
    np.testing.assert_allclose(attention_distances(weights), expected)
    weights[2, 1] = [0.5, 0.5]
    with pytest.raises(ValueError, match="same blocks in the same modules"):
        attention_distances(weights)


def test_few_seeds_are_drawn_one_by_one_and_many_with_the_interval_of_their_mean():
    few = group([[[0.2, 0.8], [0.3, 0.7]], [[0.4, 0.6], [0.5, 0.5]]], "AT")
    one = group([[[0.1, 0.9], [0.6, 0.4]]], "TRADES")
    left, right = draw_attention([few, one]).axes
    assert left.get_title() == "AT, mean over 2 seeds; hollow: each seed"
    assert right.get_title() == "TRADES, 1 seed"
    np.testing.assert_allclose(left.lines[0].get_ydata(), [0.3, 0.4])
    np.testing.assert_array_equal(left.lines[0].get_xdata(), [1, 2])
    np.testing.assert_allclose(
        [left.lines[i].get_ydata() for i in (1, 2)], [[0.2, 0.3], [0.4, 0.5]]
    )
    assert not left.collections
    assert len(right.lines) == 2
    firsts = [0.1, 0.2, 0.3, 0.4, 0.5]
    (many,) = draw_attention([group([[[w, 1 - w]] for w in firsts], "AT")]).axes
    assert many.get_title().replace("\n", " ") == "AT, mean over 5 seeds; band: 95 % interval"
    edges = many.collections[0].get_paths()[0].vertices[:, 1]
    low, high = mean_interval(firsts)
    np.testing.assert_allclose([edges.min(), edges.max()], [low, high])
    assert len(many.lines) == 2
    with pytest.raises(ValueError, match="at least one group of runs to draw, got none"):
        draw_attention([])


def test_legend_of_weights_lies_below_the_panels():
    figure = draw_attention([group([[[0.2, 0.8]]]), group([[[0.5, 0.5]]])])
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["a", "b"]
    assert all(panel.get_legend() is None for panel in figure.axes)


def test_a_block_has_one_colour_in_all_panels():
    left, right = group([[[0.2, 0.8]]]), group([[[0.5, 0.5]]])
    right = AttentionWeights("b", ("r",), ("b", "z"), (("b", "z"),), right.weights)
    panels = draw_attention([left, right]).axes
    assert panels[0].lines[1].get_color() == panels[1].lines[0].get_color()
    assert len({line.get_color() for panel in panels for line in panel.lines}) == 3


def test_entropy_figure_averages_the_runs_entropies():
    runs = group([[[0.5, 0.5], [1.0, 0.0]], [[0.9, 0.1], [0.5, 0.5]]], "AT")
    (axes,) = draw_attention_entropy([runs]).axes
    skew = attention_entropy(np.array([0.9, 0.1])) / math.log(2)
    np.testing.assert_allclose(axes.lines[0].get_ydata(), [(1 + skew) / 2, math.nan])
    assert axes.lines[0].get_label() == "AT, mean over 2 seeds; hollow: each seed"
    with pytest.raises(ValueError, match="at least one group"):
        draw_attention_entropy([])


def test_history_figure_has_a_panel_a_block_and_a_line_a_module():
    weights = np.array([[[0.5, 0.5], [0.4, 0.6]], [[0.6, 0.4], [0.3, 0.7]]])
    epochs, names = np.array([1, 2]), ("residual", "dense")
    history = AttentionHistory("a-run", epochs, names, (names, names), weights)
    figure = draw_attention_history(history)
    residual, dense, _ = figure.axes
    assert [residual.get_title(), dense.get_title()] == ["residual", "dense"]
    np.testing.assert_allclose(residual.lines[1].get_ydata(), [0.4, 0.3])
    np.testing.assert_allclose(dense.lines[0].get_ydata(), [0.5, 0.4])
    assert figure.get_suptitle() == "a-run"


def test_distances_between_runs_are_written_into_their_figure():
    weights = np.array([[[0.2, 0.8]], [[0.5, 0.5]]])
    group = AttentionWeights("g", ("a", "b"), ("x", "y"), (("x", "y"),), weights)
    axes = draw_attention_distances(group, ["one", "two"]).axes[0]
    assert [text.get_text() for text in axes.texts] == ["0.000", "0.300", "0.300", "0.000"]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["one", "two"]


def test_distances_need_two_runs():
    group = AttentionWeights("g", ("a",), ("x",), (("x",),), np.ones((1, 1, 1)))
    with pytest.raises(ValueError, match="distances need at least two runs, got 1"):
        draw_attention_distances(group, ["one"])
