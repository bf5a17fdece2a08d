from __future__ import annotations

import math
import re
from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from analysis.errors import IncomparableRunsError
from analysis.study_figures import (
    compute_block_ensemble,
    compute_block_space,
    compute_co_occurrence,
    compute_initialization,
    compute_learning_curves,
    compute_pareto,
    compute_rank_correlation,
    compute_reliability,
    draw_block_ensemble,
    draw_block_space,
    draw_co_occurrence,
    draw_initialization,
    draw_learning_curves,
    draw_pareto,
    draw_rank_correlation,
    draw_reliability,
)
from analysis.tables import MissingRunsError
from nasbench_at.records import measure_reliability
from tests.analysis.synthetic import DEPTH, FOUR, make_run


def net(natural, pgd, **config):
    return make_run({"natural": natural, "pgd": pgd}, **{**DEPTH, **config})


def labels_of(axes):
    return [label.get_text().replace("\n", " ") for label in axes.get_xticklabels()]


# Block space, Fig. 6


def block_space_runs():
    """The more blocks, the better; and one DS-Net of each other kind, which must not count."""
    runs = [
        net(70 + 5 * size, 40 + 5 * size + i, blocks=blocks, init_channels=40 // size)
        for size in range(1, 5)
        for i, blocks in enumerate(combinations(FOUR, size))
    ]
    others = [{"attention": "fixed"}, {"attention_init": "uniform"}, {"weight_decay": 3e-4}]
    others.append({"attention_init_options": {"std": 25.0}})
    return runs + [net(99, 99, **changes) for changes in others]


def test_block_space_averages_the_sets_of_a_size():
    space = compute_block_space(block_space_runs())
    assert [len(blocks) for blocks in space.subsets] == [1] * 4 + [2] * 6 + [3] * 4 + [4]
    assert space.sizes == (1, 2, 3, 4)
    assert [item.mean for item in space.natural] == pytest.approx([0.75, 0.80, 0.85, 0.90])
    assert [item.mean for item in space.robust] == pytest.approx([0.465, 0.525, 0.565, 0.60])
    pairs = space.robust[1]
    assert sorted(pairs.values) == pytest.approx([0.50, 0.51, 0.52, 0.53, 0.54, 0.55])
    half = stats.t.ppf(0.975, 5) * np.std(pairs.values, ddof=1) / math.sqrt(6)
    assert pairs.interval == pytest.approx((pairs.mean - half, pairs.mean + half))
    assert space.robust[2].interval is None  # of four sets there are the four
    assert space.robust[3].interval is None  # nor is there a spread of one set
    low, high = space.subsets[
        tuple(sorted(FOUR))
    ].robust.interval  # whose one run has the interval of its images
    assert low < 0.60 < high
    assert space.setting == "digits, AT, PGD-20 at ε = 0.1, 10,000 images"


def test_block_space_averages_seeds_before_sets():
    runs = [net(80, pgd, blocks=FOUR[:2], seed=seed) for seed, pgd in enumerate((40, 50, 60))]
    runs.append(net(80, 70, blocks=FOUR[2:]))
    space = compute_block_space(runs)
    assert space.robust[0].mean == pytest.approx((0.5 + 0.7) / 2)


def test_seeds_of_a_lone_set_are_no_sets():
    runs = [net(80, 50 + seed, blocks=FOUR, seed=seed) for seed in range(6)]
    runs += [net(80, 40 + i, blocks=pair) for i, pair in enumerate(combinations(FOUR, 2))]
    space = compute_block_space(runs)
    lone = space.robust[-1]
    assert (lone.values, lone.interval) == ((pytest.approx(0.525),), None)
    assert len(lone.run_ids) == 6
    sizes, _ = draw_block_space(space).axes
    of_four = [line for line in sizes.lines if len(line.get_xdata()) and line.get_xdata()[0] > 0.5]
    assert [line.get_xdata().size for line in of_four] == [1, 1]  # robust and natural, no bars
    title = " ".join(sizes.get_title().split())
    assert title == "mean over 1 to 6 block sets; bar: 95 % interval from 5 block sets on"


def test_block_space_is_drawn_by_size_and_by_set():
    sizes, sets = draw_block_space(compute_block_space(block_space_runs())).axes
    assert labels_of(sizes) == ["1 (4)", "2 (6)", "3 (4)", "4 (1)"]
    assert len(sets.get_yticks()) == 15
    assert sets.get_yticklabels()[-1].get_text() == "ada_rk + dense + mbconv + residual"


def test_block_space_needs_two_sets():
    with pytest.raises(MissingRunsError, match="needs DS-Nets of two block sets, got 1"):
        compute_block_space([net(80, 40)])
    with pytest.raises(MissingRunsError, match="none of 1 records is one"):
        compute_block_space([make_run(None)])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 5}, "trained alike, but epochs is 20 in run"),
        ({"num_modules": 4}, "compares networks of one depth, got 3 modules ("),
        ({"data": "cifar10"}, "trained alike, but data is 'digits' in run"),
    ],
)
def test_block_space_of_different_settings_is_refused(changes, message):
    runs = [net(80, 40), net(80, 40, blocks=FOUR[:2], **changes)]
    with pytest.raises(ValueError, match=re.escape(message)):
        compute_block_space(runs)


def test_two_widths_of_one_set_are_no_mean():
    runs = [net(80, 40), net(80, 40, blocks=FOUR[:2]), net(80, 40, init_channels=9)]
    with pytest.raises(ValueError, match="have the same seed and differ in init_channels"):
        compute_block_space(runs)


def test_two_widths_of_one_set_are_no_seeds_of_a_mean():
    runs = [net(80, 40), net(80, 40, blocks=FOUR[:2]), net(80, 40, init_channels=9, seed=1)]
    message = "would be seeds of one number, but init_channels is 6 and 9; choose runs of one value"
    with pytest.raises(IncomparableRunsError, match=message):
        compute_block_space(runs)


def test_block_space_says_so_where_parameters_are_not_equal():
    runs = [net(80, 40), net(80, 40, blocks=FOUR[:2], num_params=1_100_000)]
    assert compute_block_space(runs).setting == "digits, AT, PGD-20 at ε = 0.1, 10,000 images"
    runs.append(net(80, 40, blocks=FOUR[2:], num_params=1_100_001))
    setting = compute_block_space(runs).setting
    assert setting.endswith(", 10,000 images, 1,000,000 to 1,100,001 parameters")


# Block ensemble, Fig. 4


def block_ensemble_runs():
    runs = []
    for method, add in (("at", 0), ("trades", 5)):
        more = {"method": method}
        runs += [net(85, 50 + add + seed, seed=seed, **more) for seed in range(3)]
        runs += [net(84, 48 + add, attention="fixed", **more)]
    runs += [net(80, 45, blocks=("dense",) * 4, attention="fixed", init_channels=5)]
    # A smaller set belongs to another figure.
    starts = ({"attention_init": "uniform"}, {"attention_init_options": {"std": 25.0}})
    others = [net(99, 99, seed=9, **start) for start in starts]
    return [*runs, net(99, 99, blocks=FOUR[:2]), *others]


def test_block_ensemble_compares_variants_by_method():
    ensemble = compute_block_ensemble(block_ensemble_runs())
    found = {key: accuracies.robust.mean for key, accuracies in ensemble.variants.items()}
    assert found == {
        ("AT", "learned"): pytest.approx(0.51),
        ("AT", "fixed"): pytest.approx(0.48),
        ("AT", "4 \N{MULTIPLICATION SIGN} dense"): pytest.approx(0.45),
        ("TRADES, β = 6", "learned"): pytest.approx(0.56),
        ("TRADES, β = 6", "fixed"): pytest.approx(0.53),
    }
    learned = ensemble.variants["AT", "learned"].robust
    assert learned.values == pytest.approx((0.50, 0.51, 0.52))
    assert learned.interval is None


def test_block_ensemble_is_drawn_by_method():
    figure = draw_block_ensemble(compute_block_ensemble(block_ensemble_runs()))
    robust, _ = figure.axes
    assert labels_of(robust) == ["AT", "TRADES, β = 6"]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        *("learned", "fixed", "4 \N{MULTIPLICATION SIGN} dense")
    ]


def test_legend_lies_on_no_panel():
    figure = draw_block_ensemble(compute_block_ensemble(block_ensemble_runs()))
    figure.canvas.draw()
    legend = figure.legends[0].get_window_extent()
    for axes in figure.axes:
        assert axes.get_legend() is None
        assert not legend.overlaps(axes.get_window_extent())


def test_panels_show_the_same_decimals():
    runs = [
        net(natural, pgd, attention=attention)
        for natural, pgd, attention in ((97.6, 20.0, "learned"), (97.9, 80.0, "fixed"))
    ]
    figure = draw_block_ensemble(compute_block_ensemble(runs))
    figure.canvas.draw()
    for axes in figure.axes:
        texts = [label.get_text() for label in axes.get_yticklabels()]
        assert all(re.fullmatch(r"\d+\.\d%", text) for text in texts), texts


@pytest.mark.parametrize(
    ("num_seeds", "num_bars", "num_hollow", "note"),
    [
        (1, 1, 0, "one seed: 95 % interval over its images"),
        (2, 0, 2, "mean over 2 seeds; hollow: each seed"),
        (4, 0, 4, "mean over 4 seeds; hollow: each seed"),
        (5, 1, 0, "mean over 5 seeds; bar: 95 % interval"),
    ],
)
def test_few_seeds_are_drawn_one_by_one_and_many_with_an_interval(
    num_seeds, num_bars, num_hollow, note
):
    runs = [net(85, 50 + seed, seed=seed) for seed in range(num_seeds)]
    runs += [net(84, 48 + seed, seed=seed, attention="fixed") for seed in range(num_seeds)]
    figure = draw_block_ensemble(compute_block_ensemble(runs))
    robust, _ = figure.axes
    bars = [line for line in robust.lines if len(line.get_xdata()) == 2]
    hollow = [line for line in robust.lines if line.get_fillstyle() == "none"]
    assert (len(bars), len(hollow)) == (2 * num_bars, 2 * num_hollow)
    assert figure.get_suptitle().splitlines()[1] == note


def test_mixed_numbers_of_seeds_are_explained():
    runs = [net(85, 50 + seed, seed=seed) for seed in range(5)]
    runs += [net(84, 48 + seed, seed=seed, attention="fixed") for seed in range(2)]
    figure = draw_block_ensemble(compute_block_ensemble(runs))
    assert figure.get_suptitle().splitlines()[1] == (
        "mean over 2 to 5 seeds; bar: 95 % interval from 5 seeds on; hollow: each seed of fewer "
        "than 5"
    )


def test_paper_networks_by_name_are_an_ensemble():
    runs = [
        make_run({"natural": 80, "pgd": pgd}, model=name)
        for name, pgd in (("ds_net_4", 54), ("ds_net_4_fixed", 52), ("ds_net_4_same_dense", 50))
    ]
    assert len(compute_block_ensemble(runs).variants) == 3


def test_block_ensemble_of_different_widths_is_refused():
    learned, fixed = net(80, 40), net(80, 40, attention="fixed")
    same = [
        net(80, 40, blocks=("dense",) * 4, attention="fixed", init_channels=width, seed=seed)
        for seed, width in enumerate((6, 9))
    ]
    assert len(compute_block_ensemble([learned, fixed, same[1]]).variants) == 3
    with pytest.raises(IncomparableRunsError, match="init_channels is 6 and 9; choose runs of one"):
        compute_block_ensemble([learned, fixed, *same])
    wider = net(80, 40, init_channels=9)
    message = "the block-ensemble figure .* trained alike, but init_channels is 9 in run"
    with pytest.raises(IncomparableRunsError, match=message):
        compute_block_ensemble([wider, fixed])


def test_block_ensemble_needs_two_variants_of_a_method():
    runs = [net(80, 40), net(80, 40, attention="fixed", method="trades")]
    with pytest.raises(MissingRunsError, match="of one method, two of: learned weights"):
        compute_block_ensemble(runs)


# Initialisation, Fig. 5


def initialization_runs():
    weights = ((0.1, 0.2, 0.3, 0.4),) * 3
    given = net(84, 49, attention_init="given", attention_weights=weights)
    inits = ("geometric", "normal", "uniform")
    runs = [net(80 + i, 45 + i, attention_init=init) for i, init in enumerate(inits)]
    return [*runs, given, net(99, 99, blocks=FOUR[:2]), net(99, 99, attention="fixed")]


def test_starts_are_compared_in_the_papers_order():
    result = compute_initialization(initialization_runs())
    assert list(result.starts) == ["normal", "uniform", "geometric", "optimised"]
    found = list(result.starts.values())
    assert [n.robust.mean for n in found] == pytest.approx([0.46, 0.47, 0.45, 0.49])
    assert [n.natural.mean for n in found] == pytest.approx([0.81, 0.82, 0.80, 0.84])


def test_each_seed_may_start_from_optimised_weights_of_its_own():
    rows = ((0.1, 0.2, 0.3, 0.4), (0.4, 0.3, 0.2, 0.1))
    given = [
        net(84, 49, attention_init="given", attention_weights=(row,) * 3, seed=seed)
        for seed, row in enumerate(rows)
    ]
    starts = compute_initialization([net(80, 45), *given]).starts
    assert [len(found.robust.values) for found in starts.values()] == [1, 2]


def test_starts_are_drawn():
    robust, natural = draw_initialization(compute_initialization(initialization_runs())).axes
    assert labels_of(robust) == ["normal", "uniform", "geometric", "optimised"]
    heights = [line.get_ydata()[0] for line in robust.lines if len(line.get_xdata()) == 1]
    assert heights == pytest.approx([0.46, 0.47, 0.45, 0.49])
    assert natural.get_ylabel() == "natural accuracy"


def test_starts_of_two_networks_are_refused():
    runs = [
        net(80, 40, blocks=blocks, attention_init=init)
        for blocks in (FOUR, FOUR[:2])
        for init in ("normal", "uniform")
    ]
    with pytest.raises(ValueError, match="is of one network, got 2: DS-Net of residual"):
        compute_initialization(runs)
    with pytest.raises(MissingRunsError, match="trained from two starts"):
        compute_initialization(runs[::2])


@pytest.mark.parametrize("width", [{"init_channels": 9}, {"widen_factor": 4}], ids=str)
def test_starts_at_two_widths_are_of_two_networks(width):
    runs = [net(80, 40), net(80, 50, attention_init="uniform", **width)]
    with pytest.raises(MissingRunsError, match="trained from two starts"):
        compute_initialization(runs)
    assert len(compute_initialization([*runs, net(80, 45, **width)]).starts) == 2


# Pareto fronts


def is_dominated(point, points):
    return any((other >= point).all() and (other > point).any() for other in points)


@pytest.mark.parametrize("seed", range(5))
def test_front_is_what_brute_force_finds(seed):
    values = np.random.default_rng(seed).integers(0, 6, size=(40, 2)).astype(float)  # with ties
    front = compute_pareto([net(*row, seed=i) for i, row in enumerate(values)]).on_front
    assert front.tolist() == [not is_dominated(point, values) for point in values]


def test_front_is_drawn_as_steps_between_the_best():
    runs = [net(70, 50, seed=0), net(75, 30, seed=1), net(90, 40, seed=2), make_run(None)]
    pareto = compute_pareto(runs)
    assert pareto.run_ids == tuple(run.run_id for run in runs[:3])
    assert pareto.on_front.tolist() == [True, False, True]
    (axes,) = draw_pareto(pareto).axes
    assert axes.get_title() == "3 runs, 2 on the front"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("Natural accuracy", "PGD-20 accuracy")
    np.testing.assert_allclose(axes.lines[0].get_xdata(), [0.7, 0.9])


def test_front_of_nothing_or_of_other_attacks_is_refused():
    with pytest.raises(MissingRunsError, match="runs that have both 'natural' and 'pgd'"):
        compute_pareto([make_run(None)])
    with pytest.raises(ValueError, match=r"front compares PGD-20 .* differ in eps \(0.1 and 0.2\)"):
        compute_pareto([net(80, 40), net(80, 40, eps=0.2)])


# Learning curves


def epoch(number, robust, natural=0.9):
    return {
        "epoch": number,
        "train_accuracy": 0.5,
        "validation_natural": natural,
        "validation_robust": robust,
    }


def test_robust_overfitting_is_what_was_lost_since_the_first_best_epoch():
    rows = [epoch(1, 0.3), epoch(2, 0.55), epoch(3, 0.55), epoch(4, 0.45)]
    falling, rising = compute_learning_curves({"a": rows, "b": rows[:2]})
    assert (falling.best_epoch, rising.best_epoch) == (2, 2)
    assert falling.robust_overfitting == pytest.approx(0.1)
    assert rising.robust_overfitting == 0
    assert falling.robust.tolist() == [0.3, 0.55, 0.55, 0.45]


def test_best_epoch_and_loss_are_marked():
    (curve,) = compute_learning_curves({"a": [epoch(1, 0.5), epoch(2, 0.4)]})
    (axes,) = draw_learning_curves([curve]).axes
    assert [text.get_text() for text in axes.texts] == ["\N{MINUS SIGN}10.0"]
    dashed = next(line for line in axes.lines if line.get_linestyle() == "--")
    assert (dashed.get_xdata().tolist(), dashed.get_ydata().tolist()) == ([1, 2], [0.5, 0.5])


def test_curve_without_a_loss_has_no_mark():
    (axes,) = draw_learning_curves(compute_learning_curves({"a": [epoch(1, 0.5)]})).axes
    assert not axes.texts


@pytest.mark.parametrize(
    ("metrics", "message"),
    [({}, "at least one run"), ({"a": []}, "run 'a' has no finished epoch")],
)
def test_curves_of_nothing_are_refused(metrics, message):
    with pytest.raises(ValueError, match=message):
        compute_learning_curves(metrics)


def test_too_many_curves_are_refused():
    curves = compute_learning_curves({str(i): [epoch(1, 0.5)] for i in range(11)})
    with pytest.raises(ValueError, match="curves must be 1 to 10, got 11"):
        draw_learning_curves(curves)


# Block pairs


def test_pairs_of_the_best_are_counted_against_chance():
    # Of the six pairs the two best hold residual: with mbconv and with dense.
    accuracies = dict(zip(combinations(FOUR, 2), (60, 59, 40, 41, 42, 43), strict=True))
    runs = [net(80, pgd, blocks=blocks) for blocks, pgd in accuracies.items()]
    pairs = compute_co_occurrence(runs, quantile=1 / 3)
    assert (pairs.num_best, pairs.num_networks) == (2, 6)
    at = {name: i for i, name in enumerate(pairs.blocks)}
    residual, mbconv, dense = at["residual"], at["mbconv"], at["dense"]
    assert pairs.observed[residual, mbconv] == pairs.observed[residual, dense] == 1
    assert pairs.observed[mbconv, dense] == 0
    assert pairs.observed[residual, residual] == 2
    assert pairs.expected[residual, mbconv] == pytest.approx(2 / 6)
    assert pairs.ratio[residual, mbconv] == pytest.approx(3)
    assert pairs.ratio[residual, residual] == pytest.approx(2)


def test_seeds_are_one_network_and_module_sets_count_in_parts():
    mixed = (("residual", "dense"), ("residual",), ("dense",))
    runs = [net(80, pgd, blocks=("residual",), seed=seed) for seed, pgd in enumerate((90, 10))]
    runs.append(net(80, 60, blocks=mixed))
    pairs = compute_co_occurrence(runs, quantile=0.5)
    assert (pairs.num_best, pairs.num_networks) == (1, 2)
    np.testing.assert_allclose(pairs.observed, [[2 / 3, 1 / 3], [1 / 3, 2 / 3]])
    np.testing.assert_allclose(pairs.expected, [[1 / 3, 1 / 6], [1 / 6, 5 / 6]])


def test_pairs_of_networks_that_were_trained_differently_are_refused():
    runs = [net(80, 40, blocks=(block,)) for block in FOUR[:2]]
    runs.append(net(98, 1, blocks=FOUR[2:3], method="st", eps=0.1))
    message = "block co-occurrence compares runs that were trained alike, but method is 'at' in run"
    with pytest.raises(IncomparableRunsError, match=message):
        compute_co_occurrence(runs)


def test_network_of_several_weight_decays_counts_at_the_recipe_s():
    runs = [net(80, 40, blocks=(block,)) for block in FOUR[:2]]
    runs.append(net(80, 50, blocks=FOUR[:1], weight_decay=3e-4))
    assert compute_co_occurrence(runs).num_networks == 2


def test_networks_of_a_search_have_weight_decays_of_their_own():
    decays = (3e-4, 5e-4, 7e-4)
    runs = [
        net(80, 40 + i, blocks=(block,), weight_decay=decay)
        for i, (block, decay) in enumerate(zip(FOUR[:3], decays, strict=True))
    ]
    assert compute_co_occurrence(runs).num_networks == 3


def test_pairs_are_drawn_with_their_counts():
    runs = [net(80, 40, blocks=("residual",)), net(80, 50, blocks=("dense", "residual"))]
    axes = draw_co_occurrence(compute_co_occurrence(runs)).axes[0]
    assert "2.00\n1/0.5" in [text.get_text() for text in axes.texts]
    assert labels_of(axes) == ["dense", "residual"]


def test_pairs_need_two_sets_and_a_share():
    with pytest.raises(MissingRunsError, match="needs DS-Nets of two block sets"):
        compute_co_occurrence([net(80, 40)])
    with pytest.raises(ValueError, match=re.escape("quantile must lie in (0, 1), got 1")):
        compute_co_occurrence([net(80, 40)], quantile=1)


# Ranks


def ranked(natural, robust, num_seeds=1):
    """A network of its own weight decay for each pair, all of its seeds alike."""
    return [
        net(int(n), int(r), seed=seed, weight_decay=1e-4 * (i + 1))
        for i, (n, r) in enumerate(zip(natural, robust, strict=True))
        for seed in range(num_seeds)
    ]


def test_correlation_is_scipys_over_the_means_of_networks():
    natural, robust = np.random.default_rng(0).integers(40, 60, size=(2, 20))
    ranks = compute_rank_correlation(ranked(natural, robust))
    assert ranks.spearman == pytest.approx(stats.spearmanr(natural, robust).statistic)
    low, high = ranks.interval
    assert low < ranks.spearman < high


def test_seeds_of_a_network_do_not_narrow_the_interval():
    natural, robust = np.random.default_rng(1).integers(40, 60, size=(2, 8))
    one, five = (compute_rank_correlation(ranked(natural, robust, n)) for n in (1, 5))
    assert five.interval == one.interval
    assert five.spearman == one.spearman
    assert [len(names) for names in five.run_ids] == [5] * 8


def test_points_are_named():
    runs = [net(80 + i, 40 + i, blocks=(block,)) for i, block in enumerate(FOUR)]
    ranks = compute_rank_correlation(runs)
    assert ranks.networks == FOUR
    (axes,) = draw_rank_correlation(ranks).axes
    assert "4 networks, means over seeds" in axes.get_title()
    assert "correlation 1.00, 95 % interval 1.00 to 1.00" in axes.get_title()
    (right,) = axes.child_axes
    assert [label.get_text() for label in right.get_yticklabels()] == list(FOUR[::-1])


def test_ranks_of_equals_and_of_too_few():
    ranks = compute_rank_correlation(ranked((80,) * 4, range(40, 44)))
    assert math.isnan(ranks.spearman)
    assert all(map(math.isnan, ranks.interval))
    assert ranks.robust_ranks.tolist() == [4, 3, 2, 1]
    runs = [net(80, 40 + seed, seed=seed) for seed in range(4)]
    with pytest.raises(MissingRunsError, match="needs 4 networks evaluated by natural and pgd"):
        compute_rank_correlation(runs)


# Reliability

WAYS = {5: ([41, 43], [42, 44], [45, 49]), 10: ([60, 61, 62], [70, 71, 72])}


def trained_in_ways(ways=WAYS):
    """A network of its own block for each group of accuracies, trained for some epochs."""
    return [
        net(80, accuracy, blocks=(block,), seed=seed, epochs=epochs)
        for epochs, groups in ways.items()
        for block, group in zip(FOUR, groups, strict=False)
        for seed, accuracy in enumerate(group)
    ]


def test_each_way_of_training_has_its_reliability():
    lonely = net(80, 10, blocks=("ada_rk",), seed=0, epochs=10)  # says nothing of seeds
    curves = compute_reliability([*trained_in_ways(), lonely])
    assert [curve.name for curve in curves] == ["--epochs 5", "--epochs 10"]
    for curve, groups in zip(curves, WAYS.values(), strict=True):
        expected = measure_reliability([[value / 100 for value in group] for group in groups])
        assert curve.reliability.value == pytest.approx(expected.value)
        assert curve.reliability.num_runs == sum(map(len, groups))
        assert curve.hours == pytest.approx(61 / 3600)


def test_reliability_is_drawn_with_what_a_trustworthy_ranking_takes():
    figure = draw_reliability(compute_reliability(trained_in_ways()))
    (axes,) = figure.axes
    (legend,) = figure.legends
    texts = [text.get_text() for text in legend.get_texts()]
    assert texts == [
        "--epochs 5: 0.71 with 2 seeds; 0.8 with 4, 0.068 h",
        "--epochs 10: 0.99 with 3 seeds; 0.8 with 1, 0.017 h",
    ]
    assert "2/3 networks" in axes.get_title()
    for curve, line in zip(compute_reliability(trained_in_ways()), axes.lines[::4], strict=True):
        hours, values = np.array(line.get_data())
        assert values[0] == pytest.approx(curve.reliability.of_means(1))
        assert hours[-1] == pytest.approx(64 * curve.hours)


def test_of_networks_that_do_not_differ_no_number_of_seeds_helps():
    runs = trained_in_ways({5: ([40, 50], [50, 40])})
    (legend,) = draw_reliability(compute_reliability(runs)).legends
    assert legend.get_texts()[0].get_text() == "0.00 with 2 seeds; networks do not differ"


def test_reliability_needs_seeds_and_equal_conditions():
    with pytest.raises(MissingRunsError, match="needs two networks that were trained alike and"):
        compute_reliability(trained_in_ways({5: ([40], [50], [60])}))
    one, *others = trained_in_ways()
    changed = make_run({"natural": 80.0, "pgd": 41.0}, num_samples=5, **one.config)
    with pytest.raises(IncomparableRunsError, match="num_samples"):
        compute_reliability([changed, *others])


def test_options_of_a_block_that_others_lack_make_no_difference():
    options = {"dense": {"growth": 4}}
    four = make_run(
        {"natural": 80.0, "pgd": 40.0}, blocks=("residual", "dense"), seed=0, block_options=options
    )
    fixed = make_run(
        {"natural": 80.0, "pgd": 41.0},
        blocks=("residual", "dense"),
        seed=0,
        block_options=options,
        attention="fixed",
    )
    same = make_run(
        {"natural": 80.0, "pgd": 42.0}, blocks=("residual", "residual"), seed=0, attention="fixed"
    )
    ensemble = compute_block_ensemble([four, fixed, same])
    assert len(ensemble.variants) == 3
    other = make_run(
        {"natural": 80.0, "pgd": 41.0},
        blocks=("residual", "dense"),
        seed=1,
        attention="fixed",
        block_options={"dense": {"growth": 8}},
    )
    with pytest.raises(
        ValueError, match=r"block_options of dense is .*'growth': 4.* and .*'growth': 8"
    ):
        compute_block_ensemble([four, other])
