from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from scipy import stats

from nasbench_at.records import Benchmark, Evaluation
from tests.nasbench_at.conftest import one_line
from tests.nasbench_at.records.test_records import make_record, make_result, write


def test_summary_has_the_interval_of_the_mean_over_seeds():
    values = (0.5, 0.6, 0.75)
    runs = [make_record(f"a{seed}", pgd=pgd) for seed, pgd in enumerate(values)]
    runs = [replace(r, config={**r.config, "seed": i}) for i, r in enumerate(runs)]
    runs.append(make_record("b", method="trades", pgd=0.9))
    frame = Benchmark(runs).summary().frame
    columns = list(frame.columns)
    start = columns.index("pgd")
    assert columns[start : start + 4] == ["pgd", "pgd_std", "pgd_low", "pgd_high"]
    assert columns[start + 4 :] == ["pgd_seeds", "pgd_norm", "pgd_eps", "pgd_num_samples"]
    low, high = stats.t.interval(0.95, 2, sum(values) / 3, stats.sem(values))
    assert frame["pgd_low"][0] == pytest.approx(low)
    assert frame["pgd_high"][0] == pytest.approx(high)
    assert math.isnan(frame["pgd_low"][1])  # one seed
    assert math.isnan(frame["pgd_high"][1])


def test_files_of_equal_contents_are_one_configuration_wherever_they_lie():
    def moved(folder: str, seed: int, digest: str = "d1"):
        data, plugin = f"{folder}/mine.npz", f"{folder}/plugin.py"
        config = {"data": data, "plugins": [plugin], "contents": {data: digest, plugin: "p1"}}
        record = make_record(f"r{seed}", pgd=0.5 + seed / 10)
        return replace(record, config={**record.config, **config, "seed": seed})

    runs = [moved("here", 0), moved("there", 1), moved("here", 2, digest="d2")]
    assert Benchmark(runs).summary().frame["seeds"].tolist() == [2, 1]


def test_records_without_a_seed_are_no_seeds_of_each_other():
    config = {"model": "mine:net", "weights": "w.pt", "data": "stripes"}
    models = [replace(make_record(name, pgd=0.5), config=config) for name in ("a", "b")]
    assert Benchmark(models).summary().frame["seeds"].tolist() == [1, 1]


def test_costs_are_seconds_of_training_and_of_whole_attacks():
    seconds = {"natural": 1.0, "aa": 30.0, "aa/apgd-ce": 20.0}
    rows = [make_result(name, 0.5, seconds=value) for name, value in seconds.items()]
    other = [make_result(name, 0.5, eps=0.2, seconds=30.0) for name in ("aa", "aa/apgd-ce")]
    timed = replace(
        make_record("timed"),
        provenance={"train_seconds": 60.0},
        evaluations=(Evaluation(results=tuple(rows)),),
    )
    radii = replace(timed, evaluations=(Evaluation(results=(*rows, *other)),))
    frame = Benchmark([timed, radii, make_record("old")]).to_frame()
    assert frame["train_seconds"].tolist()[:2] == [60.0, 60.0]
    assert frame["evaluation_seconds"].tolist()[:2] == [31.0, 61.0]
    assert frame[["train_seconds", "evaluation_seconds"]].isna().iloc[2].all()


@pytest.fixture
def runs(tmp_path):
    """Two runs of two epochs each."""
    for name in ("a", "b"):
        folder = write(tmp_path / "runs", make_record(name)).parent
        lines = [
            {
                "epoch": epoch,
                "train_loss": 1 / epoch,
                "train_accuracy": 0.5,
                "validation_natural": 0.5,
                "validation_robust": 0.25,
                "attention": [[0.5, 0.5]],
            }
            for epoch in (1, 2)
        ]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path / "runs"


def test_learning_curves_have_a_row_an_epoch(runs):
    frame = Benchmark.load(runs).learning_curves()
    assert list(frame.columns)[:3] == ["run_id", "epoch", "train_loss"]
    assert "attention" not in frame.columns  # a matrix is no metric
    assert frame["run_id"].tolist() == ["a", "a", "b", "b"]
    assert frame["epoch"].tolist() == [1, 2, 1, 2]
    assert frame["train_loss"].tolist() == [1.0, 0.5, 1.0, 0.5]


def test_learning_curves_are_read_when_asked_for_and_of_what_was_queried(runs):
    loaded = Benchmark.load(runs)
    (runs / "b" / "metrics.jsonl").unlink()
    chosen = loaded.filter(lambda record: record.run_id == "a").query(method="at")[:1]
    assert chosen.learning_curves()["run_id"].unique().tolist() == ["a"]
    with pytest.raises(ValueError, match=r"run 'b' has no metrics in .*/b") as error:
        loaded.learning_curves()
    one_line(error)


def test_run_found_in_a_file_too_keeps_its_folder(runs):
    file = runs.parent / "all.jsonl"
    Benchmark([make_record("a", pgd=0.5)]).save(file)
    for order in ((runs, file), (file, runs)):
        loaded = Benchmark.load(*order)
        assert loaded.best().run_id == "a"  # the file knows its evaluation
        assert len(loaded.learning_curves()) == 4


def test_record_of_neither_folder_nor_table_has_no_learning_curve():
    with pytest.raises(ValueError, match="run 'a' has no metrics") as error:
        Benchmark([make_record("a")]).learning_curves()
    one_line(error)
