from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from nasbench_at import Benchmark, Record, RunConfig
from nasbench_at.config import resolve
from nasbench_at.records import SCHEMA_VERSION, AttackResult, Evaluation, read_record
from tests.nasbench_at.conftest import one_line


def make_result(attack: str, accuracy: float, *, eps: float = 0.1, **changes: Any) -> AttackResult:
    """A row of 10,000 images; under PGD-20 unless it is natural."""
    own: dict[str, Any] = {"attack": attack, "num_samples": 10_000, "data": "stripes/test"}
    own |= {"data_fingerprint": "d1"}
    if attack != "natural":
        own |= {
            "norm": "Linf",
            "eps": eps,
            "seed": 0,
            "settings": {"steps": 20, "start": "uniform"},
        }
    own |= changes
    return AttackResult(num_correct=round(accuracy * own["num_samples"]), **own)


def make_evaluation(accuracies: Mapping[str, float], **changes: Any) -> Evaluation:
    rows = (make_result(attack, accuracy, **changes) for attack, accuracy in accuracies.items())
    return Evaluation(results=tuple(rows), data="stripes/test", data_fingerprint="d1")


def make_record(name="a", *, method="at", blocks=("residual", "dense"), pgd=None) -> Record:
    return Record(
        run_id=name,
        config={"method": method, "blocks": list(blocks), "eps": 0.1, "seed": 0},
        architecture="0" * 16,
        num_params=1234,
        provenance={"device": "cpu"},
        training={"epochs": 2},
        evaluations=() if pgd is None else (make_evaluation({"natural": 0.9, "pgd": pgd}),),
    )


@pytest.fixture
def benchmark_of_three() -> Benchmark:
    return Benchmark(
        [
            make_record("a", pgd=0.5),
            make_record("b", method="trades", pgd=0.75),
            make_record("c", blocks=("residual",)),
        ]
    )


def write(folder, record, text=None):
    path = folder / record.run_id / "record.json"
    path.parent.mkdir(parents=True)
    path.write_text(record.to_json() if text is None else text)
    return path


@pytest.mark.parametrize("record", [make_record(), make_record(pgd=0.25)])
def test_json_round_trip_is_exact(record):
    text = record.to_json()
    assert Record.from_json(text) == record
    assert json.loads(text)["schema_version"] == SCHEMA_VERSION
    assert text.endswith("}\n")


@pytest.mark.parametrize("version", [SCHEMA_VERSION + 1, 1, 0, -1, "2", None, 2.0])
def test_other_schema_versions_are_refused(version):
    text = json.dumps({**json.loads(make_record().to_json()), "schema_version": version})
    message = f"schema_version must be {SCHEMA_VERSION}, got {version!r}; another one needs"
    with pytest.raises(ValueError, match=re.escape(message)):
        Record.from_json(text)


def test_unknown_keys_are_refused():
    text = json.dumps({**json.loads(make_record().to_json()), "zeta": 1, "alpha": 2})
    with pytest.raises(
        ValueError, match=r"^(zeta|alpha): unexpected keyword argument \(and 1 more"
    ):
        Record.from_json(text)


def test_missing_keys_are_refused():
    with pytest.raises(ValueError, match=r"^config: field required \(and 2 more errors\)"):
        Record.from_json(json.dumps({"schema_version": 2, "run_id": "a", "provenance": {}}))


def test_accuracy_is_looked_up_by_attack():
    assert make_record(pgd=0.25).accuracy("pgd") == 0.25
    assert make_record(pgd=0.25).accuracy("natural") == 0.9


@pytest.mark.parametrize(("pgd", "has"), [(None, "nothing"), (0.5, "natural, pgd")])
def test_accuracy_under_an_attack_that_was_not_run_is_refused(pgd, has):
    with pytest.raises(ValueError, match=f"run 'a' was not evaluated by 'aa'; it has: {has}"):
        make_record(pgd=pgd).accuracy("aa")


def test_record_file_is_read(tmp_path):
    record = make_record(pgd=0.5)
    assert read_record(write(tmp_path, record)) == record


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"schema_version": 2}', "\x00"])
def test_damaged_record_file_is_named_in_one_line(text, tmp_path):
    path = write(tmp_path, make_record(), text)
    with pytest.raises(ValueError, match="cannot read record") as error:
        read_record(path)
    assert str(path) in one_line(error)


def test_missing_record_file_is_named_in_one_line(tmp_path):
    with pytest.raises(ValueError, match=r"cannot read record '.*none.json'") as error:
        read_record(tmp_path / "none.json")
    one_line(error)


def test_folder_of_runs_is_loaded_in_order_and_other_files_ignored(tmp_path):
    for name in ("c", "a", "b"):
        write(tmp_path, make_record(name))
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "notes.txt").write_text("mine")
    assert [record.run_id for record in Benchmark.load(tmp_path)] == ["a", "b", "c"]


def test_damaged_record_in_a_folder_of_runs_is_named(tmp_path):
    write(tmp_path, make_record("a"))
    path = write(tmp_path, make_record("b"), "{")
    with pytest.warns(UserWarning, match=re.escape(str(path)) + "|left out 1 of 2"):
        assert len(Benchmark.load(tmp_path)) == 1


def test_missing_folder_of_runs_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"'.*none' is no folder of runs"):
        Benchmark.load(tmp_path / "none")


def test_benchmark_is_a_sequence(benchmark_of_three):
    assert len(benchmark_of_three) == 3
    assert benchmark_of_three[0].run_id == "a"
    assert [record.run_id for record in benchmark_of_three] == ["a", "b", "c"]
    assert [record.run_id for record in benchmark_of_three[1:]] == ["b", "c"]
    assert benchmark_of_three[1:].best().run_id == "b"


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ({"method": "at"}, ["a", "c"]),
        ({"blocks": ("residual", "dense")}, ["a", "b"]),
        ({"blocks": ["residual", "dense"], "method": "at"}, ["a"]),
        ({"method": "mart"}, []),
        ({"norm": "Linf"}, ["a", "b", "c"]),  # which is left out
        ({"norm": "L2"}, []),
        ({}, ["a", "b", "c"]),
    ],
)
def test_query_keeps_the_records_with_these_values(benchmark_of_three, query, names):
    assert [record.run_id for record in benchmark_of_three.query(**query)] == names


@pytest.mark.parametrize("blocks", [("dense", "residual"), [["residual", "dense"]] * 3])
def test_query_finds_blocks_in_any_order_and_once_a_module(blocks):
    mixed = [["residual", "dense"], ["dense", "residual"], ["residual", "dense"]]
    records = [make_record("flat"), make_record("mixed", blocks=mixed), make_record("deep")]
    records = [
        replace(r, config={**r.config, "num_modules": 15 if r.run_id == "deep" else 3})
        for r in records
    ]
    names = [record.run_id for record in Benchmark(records).query(blocks=blocks)]
    assert names == ["flat", "mixed", "deep"][: 3 if isinstance(blocks, tuple) else 2]


COLUMNS = {
    "blocks": ["residual", "dense"],
    "num_modules": 3,
    "attention_weights": [[0.7, 0.3]] * 3,
    "attention_keep": [[0]] * 3,
    "milestones": (1, 2),
}


@pytest.mark.parametrize(
    ("wanted", "is_found"),
    [
        ({"blocks": ["dense", "residual"]}, True),
        ({"blocks": [["dense", "residual"]] * 3}, True),
        ({"blocks": [["dense", "residual"]] * 2}, False),
        ({"blocks": ["dense", "residual"], "num_modules": 4}, False),
        ({"blocks": ["dense", "residual", "residual"]}, False),
        ({"blocks": ["dense"]}, False),
        ({"blocks": "dense"}, False),
        # Columns of the blocks as they are wanted
        ({"blocks": ["dense", "residual"], "attention_weights": [[0.3, 0.7]] * 3}, True),
        ({"blocks": ["dense", "residual"], "attention_weights": [[0.7, 0.3]] * 3}, False),
        ({"blocks": ["dense", "residual"], "attention_weights": [[0.3, 0.7]] * 4}, False),
        ({"blocks": ["dense", "residual"], "attention_keep": [[1]] * 3}, True),
        ({"blocks": ["dense", "residual"], "attention_keep": [[0]] * 3}, False),
        # Columns of the configuration's own
        ({"attention_weights": [[0.7, 0.3]] * 3}, True),
        ({"attention_weights": [[0.3, 0.7]] * 3}, False),
        ({"milestones": [1, 2]}, True),
        ({"milestones": [2, 1]}, False),
        ({"milestones": [1, 2], "blocks": ["mbconv"]}, False),
        ({}, True),
    ],
)
def test_query_holds_columns_against_the_blocks_that_they_belong_to(wanted, is_found):
    records = [replace(make_record(), config=COLUMNS)]
    assert len(Benchmark(records).query(**wanted)) == is_found


def test_query_of_blocks_finds_ds_nets_by_name_and_no_other_network():
    named = [resolve(RunConfig(model=model)) for model in ("ds_net_4", "tiny_wrn")]
    runs = Benchmark(
        [replace(make_record(config.run_id), config=config.to_dict()) for config in named]
    )
    found = runs.query(blocks=("residual", "mbconv", "dense", "ada_rk"))
    assert [record.run_id for record in found] == [named[0].run_id]


def test_query_by_an_unknown_key_names_the_known_ones(benchmark_of_three):
    message = (
        r"no configuration key 'epss'; did you mean 'eps'\? known: blocks, eps, method, norm, seed"
    )
    with pytest.raises(ValueError, match=message):
        benchmark_of_three.query(epss=0.1)


def test_query_of_nothing_is_nothing():
    assert len(Benchmark([]).query(method="at")) == 0


def test_frame_has_a_row_a_record(benchmark_of_three):
    frame = benchmark_of_three.to_frame()
    assert frame["run_id"].tolist() == ["a", "b", "c"]
    assert frame["method"].tolist() == ["at", "trades", "at"]
    assert frame["num_params"].tolist() == [1234] * 3
    assert frame["pgd"].tolist()[:2] == [0.5, 0.75]
    assert math.isnan(frame["pgd"][2])


def test_frame_of_a_run_that_trains_still_has_its_configuration():
    frame = Benchmark([replace(make_record(), training={})]).to_frame()
    assert frame["eps"].tolist() == [0.1]


def test_frame_of_nothing_is_empty():
    assert len(Benchmark([]).to_frame()) == 0


# Many places, one file


def test_runs_at_any_depth_and_of_several_folders_are_loaded_together(tmp_path):
    write(tmp_path / "one" / "study", make_record("deep"))
    write(tmp_path / "one", make_record("a"))
    write(tmp_path / "two", make_record("b"))
    loaded = Benchmark.load(tmp_path / "one", tmp_path / "two")
    assert {record.run_id for record in loaded} == {"deep", "a", "b"}
    assert len(loaded) == 3


@pytest.mark.parametrize("order", [("one", "two"), ("two", "one")])
def test_run_that_is_found_twice_counts_once_with_its_evaluation(tmp_path, order):
    write(tmp_path / "one", make_record("a"))
    write(tmp_path / "two", make_record("a", pgd=0.5))
    (record,) = Benchmark.load(*(tmp_path / name for name in order))
    assert record.accuracy("pgd") == 0.5


def test_file_of_lines_round_trips(benchmark_of_three, tmp_path):
    benchmark_of_three.save(tmp_path / "all.jsonl")
    assert (tmp_path / "all.jsonl").read_text().count("\n") == 3
    assert list(Benchmark.load(tmp_path / "all.jsonl")) == list(benchmark_of_three)


def test_other_files_are_not_written(benchmark_of_three, tmp_path):
    with pytest.raises(ValueError, match=r"saved to a \.jsonl or \.parquet file, got '.*all.pkl'"):
        benchmark_of_three.save(tmp_path / "all.pkl")
    assert not list(tmp_path.iterdir())


def test_missing_file_of_lines_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"cannot read records '.*none\.jsonl'"):
        Benchmark.load(tmp_path / "none.jsonl")


# Selections and summaries


def test_filter_keeps_what_a_function_keeps(benchmark_of_three):
    kept = benchmark_of_three.filter(lambda record: record.run_id > "a")
    assert [record.run_id for record in kept] == ["b", "c"]


def test_best_is_the_most_accurate_and_the_first_of_equals(benchmark_of_three):
    assert benchmark_of_three.best().run_id == "b"
    assert benchmark_of_three.best("natural").run_id == "a"
    with pytest.raises(ValueError, match="none of 3 records was evaluated by 'aa'"):
        benchmark_of_three.best("aa")


def test_summary_has_a_row_a_configuration_with_mean_and_deviation_over_seeds():
    records = [
        replace(record, config={**record.config, "seed": seed})
        for seed, pgd in enumerate((0.5, 0.6, 0.7))
        for record in (make_record(f"a{seed}", pgd=pgd),)
    ]
    records.append(make_record("b", method="trades", pgd=0.9))
    records.append(
        replace(make_record("b1", method="trades"), config={**records[-1].config, "seed": 1})
    )
    frame = Benchmark(records).summary().frame
    assert list(frame.columns)[:3] == ["method", "num_params", "seeds"]  # all else is the same
    assert frame["method"].tolist() == ["at", "trades"]
    assert frame["seeds"].tolist() == [3, 2]
    assert frame["pgd_seeds"].tolist() == [3, 1]
    assert frame["pgd"].tolist() == pytest.approx([0.6, 0.9])
    assert frame["pgd_std"][0] == pytest.approx(0.1)
    assert math.isnan(frame["pgd_std"][1])  # one seed of two was evaluated


def test_summary_of_nothing_is_empty():
    assert len(Benchmark([]).summary().frame) == 0


def test_main_row_is_that_of_the_run_s_own_norm_and_radius():
    rows = [("Linf", 0.1, 0.1), ("L2", 0.1, 0.2), ("L2", 0.5, 0.3), ("Linf", 0.5, 0.4)]
    evaluations = tuple(
        make_evaluation({"pgd": accuracy}, norm=norm, eps=eps) for norm, eps, accuracy in rows
    )
    record = replace(make_record(), evaluations=evaluations)
    assert record.accuracy("pgd") == 0.1  # without a norm it is L-infinity
    for norm, eps, accuracy in rows:
        config = {**record.config, "norm": norm, "eps": eps}
        assert replace(record, config=config).accuracy("pgd") == accuracy
