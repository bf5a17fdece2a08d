from __future__ import annotations

from pathlib import Path

import pytest

from nasbench_at.records import Benchmark, places, shipped_tables
from tests.nasbench_at.conftest import one_line
from tests.nasbench_at.records.tables import ship, write_run, write_runs


@pytest.fixture
def tiny(tmp_path, monkeypatch) -> Path:
    """A table ``tiny`` that comes with the package, from an empty working directory."""
    monkeypatch.setattr(places, "SHIPPED", tmp_path / "tables")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    write_runs(tmp_path / "runs")
    return ship(tmp_path / "tables", tmp_path / "runs")


def test_table_of_the_package_is_loaded_by_name(tiny):
    loaded = Benchmark.load("tiny")
    assert len(loaded) == 8
    assert list(loaded) == list(Benchmark.load(tiny))
    assert len(loaded.learning_curves()) == 16


def test_name_stands_before_a_folder_that_is_called_so(tiny):
    record = write_run(Path("tiny"), 3)
    assert len(Benchmark.load("tiny")) == 8
    for folder in ("./tiny", "tiny/", Path("tiny")):
        assert [found.run_id for found in Benchmark.load(folder)] == [record.run_id]


def test_one_run_of_a_table_is_a_place(tiny):
    wanted = Benchmark.load("tiny")[3]
    for place in (f"tiny:{wanted.run_id}", f"{tiny}:{wanted.run_id}"):
        loaded = Benchmark.load(place)
        assert list(loaded) == [wanted]
        assert len(loaded.learning_curves()) == 2
    with pytest.raises(ValueError, match=r"tiny\.parquet' has no run 'nope'") as error:
        Benchmark.load("tiny:nope")
    one_line(error)


@pytest.mark.parametrize("name", ["tyni", "tyni:a", Path("tiny")])
def test_unknown_name_says_which_tables_there_are(name, tiny):
    message = rf"'{name}' is no folder of runs; tables that come with the package: tiny$"
    with pytest.raises(ValueError, match=message) as error:
        Benchmark.load(name)
    one_line(error)


def test_no_table_is_said_so(tmp_path, monkeypatch):
    monkeypatch.setattr(places, "SHIPPED", tmp_path / "tables")
    with pytest.raises(ValueError, match="tables that come with the package: none"):
        Benchmark.load("digits")


def test_edited_table_of_the_package_is_refused(tiny):
    other = Benchmark.load("tiny")[:3]
    other.save(tiny)
    message = r"tiny\.parquet' is not the table that 'tiny\.croissant\.json' describes: its SHA-256"
    with pytest.raises(ValueError, match=message) as error:
        Benchmark.load("tiny")
    one_line(error)
    assert len(Benchmark.load(tiny)) == 3  # as a file it is whole


@pytest.mark.parametrize("content", [None, "{", "{}", '{"distribution": []}', "[]"])
def test_table_of_the_package_without_its_metadata_is_refused(content, tiny):
    metadata = tiny.with_name("tiny.croissant.json")
    metadata.unlink() if content is None else metadata.write_text(content)
    with pytest.raises(ValueError, match=r"cannot check '.*tiny\.parquet' against") as error:
        Benchmark.load("tiny")
    one_line(error)


@pytest.mark.parametrize("name", shipped_tables())
def test_tables_that_come_with_the_package_are_whole(name):
    loaded = Benchmark.load(name)
    assert len(loaded.learning_curves()["run_id"].unique()) == len(loaded)
    assert all(len(loaded.outcomes_of(record)) for record in loaded)
