from __future__ import annotations

import math
from itertools import combinations, permutations

import numpy as np
import pytest

from analysis.errors import IncomparableRunsError, MissingRunsError
from analysis.study_figures import compute_importance, draw_importance
from analysis.study_figures.importance import _correlate, leave_one_out, shapley_values
from analysis.study_figures.rank_correlation import spearman
from nasbench_at.cli import main
from nasbench_at.records import Benchmark
from tests.analysis.synthetic import DEPTH, FOUR, make_run

GAINS = dict(zip(FOUR, (20.0, 5.0, 10.0, 8.0), strict=True))
"""Points that each block adds to chance, 10 %, in the table of records."""


def subsets_of(players):
    sizes = range(1, len(players) + 1)
    return [frozenset(c) for size in sizes for c in combinations(players, size)]


def game(value, players="abcd"):
    return {subset: value(subset) for subset in subsets_of(players)}


# Known games


def test_additive_game_pays_each_player_its_own_value():
    own = {"a": 0.3, "b": -0.1, "c": 0.2, "d": 0.0}
    values = game(lambda subset: 0.1 + sum(own[name] for name in subset))
    found = shapley_values(values, 0.1)
    assert list(found) == ["a", "b", "c", "d"]
    assert {name: float(v) for name, v in found.items()} == pytest.approx(own)
    assert {n: float(v) for n, v in leave_one_out(values).items()} == pytest.approx(own)


@pytest.mark.parametrize("carriers", subsets_of("abcd"))
def test_unanimity_game_shares_equally_among_its_carriers(carriers):
    values = game(lambda subset: float(carriers <= subset))
    found = shapley_values(values, 0.0)
    expected = {name: (name in carriers) / len(carriers) for name in "abcd"}
    assert {name: float(v) for name, v in found.items()} == pytest.approx(expected)


def test_values_are_the_means_over_all_orders_and_add_up():
    generator = np.random.default_rng(0)
    values = game(lambda subset: generator.normal(size=3), "abcde")
    found = shapley_values(values, 0.25)
    total = np.sum([*found.values()], axis=0)
    assert np.abs(total - (values[frozenset("abcde")] - 0.25)).max() < 1e-9
    before = {**values, frozenset(): np.full(3, 0.25)}
    orders = list(permutations("abcde"))
    for player, value in found.items():
        arrivals = [frozenset(order[: order.index(player)]) for order in orders]
        steps = [before[known | {player}] - before[known] for known in arrivals]
        assert value == pytest.approx(np.mean(steps, axis=0))


@pytest.mark.parametrize("drop", ["a", "ab", "abcd"])
def test_missing_subset_is_refused(drop):
    values = game(lambda subset: 1.0)
    del values[frozenset(drop)]
    with pytest.raises(ValueError, match="every subset but the empty one of at least two blocks"):
        shapley_values(values, 0.0)
    with pytest.raises(ValueError, match="every subset but the empty one of at least two blocks"):
        leave_one_out(values)


# Records


def runs_of(subset, gains=GAINS, *, seeds=range(5), noise=0.0, **config):
    """Runs whose accuracy is chance and what each block adds, that of residual growing by seed."""
    found = []
    for seed in seeds:
        accuracy = 10 + sum(gains[name] for name in subset) + noise * seed * ("residual" in subset)
        blocks = [name for name in FOUR if name in subset]
        found.append(
            make_run(
                {"natural": 90, "pgd": accuracy},
                **{**DEPTH, "seed": seed, "blocks": blocks, **config},
            )
        )
    return found


def table(**changes):
    return [record for subset in subsets_of(FOUR) for record in runs_of(subset, **changes)]


def weights_of(records, rows):
    return {r.run_id: [rows] * 3 for r in records if len(r.config["blocks"]) == 4}


def test_importance_of_an_additive_table():
    (found,) = compute_importance(table(noise=1.0))
    assert found.blocks == ("ada_rk", "dense", "mbconv", "residual")
    assert found.baseline == 0.1
    assert found.shapley[0] == pytest.approx([0.08, 0.10, 0.05, 0.20])
    assert found.shapley[4] == pytest.approx([0.08, 0.10, 0.05, 0.24])
    assert found.leave_one_out == pytest.approx(found.shapley)
    assert found.shapley.sum(axis=1) == pytest.approx(0.43 + 0.01 * np.arange(5), abs=1e-9)
    assert found.weights is None
    assert math.isnan(found.correlation)
    assert len(found.run_ids) == 75


@pytest.mark.parametrize(
    ("rows", "correlation"),
    # Columns as the network has them.
    [((0.4, 0.1, 0.3, 0.2), 1.0), ((0.1, 0.4, 0.2, 0.3), -1.0)],
)
def test_weights_are_ranked_against_the_values(rows, correlation):
    records = table(noise=1.0)
    (found,) = compute_importance(records, weights=weights_of(records, rows))
    assert found.weights[0] == pytest.approx([rows[FOUR.index(name)] for name in found.blocks])
    assert found.correlation == pytest.approx(correlation)
    assert found.interval == pytest.approx((correlation, correlation))


def test_interval_of_the_correlation_is_that_over_seeds():
    """The weights of two of five seeds are the reverse of the others'."""
    records = table()
    weights = weights_of(records, (0.4, 0.1, 0.3, 0.2))
    for record in records:
        if record.config["seed"] < 2 and record.run_id in weights:
            weights[record.run_id] = [(0.1, 0.4, 0.2, 0.3)] * 3
    (found,) = compute_importance(records, weights=weights)
    assert found.correlation == pytest.approx(1.0)
    low, high = found.interval
    assert low == pytest.approx(-1.0)
    assert high == pytest.approx(1.0)


def test_values_that_are_all_equal_have_no_correlation():
    weights = np.random.default_rng(0).random((5, 4))
    found, interval = _correlate(weights, np.zeros((5, 4)))
    assert np.isnan([found, *interval]).all()


@pytest.mark.parametrize("num_seeds", [3, 5, 10])
@pytest.mark.parametrize("noise", [0.3, 1.5])
def test_interval_of_the_correlation_covers_the_true_one(num_seeds, noise):
    """Six blocks, of which each seed sees weight and value with noise."""
    generator = np.random.default_rng(num_seeds)
    covered = []
    for _ in range(100):
        weights, values = generator.normal(size=(2, 6))
        values -= 0.5 * weights
        truth = spearman(weights[None], values[None])[0]
        noisy = np.stack([weights, values])[:, None] + noise * generator.normal(
            size=(2, num_seeds, 6)
        )
        _, (low, high) = _correlate(*noisy)
        assert -1 <= low <= high <= 1
        covered.append(low - 1e-9 <= truth <= high + 1e-9)
    assert np.mean(covered) >= 0.9


def test_only_seeds_of_all_subsets_count():
    records = [
        record
        for record in table()
        if record.config["seed"] < 3 or record.config["blocks"] != ["dense"]
    ]
    (found,) = compute_importance(records)
    assert found.seeds == (0, 1, 2)


def test_what_is_missing_is_said():
    records = [r for r in table() if r.config["blocks"] != ["dense"]]
    with pytest.raises(MissingRunsError, match="ada_rk, dense, mbconv, residual there are 14 of"):
        compute_importance(records)
    with pytest.raises(MissingRunsError, match="no set of which a subset was trained alike"):
        compute_importance(runs_of(frozenset(FOUR)))
    others = [r for r in table() if (r.config["seed"] == 0) == (r.config["blocks"] == ["dense"])]
    with pytest.raises(MissingRunsError, match="there are 15 of 15 sets, 0 seeds of all of them"):
        compute_importance(others)


def test_networks_of_other_sizes_or_images_are_refused():
    rest = [r for r in table() if r.config["blocks"] != ["dense"]]
    large = runs_of(frozenset({"dense"}), num_params=1_200_000)
    with pytest.raises(
        MissingRunsError, match=r"at equal parameters \(within 10 %\).* are 14 of 15"
    ):
        compute_importance(rest + large)
    other = runs_of(frozenset({"dense"}), fingerprint="other")
    with pytest.raises(IncomparableRunsError, match="differ in data_fingerprint"):
        compute_importance(rest + other)


def test_chance_needs_the_number_of_classes():
    records = [
        make_run({"natural": 90, "pgd": 50}, **DEPTH, blocks=blocks)
        for blocks in (["residual"], ["dense"], ["residual", "dense"])
    ]
    unknown = [type(r)(**{**vars(r), "architecture": "f" * 16}) for r in records]
    with pytest.raises(MissingRunsError, match="number of classes of 'digits' is not known"):
        compute_importance(unknown)


def test_options_of_a_block_and_ways_of_training_are_not_mixed():
    """With and without norms of its own, ada_rk is another block; dense alone is of both sets."""
    pairs = [{"dense", "ada_rk"}, {"dense"}]
    records = [r for pair in pairs for r in runs_of(pair)] + runs_of({"ada_rk"})
    own = {"block_options": {"ada_rk": {"separate_norms": True}}}
    for subset in ({"dense", "ada_rk"}, {"ada_rk"}):
        records += runs_of(subset, {**GAINS, "ada_rk": 18.0}, **own)
    records += [r for s in subsets_of(["dense", "ada_rk"]) for r in runs_of(s, epochs=7)]
    shared, separate, longer = compute_importance(records)
    assert shared.shapley[0] == pytest.approx([0.08, 0.10])
    assert separate.shapley[0] == pytest.approx([0.18, 0.10])
    assert "separate_norms" in separate.setting
    assert "--epochs 7" in longer.setting


def test_figure_has_weights_where_they_are_known():
    records = table(noise=1.0)
    figure = draw_importance(compute_importance(records))
    (axes,) = figure.axes
    assert "add up to the full set's accuracy minus chance (10%)" in " ".join(
        axes.get_title().split()
    )
    weights = weights_of(records, (0.4, 0.1, 0.3, 0.2))
    left, right = draw_importance(compute_importance(records, weights=weights)).axes
    assert [label.get_text() for label in left.get_xticklabels()] == sorted(FOUR)
    assert "over 4 blocks: 1.00, 95 % interval" in " ".join(right.get_title().split())


def test_figure_says_which_records_lack_weights():
    records = table()
    longer = [r for s in subsets_of(FOUR) for r in runs_of(s, epochs=7)]
    found = compute_importance(records + longer, weights=weights_of(records, (0.4, 0.1, 0.3, 0.2)))
    axes = draw_importance(found).axes
    assert axes[3].get_title() == "attention weights are not in these records"


def test_figure_is_drawn_from_a_table(tmp_path):
    Benchmark(table()).save(tmp_path / "all.jsonl")
    out = tmp_path / "importance.png"
    assert main(["figure", "importance", str(tmp_path / "all.jsonl"), "--out", str(out)]) == 0
    assert out.stat().st_size > 10_000
