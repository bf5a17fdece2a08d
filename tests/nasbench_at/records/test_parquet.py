from __future__ import annotations

import json
import sys
from dataclasses import replace

import pytest

from nasbench_at.records import Benchmark
from tests.nasbench_at.conftest import one_line
from tests.nasbench_at.records.test_records import make_record

parquet = pytest.importorskip("pyarrow.parquet")
pyarrow = pytest.importorskip("pyarrow")


@pytest.fixture
def records():
    """One not evaluated, one of other keys, and values of one key that have two types."""
    mixed = make_record("b", method="trades", pgd=0.75)
    mixed = replace(mixed, config={**mixed.config, "seed": 1, "beta": 6.0, "tau": [1, 2]})
    other = replace(make_record("c", pgd=0.5), config={"model": "mine:net", "tau": "none"})
    return [make_record("a"), mixed, other]


def test_records_round_trip(records, tmp_path):
    Benchmark(records).save(tmp_path / "all.parquet")
    assert list(Benchmark.load(tmp_path / "all.parquet")) == records


def test_columns_can_be_queried_without_this_package(records, tmp_path):
    Benchmark(records).save(tmp_path / "all.parquet")
    columns = parquet.read_table(tmp_path / "all.parquet").to_pydict()
    assert columns["method"] == ["at", "trades", None]
    assert columns["beta"] == [None, 6.0, None]
    assert columns["pgd"] == [None, 0.75, 0.5]
    assert columns["tau"] == [None, "[1, 2]", '"none"']
    assert json.loads(columns["blocks"][0]) == ["residual", "dense"]
    assert json.loads(columns["config"][1]) == records[1].config
    assert json.loads(columns["evaluations"][0]) == []


def test_nothing_round_trips(tmp_path):
    Benchmark([]).save(tmp_path / "all.parquet")
    assert len(Benchmark.load(tmp_path / "all.parquet")) == 0


@pytest.mark.parametrize("action", ["save", "load"])
def test_missing_pyarrow_is_one_line_naming_the_extra(action, records, tmp_path, monkeypatch):
    path = tmp_path / "all.parquet"
    Benchmark(records).save(path)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ValueError, match=r"pip install 'nasbench-at\[parquet\]'") as error:
        Benchmark(records).save(path) if action == "save" else Benchmark.load(path)
    one_line(error)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"run_id,config\n"])
def test_file_that_is_no_parquet_is_named(content, tmp_path):
    path = tmp_path / "all.parquet"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"cannot read records '.*all\.parquet'") as error:
        Benchmark.load(path)
    one_line(error)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"cannot read records '.*none\.parquet': .*No such file"):
        Benchmark.load(tmp_path / "none.parquet")


def test_other_tables_are_refused(tmp_path):
    parquet.write_table(pyarrow.table({"run_id": ["a"]}), tmp_path / "all.parquet")
    with pytest.raises(ValueError, match=r"'.*all\.parquet': it has no column 'architecture'"):
        Benchmark.load(tmp_path / "all.parquet")
