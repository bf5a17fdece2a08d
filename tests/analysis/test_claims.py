"""Tables of runs in which each claim is true, false or open by construction."""

from __future__ import annotations

import csv
import math
from io import StringIO
from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from analysis.claims import claims_to_csv, claims_to_markdown, claims_to_rows, judge_paper
from analysis.claims.effects import (
    Effect,
    independent_effect,
    jackknife_effect,
    judge_equivalence,
    judge_gain,
    paired_effect,
)
from analysis.run_entries import RunEntry
from nasbench_at.cli import main
from nasbench_at.records import Benchmark
from tests.analysis.synthetic import DEPTH, FOUR, make_run

HOLDS, FAILS, OPEN = "holds here", "does not hold here", "cannot be told"
SEEDS = range(5)
CALM = (0.1, -0.1, 0.05, -0.05, 0.0)
"""Noise of the seeds in points, small against every margin."""
WILD = (9.0, -8.0, 7.0, -9.0, 1.0)
UNIFORM = {"attention": "fixed", "attention_init": "equal"}
TOP_TWO = {
    "attention": "fixed",
    "attention_init": "given",
    "attention_weights": ((0.6, 0.0, 0.4, 0.0),) * 3,
    "attention_keep": ((0, 2),) * 3,
}


def network(robust, noise=CALM, *, natural=90.0, weights=None, **config):
    """The runs of a network, one a seed: robust accuracies in percent."""
    records = [
        make_run(
            {"natural": natural, "pgd": robust + noise[seed]},
            **{**DEPTH, "seed": seed, "blocks": FOUR, **config},
        )
        for seed in SEEDS
    ]
    return [
        RunEntry(r.run_id, r.config, r, attention=None if weights is None else (2, weights))
        for r in records
    ]


def judged(entries, source):
    return [claim for claim in judge_paper(entries) if claim.source == source]


def subsets(gain, noise=CALM, **config):
    """All subsets of the four blocks; each further block gives so many points."""
    found = []
    for size in range(1, 5):
        for i, blocks in enumerate(combinations(FOUR, size)):
            shifted = [noise[(seed + i) % 5] for seed in SEEDS]
            found += network(50 + gain * size, shifted, blocks=blocks, **config)
    return found


def weights_of(first, last):
    """Attention weights of three modules; those of residual are given."""
    return tuple((w, *[(1 - w) / 3] * 3) for w in (first, (first + last) / 2, last))


TABLES = {
    ("Fig. 4a", HOLDS): lambda: network(55) + network(50, CALM[::-1], **UNIFORM),
    ("Fig. 4a", FAILS): lambda: network(50) + network(50, CALM[::-1], **UNIFORM),
    ("Fig. 4a", OPEN): lambda: network(52) + network(50, WILD, **UNIFORM),
    ("Fig. 4b", HOLDS): lambda: (
        network(55, **UNIFORM) + network(50, blocks=["dense"] * 4, **UNIFORM)
    ),
    ("Fig. 4b", FAILS): lambda: (
        network(50, **UNIFORM) + network(55, blocks=["dense"] * 4, **UNIFORM)
    ),
    ("Fig. 4b", OPEN): lambda: (
        network(52, **UNIFORM) + network(50, WILD, blocks=["dense"] * 4, **UNIFORM)
    ),
    ("Fig. 6", HOLDS): lambda: subsets(2),
    ("Fig. 6", FAILS): lambda: subsets(-2),
    ("Fig. 6", OPEN): lambda: subsets(0.5, WILD),
    ("Tab. 4", HOLDS): lambda: network(55) + network(50, CALM[::-1], **TOP_TWO),
    ("Tab. 4", FAILS): lambda: network(50) + network(50, CALM[::-1], **TOP_TWO),
    ("Tab. 4", OPEN): lambda: network(52) + network(50, WILD, **TOP_TWO),
    ("Fig. 5", HOLDS): lambda: network(50) + network(51, CALM[::-1], attention_init="uniform"),
    ("Fig. 5", FAILS): lambda: network(50) + network(46, CALM[::-1], attention_init="uniform"),
    ("Fig. 5", OPEN): lambda: network(50) + network(51, WILD, attention_init="uniform"),
    ("Tab. 6", HOLDS): lambda: network(55) + network(50, CALM[::-1], weight_decay=3e-4),
    ("Tab. 6", FAILS): lambda: network(50) + network(55, CALM[::-1], weight_decay=3e-4),
    ("Tab. 6", OPEN): lambda: network(52) + network(50, WILD, weight_decay=3e-4),
    ("Tab. 1", HOLDS): lambda: [
        run
        for name, natural, robust in zip(FOUR, (60, 70, 80, 90), (54, 53, 52, 51), strict=True)
        for run in network(robust, natural=natural, blocks=[name])
    ],
    ("Tab. 1", FAILS): lambda: [
        run
        for name, natural, robust in zip(FOUR, (60, 70, 80, 90), (51, 52, 53, 54), strict=True)
        for run in network(robust, natural=natural, blocks=[name])
    ],
    ("Tab. 1", OPEN): lambda: [
        run
        for i, (name, natural) in enumerate(zip(FOUR, (60, 70, 80, 90), strict=True))
        for run in network(60 + i, WILD[i:] + WILD[:i], natural=natural, blocks=[name])
    ],
    ("Fig. 8", HOLDS): lambda: [
        run
        for seed in SEEDS
        for run in network(50, weights=weights_of(0.2, 0.5 + seed / 100))[seed : seed + 1]
    ],
    ("Fig. 8", FAILS): lambda: [
        run
        for seed in SEEDS
        for run in network(50, weights=weights_of(0.5, 0.2 + seed / 100))[seed : seed + 1]
    ],
    ("Fig. 8", OPEN): lambda: [
        run
        for seed in SEEDS
        for run in network(50, weights=weights_of(0.4, 0.1 + seed / 5))[seed : seed + 1]
    ],
}


@pytest.mark.parametrize(("source", "verdict"), TABLES)
def test_verdict_is_that_of_the_table_by_construction(source, verdict):
    (claim,) = judged(TABLES[source, verdict](), source)
    assert claim.verdict == verdict
    assert claim.comparison
    assert claim.setting.startswith("digits, AT, PGD-20")


def test_every_claim_without_runs_says_what_is_missing():
    claims = judge_paper([])
    assert [claim.source for claim in claims] == [
        *("Fig. 4a", "Fig. 4b", "Fig. 6", "Tab. 4", "Fig. 5", "Tab. 6", "Tab. 1", "Fig. 8")
    ]
    assert {claim.verdict for claim in claims} == {OPEN}
    assert claims[0].explanation == (
        "missing: one DS-Net with learned and with fixed, equal weights"
    )


def test_effect_is_the_paired_difference_in_the_same_seeds():
    learned, fixed = network(55, WILD), network(50, WILD, **UNIFORM)
    (claim,) = judged(learned[:4] + fixed[1:], "Fig. 4a")
    assert claim.verdict == HOLDS  # the seeds' noise, which both have, falls out
    assert claim.effect.value == pytest.approx(0.05)
    assert claim.effect.num_runs == 6


def test_one_seed_and_other_conditions_tell_nothing():
    one = network(55)[:1] + network(50, **UNIFORM)[:1]
    (claim,) = judged(one, "Fig. 4a")
    assert (claim.verdict, claim.effect) == (OPEN, None)
    assert claim.explanation == "missing: an interval over seeds needs at least 2, got 1"
    other = make_run({"natural": 90, "pgd": 50}, fingerprint="f", **DEPTH, blocks=FOUR, **UNIFORM)
    (claim,) = judged([*network(55), RunEntry(other.run_id, other.config, other)], "Fig. 4a")
    assert claim.verdict == OPEN
    assert "they differ in data_fingerprint ('digits' and 'f')" in claim.explanation


def test_ways_of_training_are_judged_apart():
    runs = TABLES["Fig. 4a", HOLDS]()
    runs += network(50, epochs=7) + network(55, epochs=7, **UNIFORM)
    first, second = judged(runs, "Fig. 4a")
    assert (first.verdict, second.verdict) == (HOLDS, FAILS)
    assert second.setting.endswith("--epochs 7")


def test_networks_are_compared_only_at_equal_parameters():
    mixed = network(55, **UNIFORM)
    same = network(50, blocks=["dense"] * 4, num_params=1_200_000, **UNIFORM)
    (claim,) = judged(mixed + same, "Fig. 4b")
    assert (claim.verdict, claim.comparison) == (OPEN, "")
    assert claim.explanation.endswith("fixed, equal weights and equal parameters (within 10 %)")
    larger = network(54, **UNIFORM, init_channels=7, num_params=1_200_000)
    (claim,) = judged(mixed + same + larger, "Fig. 4b")
    assert claim.effect.value == pytest.approx(0.04)


def test_logits_from_another_normal_distribution_are_another_start():
    wide = {"attention_init_options": {"std": 25.0}}
    runs = network(50) + network(40, CALM[::-1], **wide)
    (claim,) = judged(runs, "Fig. 5")
    assert claim.comparison.startswith("logits from normal (std 25) minus from normal, ")
    assert claim.effect.value == pytest.approx(-0.1)
    uniform = network(51, CALM[::-1], attention_init="uniform")
    by_text = {claim.comparison.split(",")[0]: claim for claim in judged(runs + uniform, "Fig. 5")}
    assert set(by_text) == {
        "logits from normal (std 25) minus from normal",
        "logits from uniform minus from normal",
    }


def test_sets_of_another_start_are_none_of_a_family():
    parts = [run for run in subsets(2) if run.config["blocks"] != list(FOUR)]
    usual = judged(parts, "Fig. 6")
    wide = {"attention_init_options": {"std": 25.0}}
    assert judged(parts + network(58, blocks=FOUR, **wide), "Fig. 6") == usual
    assert len(judged(parts + network(58, blocks=FOUR), "Fig. 6")) == 1


def test_width_meets_the_parameters_in_whatever_way():
    """Networks of a set and its subsets differ in both numbers that give their widths."""
    runs = [
        run
        for size in (1, 2, 3, 4)
        for blocks in combinations(FOUR, size)
        for run in network(
            50 + 2 * size, blocks=blocks, init_channels=12 // size, widen_factor=1 + size / 8
        )
    ]
    (claim,) = judged(runs, "Fig. 6")
    assert claim.verdict == HOLDS


def test_pruned_networks_belong_to_those_they_are_as_large_as():
    parent = network(55)
    packed = {
        **TOP_TWO,
        "blocks": (("residual", "dense"), ("residual", "mbconv"), ("mbconv", "ada_rk")),
        "attention_weights": ((0.6, 0.4),) * 3,
        "attention_keep": None,
        "init_channels": 9,
    }
    zeroed, built = judged(
        parent + network(50, CALM[::-1], **TOP_TWO) + network(53, CALM[::-1], **packed), "Tab. 4"
    )
    assert zeroed.comparison.endswith("the others zeroed")
    assert zeroed.effect.value == pytest.approx(0.05)
    assert built.comparison.endswith("the others not built")
    assert built.effect.value == pytest.approx(0.02)
    for pruned in (
        network(50, **TOP_TWO, init_channels=9),
        network(50, **{**packed, "num_params": 1_200_000}),
    ):
        (claim,) = judged(parent + pruned, "Tab. 4")
        assert claim.comparison == ""


def test_sizes_are_compared_only_where_each_block_counts_equally():
    runs = [run for run in subsets(2) if run.config["blocks"] != ["mbconv"]]
    (claim,) = judged(runs, "Fig. 6")
    assert claim.verdict == OPEN
    assert claim.explanation == (
        "missing: sets of 1 with mbconv: each block must be in equally many sets of a size"
    )


def test_slope_over_sizes_is_the_gain_a_block():
    (claim,) = judged(subsets(2), "Fig. 6")
    assert claim.effect.value == pytest.approx(0.02, abs=1e-3)
    assert claim.effect.num_runs == 75


def test_pruned_runs_of_several_parents_are_not_paired():
    other = {**TOP_TWO, "attention_weights": ((0.5, 0.0, 0.5, 0.0),) * 3}
    pruned = network(50, CALM[::-1], **TOP_TWO) + network(49, **other)
    (claim,) = judged(network(55) + pruned, "Tab. 4")
    assert claim.effect.design == "independent"
    ours, theirs = ([r.record.accuracy("pgd") for r in runs] for runs in (network(55), pruned))
    low, high = stats.ttest_ind(ours, theirs, equal_var=False).confidence_interval()
    assert claim.effect.interval == pytest.approx((low, high))


def test_noise_alone_does_not_make_ranks_differ():
    """Ranks that are equal but for noise correlate by less than 1; that is corrected."""
    generator = np.random.default_rng(0)
    runs = []
    for i, blocks in enumerate(c for n in (1, 2) for c in combinations(FOUR, n)):
        for seed in range(12):
            a, b = generator.normal(size=2)
            record = make_run(
                {"natural": 60 + i + 2 * a, "pgd": 30 + i + 2 * b},
                **{**DEPTH, "seed": seed, "blocks": blocks},
            )
            runs.append(RunEntry(record.run_id, record.config, record))
    (claim,) = judged(runs, "Tab. 1")
    raw = np.mean(
        [
            stats.spearmanr(
                *(
                    [r.record.accuracy(m) for r in runs if r.config["seed"] == seed]
                    for m in ("natural", "pgd")
                )
            ).statistic
            for seed in range(12)
        ]
    )
    assert raw < 0.75
    assert abs(claim.effect.value) < 0.1
    low, high = claim.effect.interval
    assert low < 0 < high


# Effects


def test_paired_effect_is_that_of_the_paired_t_test():
    one, other = np.random.default_rng(0).normal(size=(2, 7))
    effect = paired_effect(one - other, 14)
    low, high = stats.ttest_rel(one, other).confidence_interval()
    assert effect.interval == pytest.approx((low, high))
    assert effect.standard_error == pytest.approx(stats.sem(one - other))


@pytest.mark.parametrize("num_seeds", [2, 3, 10])
def test_smallest_detectable_effect_is_found_with_power_0_8(num_seeds):
    """A simulation of as many studies, each with its own estimate of the noise."""
    degrees = num_seeds - 1
    half = stats.t.ppf(0.975, degrees) / math.sqrt(num_seeds)  # noise of 1
    effect = Effect(0.0, (-half, half), degrees, num_seeds, "paired")
    assert effect.standard_error == pytest.approx(1 / math.sqrt(num_seeds))
    shift = effect.smallest_detectable
    samples = np.random.default_rng(0).normal(shift, 1, size=(20_000, num_seeds))
    assert (stats.ttest_1samp(samples, 0, axis=1).pvalue < 0.05).mean() == pytest.approx(
        0.8, abs=0.012
    )


def test_no_noise_gives_an_interval_of_no_width():
    assert paired_effect([0.5, 0.5], 4).interval == (0.5, 0.5)
    effect = independent_effect([2.0, 2.0], [1.0, 1.0, 1.0])
    assert (effect.interval, effect.smallest_detectable) == ((1.0, 1.0), 0.0)


def test_jackknife_of_a_mean_is_its_t_interval():
    values = np.random.default_rng(1).normal(size=6)
    effect = jackknife_effect(lambda kept: float(values[kept].mean()), 6, 6)
    assert effect.interval == pytest.approx(paired_effect(values, 6).interval)
    with pytest.raises(ValueError, match="leaving out one seed needs at least 3, got 2"):
        jackknife_effect(lambda kept: 0.0, 2, 2)
    with pytest.raises(ValueError, match="seeds differ more than networks do"):
        jackknife_effect(lambda kept: math.nan, 3, 3)


@pytest.mark.parametrize(
    ("low", "high", "gain", "equivalence"),
    [
        (0.1, 0.5, HOLDS, HOLDS),
        (1.1, 3.0, HOLDS, FAILS),
        (-0.5, 0.5, FAILS, HOLDS),
        (-3.0, -1.1, FAILS, FAILS),
        (-3.0, 0.5, FAILS, OPEN),
        (-0.5, 1.5, OPEN, OPEN),
    ],
)
def test_verdicts_by_interval_at_a_margin_of_1(low, high, gain, equivalence):
    effect = Effect((low + high) / 2, (low, high), 4, 10, "paired")
    assert judge_gain(effect, 1.0) == gain
    assert judge_equivalence(effect, 1.0) == equivalence


# What is written


def test_markdown_and_csv_say_the_same():
    claims = judge_paper(TABLES["Fig. 4a", HOLDS]())
    row = claims_to_rows(claims)[0]
    assert row[2] == HOLDS
    assert row[3] == "+5.00 [+4.90, +5.10]"
    assert (row[4], row[6]) == ("10", "1 points")
    text = claims_to_markdown(claims)
    assert text.count("\n| ") == 1 + len(claims)
    found = list(csv.DictReader(StringIO(claims_to_csv(claims))))
    assert float(found[0]["effect"]) == pytest.approx(0.05)
    assert float(found[0]["low"]) == claims[0].effect.interval[0]
    assert found[1]["effect"] == ""


def test_command_prints_and_writes(tmp_path, capsys):
    runs = [entry.record for entry in TABLES["Fig. 4a", HOLDS]()]
    table, out = tmp_path / "runs.jsonl", tmp_path / "claims.md"
    Benchmark(runs).save(table)
    assert main(["claims", str(table)]) == 0
    first = capsys.readouterr().out.splitlines()[1]
    assert first.split("\t")[:3] == [
        "Fig. 4a",
        "learned attention weights are more robust than fixed, equal ones",
        HOLDS,
    ]
    assert main(["claims", str(table), "--out", str(out)]) == 0
    assert out.read_text().startswith("| where | claim | verdict |")
    assert main(["claims", str(table), "--out", str(tmp_path / "a.doc")]) == 2
    assert "out must be a file ending in .md or .csv" in capsys.readouterr().err
    assert main(["claims", str(table), "--attack", "pdg"]) == 2
    assert "no run was evaluated by 'pdg'; did you mean 'pgd'?" in capsys.readouterr().err
