from __future__ import annotations

import math
from dataclasses import replace

import pytest

from nasbench_at.evaluation.standard_attacks import standard_attacks
from nasbench_at.records import (
    AttackResult,
    Benchmark,
    Evaluation,
    conditions_of,
    describe_conditions,
    differences,
)
from tests.nasbench_at.conftest import one_line
from tests.nasbench_at.records.test_records import make_evaluation, make_record, make_result


def under(name: str, *rows: AttackResult):
    return replace(make_record(name), evaluations=(Evaluation(results=rows),))


ROW = make_result("pgd", 0.5, subset="s1")
CHANGES = [
    ({"eps": 0.3}, ["eps (0.1 and 0.3)"]),
    ({"norm": "L2"}, ["norm ('Linf' and 'L2')"]),
    ({"num_samples": 500, "num_correct": 250}, ["num_samples (10000 and 500)"]),
    ({"subset": None}, ["subset ('s1' and None)"]),
    ({"data": "elsewhere/stripes.npz/test"}, []),
    ({"data": "stripes/validation"}, ["data ('stripes/test' and 'stripes/validation')"]),
    (
        {"data": "digits/test", "data_fingerprint": "d2"},
        ["data ('stripes/test' and 'digits/test')", "data_fingerprint ('d1' and 'd2')"],
    ),
    ({"data_fingerprint": "d2"}, ["data_fingerprint ('d1' and 'd2')"]),
    ({"attack": "cw"}, ["attack ('pgd' and 'cw')"]),
    ({"settings": {"steps": 10, "start": "uniform"}}, ["steps (20 and 10)"]),
    ({"settings": {"steps": 20, "restarts": 2}}, ["start ('uniform' and None)", "restarts (None"]),
    ({"eps": 0.1 + 1e-12}, ["eps (0.1 and 0.10000000000100001)"]),
    ({"num_correct": 1}, []),
    ({"seed": 5, "seconds": 9.0}, []),
]


@pytest.mark.parametrize(("changes", "expected"), CHANGES)
def test_what_keeps_two_rows_from_being_compared_is_named(changes, expected):
    own, other = conditions_of(ROW), conditions_of(replace(ROW, **changes))
    found = differences(own, other)
    assert (own == other) == (not expected)
    assert len(found) == len(expected)
    for text, start in zip(found, expected, strict=True):
        assert text.startswith(start)


def test_name_tells_the_images_that_have_no_fingerprint():
    one, other = (
        conditions_of(replace(ROW, data=data, data_fingerprint="")) for data in ("a/test", "b/test")
    )
    assert differences(one, other) == ["data ('a/test' and 'b/test')"]
    assert one != other


def test_row_of_the_same_images_by_another_path_replaces():
    record = under("a", ROW).with_evaluation(
        Evaluation(results=(replace(ROW, data="elsewhere/test", num_correct=1),))
    )
    assert [row.num_correct for row in record.all_results] == [1]
    record = record.with_evaluation(Evaluation(results=(replace(ROW, data="stripes/validation"),)))
    assert len(record.all_results) == 2


def test_seed_of_an_attack_is_no_condition_and_a_worst_case_has_those_of_its_attacks():
    def worst(steps: int, seed: int) -> AttackResult:
        attacks = {"pgd": {"steps": steps}, "aa": {"seed": seed, "attacks": ["square"]}}
        return make_result("worst_case", 0.5, settings={"attacks": attacks})

    first = conditions_of(worst(20, 0))
    assert first == conditions_of(worst(20, 1))
    assert hash(first) == hash(conditions_of(worst(20, 1)))
    assert differences(first, conditions_of(worst(10, 0))) == ["pgd.steps (20 and 10)"]


@pytest.mark.parametrize(("key", "values"), [("eps", (0.1, 0.3)), ("norm", ("Linf", "L2"))])
def test_radii_and_norms_of_the_attacks_of_a_worst_case_are_conditions(key, values):
    own = {"name": "PGD", "seed": 0, "steps": 20}
    one, other = (
        conditions_of(
            make_result(
                "worst_case",
                0.5,
                norm=None,
                eps=None,
                settings={"attacks": {"pgd": {**own, key: value}}},
            )
        )
        for value in values
    )
    assert differences(one, other) == [f"pgd.{key} ({values[0]!r} and {values[1]!r})"]


@pytest.mark.parametrize(
    ("name", "norm", "text"),
    [
        ("pgd", "Linf", "L∞ eps 0.1, 20 steps of 0.02581, uniform start, 500 images"),
        ("fgsm", "Linf", "L∞ eps 0.1, one step of 0.1, from the image, 500 images"),
        ("aa", "L2", "L2 eps 0.1, standard version, 500 images (subset abc)"),
    ],
)
def test_conditions_are_said_in_words(name, norm, text):
    settings = standard_attacks([name], eps=0.1, norm=norm)[name].settings()
    row = make_result(name, 0.5, norm=norm, settings=settings, num_samples=500)
    row = replace(row, subset="abc") if name == "aa" else row
    assert describe_conditions(row) == text


def test_natural_accuracy_has_images_alone():
    assert describe_conditions(make_result("natural", 0.9)) == "10,000 images"


# Beside each other in a record


def test_rows_of_other_conditions_stand_beside_and_equal_ones_replace():
    record = make_record("a").with_evaluation(make_evaluation({"natural": 0.9, "aa": 0.3}))
    record = record.with_evaluation(make_evaluation({"natural": 0.9, "pgd": 0.5}))
    assert [row.attack for row in record.all_results] == ["aa", "natural", "pgd"]
    record = record.with_evaluation(make_evaluation({"pgd": 0.4}))
    assert [row.accuracy for row in record.all_results if row.attack == "pgd"] == [0.4]
    record = record.with_evaluation(make_evaluation({"pgd": 0.45}, seed=7))
    assert [row.accuracy for row in record.all_results if row.attack == "pgd"] == [0.4, 0.45]
    assert len(record.evaluations) == 4


def test_main_row_is_the_latest_at_the_run_s_own_radius_under_linf():
    """The run's eps is 0.1."""
    record = make_record("a").with_evaluation(make_evaluation({"pgd": 0.1}, eps=0.3))
    assert record.accuracy("pgd") == 0.1
    record = record.with_evaluation(make_evaluation({"pgd": 0.5}))
    record = record.with_evaluation(make_evaluation({"pgd": 0.2}, eps=0.2))
    record = record.with_evaluation(make_evaluation({"pgd": 0.9}, norm="L2"))
    assert record.accuracy("pgd") == 0.5
    record = record.with_evaluation(make_evaluation({"pgd": 0.45}, seed=7))
    assert record.accuracy("pgd") == 0.45


def test_main_row_without_the_run_s_radius_is_of_the_latest_evaluation_s_largest():
    rows = [make_result("pgd", 0.1, eps=eps) for eps in (0.4, 0.2)]
    record = under("a", *rows).with_evaluation(make_evaluation({"pgd": 0.2}, eps=0.3))
    assert record.results["pgd"].eps == 0.3
    assert under("a", *rows).results["pgd"].eps == 0.4


def test_main_worst_case_is_over_the_most_attacks():
    many = make_result("worst_case", 0.2, settings={"attacks": {"pgd": {}, "aa": {}}})
    few = make_result("worst_case", 0.6, settings={"attacks": {"fgsm": {}}})
    assert under("a", many, few).accuracy("worst_case") == 0.2


def test_curves_are_rows_that_differ_in_radius_and_step():
    rows = [
        make_result("pgd", 0.5, eps=eps, settings={"steps": 20, "step_size": eps / 4})
        for eps in (0.2, 0.1)
    ]
    other = make_result("pgd", 0.5, eps=0.3, settings={"steps": 10, "step_size": 0.1})
    record = under("a", make_result("natural", 0.9), *rows, other)
    assert {name: [row.eps for row in curve] for name, curve in record.curves.items()} == {
        "pgd": [0.1, 0.2]
    }


def curve(attack, radii, **changes):
    return [
        make_result(attack, 0.5, eps=eps, settings={"steps": 20, "step_size": eps / 4}, **changes)
        for eps in radii
    ]


@pytest.mark.parametrize(
    "other",
    [
        {"norm": "L2"},
        {"data_fingerprint": "f"},
        {"subset": "s"},
        {"num_samples": 50},
        {"data": "digits/train"},
    ],
    ids=str,
)
def test_curves_are_of_one_norm_and_the_same_images(other):
    radii = [0.1, 0.2]
    usual = [*curve("pgd", radii), *curve("fgsm", radii)]
    record = under("a", *curve("pgd", [0.1, 0.2, 0.3], **other), *usual)
    assert {name: [row.eps for row in rows] for name, rows in record.curves.items()} == {
        "pgd": radii,
        "fgsm": radii,
    }
    parts = [row for i in range(9) for row in curve(f"aa/{i}", radii, **other)]
    assert set(under("a", *usual, *parts).curves) == {"pgd", "fgsm"}
    later = [*curve("pgd", radii, **other), *curve("cw", radii, **other)]
    assert set(under("a", *usual, *later).curves) == {"pgd", "cw"}


# The best of many


def test_best_of_different_conditions_is_refused_and_can_be_chosen():
    records = [
        under("near", make_result("pgd", 0.9, eps=0.1)),
        under("far", make_result("pgd", 0.2, eps=0.3), make_result("pgd", 0.5, norm="L2")),
    ]
    benchmark = Benchmark(records)
    message = r"'near' and 'far' cannot be compared by 'pgd'; they differ in eps \(0.1 and 0.3\)"
    with pytest.raises(ValueError, match=message) as error:
        benchmark.best()
    one_line(error)
    assert benchmark.best(eps=0.1, norm="Linf").run_id == "near"
    assert benchmark.best(eps=0.3).run_id == "far"
    assert benchmark.best(norm="L2", steps=20).run_id == "far"
    with pytest.raises(ValueError, match=r"none of 2 records was evaluated by 'pgd', eps 0\.2"):
        benchmark.best(eps=0.2)
    with pytest.raises(ValueError, match="no condition 'epss' of 'pgd'; did you mean 'eps'"):
        benchmark.best(epss=0.2)


def test_rows_of_one_condition_are_chosen_beside_others():
    records = [
        under(name, make_result("pgd", own), make_result("pgd", other, eps=8 / 255))
        for name, own, other in (("a", 0.5, 0.6), ("b", 0.4, 0.7))
    ]
    assert Benchmark(records).best().run_id == "a"
    assert Benchmark(records).best(eps=8 / 255).run_id == "b"


def test_frame_has_the_conditions_beside_each_accuracy():
    records = [
        under("a", make_result("natural", 0.9), make_result("pgd", 0.5, eps=0.3)),
        under("b", make_result("natural", 0.8, num_samples=100)),
    ]
    frame = Benchmark(records).to_frame()
    assert frame["pgd_eps"].tolist()[0] == 0.3
    assert frame["pgd_norm"].tolist()[0] == "Linf"
    assert frame["pgd_num_samples"].tolist()[0] == 10_000
    assert frame["natural_num_samples"].tolist() == [10_000, 100]
    assert math.isnan(frame["pgd_eps"].tolist()[1])
    assert "natural_eps" not in frame.columns


def test_summary_leaves_out_a_mean_over_conditions_and_keeps_the_rest():
    runs = [
        replace(
            under(name, make_result("natural", 0.8), make_result("pgd", 0.5, eps=eps)),
            config={"method": method, "eps": 0.1, "seed": seed},
        )
        for name, method, seed, eps in (
            ("a", "at", 0, 0.1),
            ("b", "at", 1, 0.3),
            ("c", "trades", 0, 0.1),
        )
    ]
    with pytest.warns(UserWarning, match="no mean of 'pgd' over seeds") as caught:
        frame = Benchmark(runs).summary().frame
    assert [str(warning.message) for warning in caught] == [
        "no mean of 'pgd' over seeds: 'a' and 'b' cannot be compared by 'pgd'; they differ in "
        "eps (0.1 and 0.3)"
    ]
    assert frame["natural"].tolist() == [0.8, 0.8]
    assert math.isnan(frame["pgd"][0])
    assert math.isnan(frame["pgd_eps"][0])
    assert frame["pgd"][1] == 0.5


def test_results_frame_has_a_row_a_result_with_all_conditions():
    record = under("a", make_result("natural", 0.9), make_result("pgd", 0.5, eps=0.3))
    frame = Benchmark([record]).results_frame()
    assert frame["attack"].tolist() == ["natural", "pgd"]
    row = frame.iloc[1].to_dict()
    low, high = record.results["pgd"].interval
    expected = {"run_id": "a", "seed": 0, "norm": "Linf", "eps": 0.3, "steps": 20}
    expected |= {"num_samples": 10_000, "num_correct": 5000, "accuracy": 0.5, "low": low}
    expected |= {"high": high, "conditions": describe_conditions(record.results["pgd"])}
    expected |= {"key": record.results["pgd"].key, "data_fingerprint": "d1"}
    assert {name: row[name] for name in expected} == expected
    assert len(Benchmark([]).results_frame()) == 0


def test_natural_accuracy_comes_first_and_the_worst_case_last():
    record = make_record("a").with_evaluation(make_evaluation({"aa": 0.3, "worst_case": 0.3}))
    record = record.with_evaluation(make_evaluation({"pgd": 0.5, "natural": 0.9}))
    assert list(record.results) == ["natural", "aa", "pgd", "worst_case"]
