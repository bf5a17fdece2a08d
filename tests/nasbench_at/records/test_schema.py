"""What is no record: one line that names file, field and value; the others are still shown."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from analysis.report import write_report
from nasbench_at.cli import main
from nasbench_at.records import AttackResult, Benchmark, read_metrics, read_record
from nasbench_at.records.run_folders import StudyRuns
from tests.nasbench_at.conftest import one_line
from tests.nasbench_at.records.test_records import make_record, write

Change = Callable[[dict[str, Any]], Any]


def in_result(**changes: Any) -> Change:
    """Changes the row of pgd."""
    return lambda record: record["evaluations"][0]["results"][1].update(changes)


def at_top(**changes: Any) -> Change:
    return lambda record: record.update(changes)


BROKEN: dict[str, tuple[Change, str]] = {
    "name is a number": (at_top(run_id=5), "run_id: input should be a valid string, got 5"),
    "no name": (at_top(run_id=""), "run_id: string should have at least 1 character, got ''"),
    "formula": (at_top(num_params="=1+1"), "num_params: input should be a valid integer, got '=1+"),
    "negative": (at_top(num_params=-1), "num_params: input should be greater than or equal to 0"),
    "bool": (at_top(num_params=True), "num_params: input should be a valid integer, got True"),
    "radius": (in_result(eps="big"), "0.results.1.eps: input should be a valid number, got 'big'"),
    "own radius": (at_top(config={"eps": "big"}), "config.eps: input should be a valid number"),
    "seed": (at_top(config={"seed": 1.5}), "config.seed: input should be a valid integer, got 1.5"),
    "500 %": (
        in_result(num_correct=50_000),
        "num_correct must be at most num_samples, got 50000",
    ),
    "no images": (in_result(num_samples=0, num_correct=0), "num_samples: input should be greater"),
    "less than none": (in_result(num_correct=-1), "num_correct: input should be greater than or"),
    "NaN": (in_result(seconds=float("nan")), "0.results.1.seconds: input should be a finite n"),
    "infinite": (
        at_top(config={"a": [1, {"b": float("inf")}]}),
        "config.a.1.b: input should be a f",
    ),
    "unknown": (in_result(accuracy=0.5), "evaluations.0.results.1.accuracy: unexpected keyword"),
    "selected": (
        at_top(training={"selected": {"validation_robust": 5.0}}),
        "training.selected.validation_robust: input should be less than or equal to 1, got 5.0",
    ),
    "seconds": (at_top(provenance={"train_seconds": "1 h"}), "provenance.train_seconds: input sho"),
    "no rows": (lambda r: r["evaluations"][0].update(results=[]), "results must be at least one"),
    "old": (at_top(schema_version=1), "schema_version must be 2, got 1; another one needs another"),
    "long": (at_top(run_id=list(range(10_000))), "run_id: input should be a valid string, got [0,"),
}
NO_JSON = {
    "brackets": "[" * 100_000,
    "cut": '{"run_id"',
    "number": "3",
    "nothing": "",
    "zero": "\0",
}


def broken_texts() -> dict[str, str]:
    texts = dict(NO_JSON)
    for name, (change, _) in BROKEN.items():
        data = json.loads(make_record("broken", pgd=0.5).to_json())
        change(data)
        texts[name] = json.dumps(data)
    return texts


@pytest.mark.parametrize(("change", "message"), BROKEN.values(), ids=BROKEN)
def test_wrong_field_is_named_with_its_value(change, message, tmp_path):
    record = json.loads(make_record("broken", pgd=0.5).to_json())
    change(record)
    path = write(tmp_path, make_record("broken"), json.dumps(record))
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        read_record(path)
    line = one_line(error)
    assert line.startswith(f"cannot read record {str(path)!r}: ")
    assert len(line) < 300 + len(str(path))


@pytest.mark.parametrize("text", NO_JSON.values(), ids=NO_JSON)
def test_what_is_no_json_object_is_named(text, tmp_path):
    path = write(tmp_path, make_record("broken"), text)
    with pytest.raises(ValueError, match=re.escape(f"cannot read record {str(path)!r}: ")) as error:
        read_record(path)
    one_line(error)


def test_fields_are_checked_when_a_result_is_made():
    with pytest.raises(ValueError, match="num_correct must be at most num_samples, got 5 of 3"):
        AttackResult(attack="pgd", num_samples=3, num_correct=5)


# Many, one of which is broken


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A good run, and one for each way to be broken."""
    write(tmp_path / "runs", make_record("good", pgd=0.5))
    for i, text in enumerate(broken_texts().values()):
        write(tmp_path / "runs", make_record(f"broken{i}"), text)
    return tmp_path / "runs"


def test_good_records_are_loaded_and_broken_ones_named_and_counted(runs):
    count = len(broken_texts())
    with pytest.warns(UserWarning, match="cannot read|left out") as warned:
        loaded = Benchmark.load(runs)
    assert [record.run_id for record in loaded] == ["good"]
    lines = [str(warning.message) for warning in warned]
    assert lines[-1] == f"left out {count} of {count + 1} records"
    assert len(lines) == count + 1
    for i in range(count):
        assert sum(f"broken{i}/record.json'" in line for line in lines) == 1


def test_query_shows_the_good_ones_and_warns(runs, capsys):
    assert main(["query", str(runs)]) == 0
    out, err = capsys.readouterr()
    assert "good" in out
    assert "broken" not in out
    assert len(err.splitlines()) == len(broken_texts()) + 1
    assert all(line.startswith("nasbench-at: warning: ") for line in err.splitlines())


def test_report_shows_the_good_ones_and_warns(runs, tmp_path):
    with pytest.warns(UserWarning, match="cannot read|left out") as warned:
        page = write_report(runs, tmp_path / "report.html").read_text("utf-8")
    lines = [str(warning.message) for warning in warned]
    assert "good" in page
    assert len([line for line in lines if "/record.json'" in line]) == len(broken_texts())


def test_broken_line_is_left_out(tmp_path):
    path = tmp_path / "all.jsonl"
    Benchmark([make_record("good", pgd=0.5)]).save(path)
    data = json.loads(make_record("bad").to_json()) | {"num_params": -1}
    path.write_text(json.dumps(data) + "\n" + path.read_text())
    with pytest.warns(UserWarning, match="cannot read|left out") as warned:
        loaded = Benchmark.load(path)
    assert [record.run_id for record in loaded] == ["good"]
    lines = [str(warning.message) for warning in warned]
    assert lines[0].startswith(f"cannot read line 1 of {str(path)!r}: num_params: input should")
    assert lines[1:] == ["left out 1 of 2 records"]


def test_row_of_a_record_of_another_schema_is_left_out(tmp_path):
    path = tmp_path / "all.parquet"
    newer = make_record("newer")
    object.__setattr__(newer, "schema_version", 99)  # as another version of the package has it
    Benchmark([make_record("good", pgd=0.5), newer]).save(path)
    with pytest.warns(UserWarning, match="cannot read|left out") as warned:
        loaded = Benchmark.load(path)
    assert [record.run_id for record in loaded] == ["good"]
    lines = [str(warning.message) for warning in warned]
    assert lines[0].startswith(f"cannot read row 2 of {str(path)!r}: schema_version must be 2")
    assert lines[1:] == ["left out 1 of 2 records"]


# Other files


GOOD_ROW = {"epoch": 1, "train_accuracy": 0.5, "validation_natural": 0.5, "validation_robust": 0.5}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "line 2: EOF while parsing"),
        ("3", "line 2: input should be a valid dictionary, got 3"),
        ("{}", "line 2: epoch: field required (and 3 more errors)"),
        (json.dumps(GOOD_ROW | {"epoch": "x"}), "epoch: input should be a valid integer, got 'x'"),
        (json.dumps(GOOD_ROW | {"train_accuracy": 5.0}), "train_accuracy: input should be less"),
        (
            json.dumps(GOOD_ROW | {"lr": float("nan")}),
            "line 2: lr: input should be a finite number",
        ),
        (json.dumps(GOOD_ROW | {"attention": [["x"]]}), "attention.0.0: input should be a valid n"),
        ("[" * 100_000, "line 2: recursion limit exceeded"),
    ],
)
def test_wrong_metrics_are_named(text, message, tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(json.dumps(GOOD_ROW) + "\n" + text + "\n")
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        read_metrics(path)
    assert one_line(error).startswith(f"cannot read metrics {str(path)!r}: ")


def test_metrics_are_read_and_there_may_be_none_yet(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert read_metrics(path) == []
    path.write_text(json.dumps(GOOD_ROW) + "\n")
    assert read_metrics(path) == [GOOD_ROW]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "input should be a valid dictionary, got []"),
        ('{"runs": 5, "finished": true}', "runs: input should be a valid list, got 5"),
        ('{"runs": [5], "finished": true}', "runs.0: input should be a valid string, got 5"),
        ('{"runs": ["a"], "finished": "no"}', "finished: input should be a valid boolean"),
        ('{"runs": ["../../etc"], "finished": true}', "runs.0: string should match pattern"),
        ("[" * 100_000, "recursion limit exceeded"),
    ],
)
def test_wrong_list_of_a_study_s_runs_is_named(content, message, tmp_path):
    path = tmp_path / "runs.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        StudyRuns.read(tmp_path)
    assert one_line(error).startswith(f"cannot read {str(path)!r}: ")
