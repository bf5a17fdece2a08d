from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import safetensors.numpy

from nasbench_at.records import Benchmark
from nasbench_at.records.outcomes import read_outcomes
from tests.nasbench_at.conftest import one_line
from tests.nasbench_at.records.tables import NUM_IMAGES, write_run, write_runs
from tests.nasbench_at.records.test_records import make_record

SUFFIXES = pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])


@SUFFIXES
def test_curves_and_outcomes_need_no_folders(suffix, tmp_path):
    records = write_runs(tmp_path / "runs")
    runs = Benchmark.load(tmp_path / "runs")
    curves = {record.run_id: runs.metrics_of(record) for record in runs}
    outcomes = {record.run_id: runs.outcomes_of(record, "pgd") for record in runs}
    frame = runs.learning_curves()
    runs.save(tmp_path / f"once{suffix}")
    shutil.rmtree(tmp_path / "runs")
    Benchmark.load(tmp_path / f"once{suffix}").save(tmp_path / f"all{suffix}")  # and again
    loaded = Benchmark.load(tmp_path / f"all{suffix}")
    assert sorted(r.run_id for r in loaded) == sorted(r.run_id for r in records)
    for record in loaded.query(method="at"):
        assert loaded.metrics_of(record) == curves[record.run_id]  # each float is exactly the same
        found = loaded.outcomes_of(record)
        assert found.dtype == np.bool_
        assert (found == outcomes[record.run_id]).all()
        assert found.sum() == record.result("pgd").num_correct
    assert loaded.learning_curves().equals(frame)


def test_outcomes_are_bits_in_order(tmp_path):
    record = write_run(tmp_path / "runs", 13)
    runs = Benchmark.load(tmp_path / "runs")
    runs.save(tmp_path / "all.jsonl")
    (line,) = (json.loads(text) for text in (tmp_path / "all.jsonl").read_text().splitlines())
    text = line["outcomes"][record.result("natural").key]
    assert text == "///w"  # 20 images: 24 bits, four of them 0
    assert len(text) < NUM_IMAGES / 4


@SUFFIXES
def test_images_of_a_subset_travel(suffix, tmp_path):
    record = write_run(tmp_path / "runs", 13)
    file = tmp_path / "runs" / record.run_id / "outcomes.safetensors"
    indices = np.array([3, 1, 400], dtype=np.int64)
    rows = read_outcomes(file.with_name("record.json"))
    safetensors.numpy.save_file({**rows, "subset-abc": indices}, file)
    Benchmark.load(tmp_path / "runs").save(tmp_path / f"all{suffix}")
    loaded = Benchmark.load(tmp_path / f"all{suffix}")
    found = loaded._measurements[record.run_id].outcomes()
    assert found["subset-abc"].tolist() == [3, 1, 400]
    assert found.keys() == {*rows, "subset-abc"}


@SUFFIXES
def test_record_that_measured_nothing_else_is_as_it_was(suffix, tmp_path):
    Benchmark([make_record("a", pgd=0.5)]).save(tmp_path / f"all{suffix}")
    loaded = Benchmark.load(tmp_path / f"all{suffix}")
    with pytest.raises(ValueError, match="run 'a' has no metrics"):
        loaded.learning_curves()
    with pytest.raises(ValueError, match=r"run 'a' has no per-sample outcomes 'pgd-\w{8}'"):
        loaded.outcomes_of(loaded[0])


@pytest.mark.parametrize(
    ("right", "message"),
    [
        (np.ones(NUM_IMAGES, dtype=np.bool_), "have 20 images right, its record 13"),
        (np.ones(NUM_IMAGES - 1, dtype=np.bool_), r"each of 20 images, got bool \(19,\)"),
        (np.ones(NUM_IMAGES), r"each of 20 images, got float64 \(20,\)"),
    ],
)
def test_outcomes_that_contradict_the_record_are_not_written(right, message, tmp_path):
    record = write_run(tmp_path / "runs", 13)
    file = tmp_path / "runs" / record.run_id / "outcomes.safetensors"
    key = record.result("pgd").key
    safetensors.numpy.save_file({key: right}, file)
    with pytest.raises(ValueError, match=f"outcomes '{key}' of run .* {message}") as error:
        Benchmark.load(tmp_path / "runs").save(tmp_path / "all.parquet")
    one_line(error)
    assert not (tmp_path / "all.parquet").exists()


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("outcomes", {"pgd-0": "AA=="}, "its record has no row 'pgd-0'"),
        ("outcomes", {"KEY": "///w"}, "20 images are right, its record has 13"),
        ("outcomes", {"KEY": "AA=="}, "1 bytes are not the bits of 20 images"),
        ("outcomes", {"KEY": "*"}, "Only base64 data is allowed"),
        ("outcomes", {"KEY": 5}, "input should be a valid string, got 5"),
        ("subsets", {"abc": [-1]}, r"subsets.abc.0: input should be greater than .*, got -1"),
        ("metrics", [{"epoch": 0}], "metrics of run .*: line 1: epoch: input should be greater"),
        ("metrics", {"epoch": 1}, "metrics of run .* are no list"),
    ],
)
def test_what_cannot_be_read_is_one_line(part, value, message, tmp_path):
    record = write_run(tmp_path / "runs", 13)
    Benchmark.load(tmp_path / "runs").save(tmp_path / "all.jsonl")
    line = json.loads((tmp_path / "all.jsonl").read_text())
    key = record.result("pgd").key
    line[part] = json.loads(json.dumps(value).replace("KEY", key))
    (tmp_path / "all.jsonl").write_text(json.dumps(line) + "\n")
    loaded = Benchmark.load(tmp_path / "all.jsonl")
    with pytest.raises(ValueError, match=message) as error:
        loaded.metrics_of(loaded[0]) if part == "metrics" else loaded.outcomes_of(loaded[0])
    assert record.run_id in one_line(error)
