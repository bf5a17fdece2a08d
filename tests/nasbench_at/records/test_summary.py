from __future__ import annotations

import math
import subprocess
import sys
import warnings
from dataclasses import replace

import pytest

from nasbench_at.records import Benchmark, measure_reliability
from tests.nasbench_at.records.tables import NUM_IMAGES, write_run, write_runs


@pytest.fixture
def runs(tmp_path) -> Benchmark:
    write_runs(tmp_path)
    return Benchmark.load(tmp_path)


def test_summary_says_what_there_is(runs):
    summary = runs.summary()
    lines = str(summary).splitlines()
    assert lines[0] == "8 runs of 2 networks: 3 configurations of 2 to 3 seeds"
    assert "natural: digits/test, 20 images (8 runs)" in lines
    assert "pgd: digits/test, L∞ eps 0.1, 20 steps, uniform start, 20 images (8 runs)" in lines
    assert repr(summary) == str(summary)
    assert summary.frame["seeds"].tolist() == [3, 3, 2]
    assert [line for line in lines if line.startswith("network")]
    assert len([line for line in lines if "%" in line]) == 3


def test_mean_over_a_part_of_the_seeds_says_over_how_many(tmp_path):
    write_run(tmp_path, 10)
    for seed, rows in ((1, 2), (2, 1)):  # the last by natural alone
        record = write_run(tmp_path, 12, seed=seed)
        evaluation = replace(record.evaluations[0], results=record.all_results[:rows])
        record = replace(record, evaluations=(evaluation,))
        (tmp_path / record.run_id / "record.json").write_text(record.to_json())
    summary = Benchmark.load(tmp_path).summary()
    assert summary.frame[["seeds", "natural_seeds", "pgd_seeds"]].values.tolist() == [[3, 3, 2]]
    assert "3  100.00 ± 0.00 %  55.00 ± 63.53 % (2 seeds)" in str(summary)


def test_one_of_each_is_said_so(runs):
    lines = str(runs[:1].summary()).splitlines()
    assert lines[0] == "1 run of 1 network: 1 configuration of 1 seed"
    assert lines[1] == "natural: digits/test, 20 images (1 run)"


def test_printing_loads_nothing_slow(runs, tmp_path):
    runs.save(tmp_path / "all.parquet")
    code = (
        "import sys; from nasbench_at import Benchmark; "
        "print(Benchmark.load(sys.argv[1]).summary()); "
        "print(sorted({'pandas', 'torch', 'scipy.stats', 'matplotlib'} & sys.modules.keys()))"
    )
    words = [sys.executable, "-c", code, str(tmp_path / "all.parquet")]
    found = subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()
    assert found[0].startswith("8 runs of 2 networks")
    assert found[-1] == "[]"


def test_networks_are_ranked_among_those_trained_alike(runs):
    ranked = {ranking.attack: ranking for ranking in runs.summary().rankings}
    expected = measure_reliability([[0.5, 0.55, 0.6], [0.75, 0.75, 0.7]])
    found = ranked["pgd"]
    assert found.reliability.num_networks == 2  # trades has one network, and is no third
    assert found.reliability.value == pytest.approx(expected.value)
    assert found.reliability.interval == pytest.approx(expected.interval)
    assert found.noise_ceiling == pytest.approx(math.sqrt(expected.value))
    assert found.training == "AT"
    low, high = expected.interval
    assert f"reliability {expected.value:.2f} [{low:.2f}, {high:.2f}]" in str(runs.summary())


def test_one_training_needs_no_name(runs):
    found = runs.query(method="at").summary().rankings
    assert {ranking.training for ranking in found} == {""}
    assert " over 3 seeds: reliability" in str(runs.query(method="at").summary())


def test_too_few_seeds_are_said_so(runs):
    text = str(runs.query(seed=0).summary())
    assert "no ranking's reliability: it needs 2 networks that were trained and evaluated" in text
    assert " ± " not in text


def test_runs_of_other_conditions_are_not_ranked_with_others(runs, tmp_path):
    for seed in (7, 8):
        write_run(tmp_path / "more", 3, eps=0.3, blocks=("dense",), method="at", seed=seed)
    mixed = Benchmark([*runs, *Benchmark.load(tmp_path / "more")])
    (found,) = (each for each in mixed.summary().rankings if each.attack == "pgd")
    assert found.reliability.num_networks == 2
    assert "L∞ eps 0.3, 20 steps, uniform start, 20 images (2 runs)" in str(mixed.summary())


def test_mean_over_mixed_conditions_is_left_out_with_a_warning(runs, tmp_path):
    shared = {"blocks": ("residual", "dense"), "method": "at"}
    write_run(tmp_path / "more", NUM_IMAGES, eps=0.3, seed=9, **shared)
    mixed = Benchmark([*runs.query(**shared), *Benchmark.load(tmp_path / "more")])
    with pytest.warns(UserWarning, match=r"no mean of 'pgd' over seeds: .* eps \(0.1 and 0.3\)"):
        summary = mixed.summary()
    assert math.isnan(summary.frame["pgd"][0])
    (headings,) = (line for line in str(summary).splitlines() if line.startswith("network "))
    assert headings.split() == ["network", "seeds", "natural"]
    assert summary.rankings == ()


def test_networks_without_a_mean_have_one_warning(tmp_path):
    for network in range(3):
        for seed, eps in enumerate((0.1, 0.3)):
            write_run(tmp_path, NUM_IMAGES, eps=eps, seed=seed, init_channels=network + 1)
    with pytest.warns(
        UserWarning, match=r"no mean of 'pgd'.*; likewise of 2 more networks$"
    ) as got:
        Benchmark.load(tmp_path).summary()
    assert len(got) == 1


def test_worst_case_over_other_attacks_is_no_mean_and_no_fault(runs):
    one, *rest = runs.query(blocks=("residual", "dense"), method="at")
    few = replace(
        one.result("pgd"), attack="worst_case", settings={"attacks": {"pgd": {"steps": 20}}}
    )
    many = replace(few, settings={"attacks": {"pgd": {"steps": 20}, "aa": {"version": "standard"}}})
    mixed = [
        record.with_evaluation(replace(record.evaluations[0], results=(worst,)))
        for record, worst in ((one, few), *((record, many) for record in rest))
    ]
    with warnings.catch_warnings(action="error"):
        summary = Benchmark(mixed).summary()
    assert math.isnan(summary.frame["worst_case"][0])
    assert not math.isnan(summary.frame["pgd"][0])


def test_nothing_is_said_so():
    assert str(Benchmark([]).summary()) == "no runs"
    assert Benchmark([]).summary().frame.empty


def test_many_rows_are_cut(tmp_path):
    for channels in range(1, 24):
        write_run(tmp_path, 5, init_channels=channels)
    assert str(Benchmark.load(tmp_path).summary()).endswith("and 3 more rows, see .frame")


def test_parts_of_an_attack_are_no_attacks_of_their_own(runs):
    record = runs[0]
    row = replace(record.result("pgd"), attack="aa/apgd-ce")
    whole = replace(row, attack="aa")
    parts = record.with_evaluation(replace(record.evaluations[0], results=(row, whole)))
    text = str(Benchmark([parts]).summary())
    assert "\naa: digits/test" in text
    assert "apgd-ce" not in text
