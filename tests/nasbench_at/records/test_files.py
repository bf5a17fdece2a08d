from __future__ import annotations

import fcntl
import gc
import os
import re
import subprocess
import sys
import threading

import pytest

from nasbench_at.records import Benchmark, append_record
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


def append_many(path, count):
    for i in range(count):
        append_record(path, make_record(f"{i}", pgd=i / count))


def test_file_that_cannot_be_appended_to_for_lack_of_room_is_named(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match=r"No space left on device: '.*all\.jsonl'$"):
        append_record(tmp_path / "all.jsonl", make_record("a"))


FOUR_WRITERS = """
import multiprocessing, sys
from nasbench_at.records import Record, append_record

def write(name):
    start.wait()
    for i in range(50):
        append_record(sys.argv[1], Record(f"{name}-{i}", {}, "", i, {"padding": name * 3000}))

context = multiprocessing.get_context("fork")
start = context.Barrier(4)
writers = [context.Process(target=write, args=(name,)) for name in "abcd"]
for writer in writers:
    writer.start()
for writer in writers:
    writer.join()
sys.exit(max(writer.exitcode for writer in writers))
"""


def test_processes_that_append_at_once_lose_nothing(tmp_path):
    """In a process of their own, because one that has threads must not be forked."""
    path = tmp_path / "all.jsonl"
    subprocess.run([sys.executable, "-c", FOUR_WRITERS, path], check=True, timeout=60)
    assert path.read_text().count("\n") == 200
    loaded = {record.run_id: record for record in Benchmark.load(path)}
    assert loaded.keys() == {f"{name}-{i}" for name in "abcd" for i in range(50)}
    assert all(record.provenance["padding"] == name[0] * 3000 for name, record in loaded.items())


def test_appending_waits_for_who_holds_the_file(tmp_path):
    path = tmp_path / "all.jsonl"
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        thread = threading.Thread(target=append_record, args=(path, make_record("later")))
        thread.start()
        thread.join(0.1)
        file.write(make_record("first").to_json().replace("\n", "") + "\n")
        file.flush()
        fcntl.flock(file, fcntl.LOCK_UN)
    thread.join()
    assert [record.run_id for record in Benchmark.load(path)] == ["first", "later"]


@pytest.fixture
def torn(tmp_path):
    """Three lines, the last of which was cut short."""
    path = tmp_path / "all.jsonl"
    append_many(path, 3)
    path.write_text(path.read_text()[:-20])
    return path


def test_last_line_that_was_cut_short_is_skipped_with_a_warning(torn):
    with pytest.warns(UserWarning, match=r"skipped line 3 of '.*all\.jsonl', the last, which was"):
        loaded = Benchmark.load(torn)
    assert [record.run_id for record in loaded] == ["0", "1"]


def test_appending_removes_a_line_that_was_cut_short(torn):
    append_record(torn, make_record("next"))
    assert [record.run_id for record in Benchmark.load(torn)] == ["0", "1", "next"]


def test_last_line_without_its_end_is_kept(tmp_path):
    path = tmp_path / "all.jsonl"
    append_many(path, 2)
    path.write_text(path.read_text().rstrip("\n"))
    assert len(Benchmark.load(path)) == 2
    append_record(path, make_record("next"))
    assert [record.run_id for record in Benchmark.load(path)] == ["0", "1", "next"]


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
    append_record(path, make_record())
    path.write_text(path.read_text().replace('"schema_version": 2}\n', '"schema_version": 99}'))
    with pytest.warns(UserWarning, match=r"line 1 .* schema_version must be 2, got 99|left o"):
        assert len(Benchmark.load(path)) == 0


def test_empty_file_has_no_records(tmp_path):
    (tmp_path / "all.jsonl").touch()
    assert len(Benchmark.load(tmp_path / "all.jsonl")) == 0


def test_records_are_appended_to_lines_only(tmp_path):
    message = f"records are appended to a .jsonl file, got {str(tmp_path / 'all.json')!r}"
    with pytest.raises(ValueError, match=re.escape(message)):
        append_record(tmp_path / "all.json", make_record())
