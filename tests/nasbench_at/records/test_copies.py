from __future__ import annotations

import itertools
import warnings
from dataclasses import replace

import numpy as np
import pytest
import safetensors.numpy

from nasbench_at import Benchmark
from nasbench_at.records import Evaluation
from nasbench_at.records.outcomes import outcomes_path
from tests.nasbench_at.records.test_records import make_evaluation, make_record, make_result, write


def load_in_every_order(*places):
    """What is loaded, the same in every order of the places, without a warning."""
    found = []
    for order in itertools.permutations(places):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            (record,) = Benchmark.load(*order)
        found.append(record)
    assert all(record == found[0] for record in found)
    return found[0]


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_evaluations_made_since_a_table_was_saved_are_kept(tmp_path, suffix):
    old = make_record(pgd=0.5)
    Benchmark([old]).save(tmp_path / f"old{suffix}")
    now = old.with_evaluation(make_evaluation({"aa": 0.3}))
    write(tmp_path / "runs", now)
    assert load_in_every_order(tmp_path / f"old{suffix}", tmp_path / "runs") == now


def test_copies_have_the_evaluations_of_all_of_them(tmp_path):
    base = make_record()
    for name, accuracies in (
        ("one", {"natural": 0.9, "pgd": 0.5}),
        ("two", {"natural": 0.9, "aa": 0.3}),
        ("three", {"fgsm": 0.6}),
    ):
        write(tmp_path / name, base.with_evaluation(make_evaluation(accuracies)))
    record = load_in_every_order(*(tmp_path / name for name in ("one", "two", "three")))
    assert {name: row.accuracy for name, row in record.results.items()} == {
        "natural": 0.9,
        "pgd": 0.5,
        "aa": 0.3,
        "fgsm": 0.6,
    }
    assert len(record.all_results) == 4


def test_main_row_is_that_of_the_copy_that_was_evaluated_last(tmp_path):
    old = make_record(pgd=0.5)
    stronger = make_result("pgd", 0.4, settings={"steps": 40})
    now = old.with_evaluation(Evaluation((stronger,)))
    write(tmp_path / "old", old)
    write(tmp_path / "now", now)
    record = load_in_every_order(tmp_path / "old", tmp_path / "now")
    assert record.result("pgd") == stronger


def test_what_was_measured_since_stays_the_main_row_whatever_the_other_copy_has(tmp_path):
    old = make_record(pgd=0.5)
    stronger = make_result("pgd", 0.4, settings={"steps": 40})
    write(tmp_path / "one", old.with_evaluation(Evaluation((stronger,))))
    more = make_evaluation({"aa": 0.3, "fgsm": 0.6, "cw": 0.5})
    write(tmp_path / "two", old.with_evaluation(more))
    record = load_in_every_order(tmp_path / "one", tmp_path / "two")
    assert record.result("pgd") == stronger
    assert record.accuracy("aa") == 0.3
    assert len(record.all_results) == 6


def test_copies_that_disagree_are_told(tmp_path):
    write(tmp_path / "one", make_record(pgd=0.5))
    more = make_record().with_evaluation(make_evaluation({"natural": 0.9, "pgd": 0.4, "aa": 0.3}))
    write(tmp_path / "two", more)
    for order in itertools.permutations(("one", "two")):
        with pytest.warns(UserWarning, match="disagree") as caught:
            (record,) = Benchmark.load(*(tmp_path / name for name in order))
        assert [str(each.message) for each in caught] == [
            "copies of run 'a' disagree: pgd has 5000 and 4000 of 10000 images right, of which the "
            "latter is kept"
        ]
        assert caught[0].filename == __file__
        assert record.results == more.results
        assert len(record.all_results) == 3


def test_of_equally_long_copies_that_disagree_the_less_robust_one_holds(tmp_path):
    write(tmp_path / "one", make_record(pgd=0.5))
    write(tmp_path / "two", make_record(pgd=0.4))
    with pytest.warns(UserWarning, match="disagree: pgd"):
        (first,) = Benchmark.load(tmp_path / "one", tmp_path / "two")
    with pytest.warns(UserWarning, match="disagree: pgd"):
        (second,) = Benchmark.load(tmp_path / "two", tmp_path / "one")
    assert first == second
    assert first.results == make_record(pgd=0.4).results
    assert len(first.all_results) == 2


def test_runs_of_one_id_that_were_trained_anew_are_not_merged(tmp_path):
    for name in ("a", "b"):
        first = replace(make_record(name, pgd=0.5), provenance={"train_seconds": 1.0})
        second = replace(first, provenance={"train_seconds": 2.0}, evaluations=())
        second = second.with_evaluation(make_evaluation({"natural": 0.8, "aa": 0.3, "fgsm": 0.6}))
        write(tmp_path / "one", first)
        write(tmp_path / "two", second)
    for order in itertools.permutations(("one", "two")):
        with pytest.warns(UserWarning, match="trained") as caught:
            records = Benchmark.load(*(tmp_path / name for name in order))
        assert [str(each.message) for each in caught] == [
            "run 'a' was trained 2 times, which are not merged: kept the training evaluated by "
            "natural, aa, fgsm; likewise of 1 more runs"
        ]
        assert [[*record.results] for record in records] == [["natural", "aa", "fgsm"]] * 2


def test_models_of_ones_own_are_told_by_their_weights(tmp_path):
    config = {"model": "m.py:make", "data": "digits", "weights_hash": "0" * 16}
    base = replace(make_record(), config=config, training={})
    for device, accuracies in (("cpu", {"pgd": 0.5}), ("cuda", {"aa": 0.3})):
        record = replace(base, provenance={"device": device})
        write(tmp_path / device, record.with_evaluation(make_evaluation(accuracies)))
    assert {*load_in_every_order(tmp_path / "cpu", tmp_path / "cuda").results} == {"pgd", "aa"}


def measured(folder, accuracies, *, curve=False):
    """A run's folder with the outcomes of these attacks, of which the first images are right."""
    rows = [make_result(name, value, num_samples=20) for name, value in accuracies.items()]
    record = make_record().with_evaluation(Evaluation(tuple(rows)))
    path = write(folder, record)
    right = {row.key: np.arange(20) < row.num_correct for row in rows}
    safetensors.numpy.save_file(right, outcomes_path(path))
    if curve:
        line = '{"epoch": 1, "train_loss": 1.0, "train_accuracy": 0.5, "validation_natural": 0.5, '
        (path.parent / "metrics.jsonl").write_text(line + '"validation_robust": 0.4}\n')
    return record


@pytest.mark.parametrize("order", [("one", "two"), ("two", "one")])
@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_curves_and_outcomes_are_those_of_all_copies(tmp_path, order, suffix):
    measured(tmp_path / "one", {"natural": 0.9, "pgd": 0.5}, curve=True)
    measured(tmp_path / "two", {"natural": 0.9, "aa": 0.3})
    merged = Benchmark.load(*(tmp_path / name for name in order))
    merged.save(tmp_path / f"all{suffix}")
    for records in (merged, Benchmark.load(tmp_path / f"all{suffix}")):
        (record,) = records
        assert [line["epoch"] for line in records.metrics_of(record)] == [1]
        for attack, count in (("natural", 18), ("pgd", 10), ("aa", 6)):
            np.testing.assert_array_equal(
                records.outcomes_of(record, attack), np.arange(20) < count
            )


@pytest.mark.parametrize("order", [("one", "two"), ("two", "one")])
def test_outcomes_are_those_of_the_row_that_is_kept(tmp_path, order):
    measured(tmp_path / "one", {"pgd": 0.5})
    measured(tmp_path / "two", {"pgd": 0.4, "aa": 0.3})
    with pytest.warns(UserWarning, match="disagree: pgd"):
        records = Benchmark.load(*(tmp_path / name for name in order))
    assert records.outcomes_of(records[0]).sum() == 8
    outcomes_path(tmp_path / "two" / "a" / "record.json").unlink()
    with pytest.raises(ValueError, match="has no per-sample outcomes 'pgd-"):
        records.outcomes_of(records[0])
    records.save(tmp_path / "all.parquet")
