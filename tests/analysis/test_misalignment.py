from __future__ import annotations

import math
import re

import pytest

from analysis.misalignment import compute_misalignment
from nasbench_at.records import Record
from tests.nasbench_at.records.test_records import make_evaluation


def make_record(model, method, *, natural=0.0, pgd=0.0, seed=0, eps=0.1, data="a"):
    evaluation = make_evaluation(
        {"natural": natural, "pgd": pgd}, num_samples=100, eps=eps, data_fingerprint=data
    )
    return Record(
        run_id=f"{model}-{method}-{seed}",
        config={"model": model, "method": method, "seed": seed},
        architecture=model,
        num_params=1,
        provenance={},
        training={},
        evaluations=(evaluation,),
    )


def pair(model, natural, robust, **more):
    # The accuracies that must not count are the best of all.
    return [
        make_record(model, "st", natural=natural, pgd=0.99, **more),
        make_record(model, "trades", natural=0.99, pgd=robust, **more),
    ]


def test_networks_are_ranked_twice():
    records = [*pair("a", 0.9, 0.3), *pair("b", 0.95, 0.4), *pair("c", 0.8, 0.35)]
    table = compute_misalignment(records)
    assert [(row.model, row.natural_rank, row.robust_rank) for row in table.rows] == [
        ("b", 1, 1),
        ("a", 2, 3),
        ("c", 3, 2),
    ]
    assert table.num_samples == 100
    assert table.correlation == pytest.approx(0.5)  # 1 - 6 * (0 + 1 + 1) / (3 * 8)


def test_seeds_are_averaged_and_equal_means_share_a_rank():
    records = [*pair("a", 0.9, 0.3), *pair("a", 0.7, 0.5, seed=1)]
    records += [*pair("b", 0.8, 0.2), *pair("b", 0.8, 0.2, seed=1)]
    table = compute_misalignment(records)
    assert [row.natural_rank for row in table.rows] == [1, 1]
    assert [row.robust_rank for row in table.rows] == [1, 2]
    assert table.rows[0].natural == (0.9, 0.7)
    assert math.isnan(table.correlation)


@pytest.mark.parametrize(
    ("records", "message"),
    [
        (pair("a", 1, 1), "at least two networks can be ranked, got a"),
        ([*pair("a", 1, 1), make_record("b", "st")], "got only one of them for b"),
        ([*pair("a", 1, 1), *pair("b", 1, 1, eps=0.2)], "differ in eps (0.1 and 0.2)"),
        ([*pair("a", 1, 1), *pair("b", 1, 1, data="other")], "differ in data_fingerprint"),
    ],
)
def test_runs_that_do_not_make_a_table_are_refused(records, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        compute_misalignment(records)


def test_run_without_an_evaluation_is_named():
    record = Record("x-st-0", {"model": "x", "method": "st"}, "x", 1, {}, {})
    with pytest.raises(ValueError, match="run x-st-0 lacks an evaluation with natural and pgd"):
        compute_misalignment([record])
