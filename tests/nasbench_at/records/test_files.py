from __future__ import annotations

import gc
import os

import pytest

from nasbench_at.records import Benchmark
from tests.nasbench_at.conftest import one_line
from tests.nasbench_at.records.test_records import make_record, write

# Folders


def test_runs_own_folders_are_not_searched(tmp_path):
    write(tmp_path, make_record("a"))
    (tmp_path / "a" / "config.yaml").touch()
    write(tmp_path / "a" / "record.progress", make_record("inside"))
    assert [record.run_id for record in Benchmark.load(tmp_path)] == ["a"]


def test_record_beside_runs_does_not_hide_them(tmp_path):
    """Such as ``nasbench-at evaluate --out runs/record.json`` leaves."""
    write(tmp_path, make_record("runs"))
    write(tmp_path / "runs", make_record("a"))
    assert [record.run_id for record in Benchmark.load(tmp_path)] == ["runs", "a"]


def test_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(ValueError, match=r"cannot read folder '.*': Permission denied") as error:
        Benchmark.load(tmp_path)
    one_line(error)


@pytest.mark.parametrize("was_enabled", [True, False])
def test_garbage_collection_is_left_as_it_was(was_enabled, tmp_path):
    try:
        gc.enable() if was_enabled else gc.disable()
        with pytest.raises(ValueError, match="is no folder of runs"):
            Benchmark.load(tmp_path / "none")
        assert gc.isenabled() == was_enabled
    finally:
        gc.enable()


# Lines


@pytest.fixture
def torn(tmp_path):
    """Three lines, the last of which was cut short."""
    path = tmp_path / "all.jsonl"
    Benchmark([make_record(f"{i}") for i in range(3)]).save(path)
    path.write_text(path.read_text()[:-20])
    return path


def test_last_line_that_was_cut_short_is_skipped_with_a_warning(torn):
    with pytest.warns(UserWarning, match=r"skipped line 3 of '.*all\.jsonl', the last, which was"):
        loaded = Benchmark.load(torn)
    assert [record.run_id for record in loaded] == ["0", "1"]


def test_last_line_without_its_end_is_kept(tmp_path):
    path = tmp_path / "all.jsonl"
    Benchmark([make_record("0"), make_record("1")]).save(path)
    path.write_text(path.read_text().rstrip("\n"))
    assert [record.run_id for record in Benchmark.load(path)] == ["0", "1"]


@pytest.mark.parametrize(("damaged", "number"), [(0, 1), (1, 2)])
def test_damaged_line_that_others_follow_is_named(torn, damaged, number):
    lines = torn.read_text().splitlines()
    lines[damaged] = lines[damaged][:-20]
    torn.write_text("\n".join(lines[:2]) + "\n")
    with pytest.warns(
        UserWarning, match=rf"cannot read line {number} of '.*all\.jsonl'|left out 1 of 2"
    ):
        assert len(Benchmark.load(torn)) == 1


def test_whole_last_line_of_a_newer_schema_is_left_out(tmp_path):
    path = tmp_path / "all.jsonl"
    Benchmark([make_record()]).save(path)
    path.write_text(path.read_text().replace('"schema_version": 2}\n', '"schema_version": 99}'))
    with pytest.warns(UserWarning, match=r"line 1 .* schema_version must be 2, got 99|left o"):
        assert len(Benchmark.load(path)) == 0


def test_empty_file_has_no_records(tmp_path):
    (tmp_path / "all.jsonl").touch()
    assert len(Benchmark.load(tmp_path / "all.jsonl")) == 0
