from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from nasbench_at import RunConfig
from nasbench_at.config import dump_config, resolve
from nasbench_at.records.run_folders import create_run_folder, find_runs, open_run_folder
from nasbench_at.runtime.atomic_files import write_atomically
from tests.nasbench_at.conftest import one_line, tiny_config

ROOT = Path(__file__).resolve().parents[3]
CONFIG = resolve(tiny_config())
HOLDER = """
import sys
from nasbench_at.records.run_folders import open_run_folder
with open_run_folder(sys.argv[1]).locked():
    print("held", flush=True)
    sys.stdin.read()
"""


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@contextmanager
def other_process_holding(path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def fail(*args, **options):
    raise OSError(28, "No space left on device")


def test_atomic_write_replaces_the_whole_file(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, b"a long first version")
    write_atomically(path, b"second")
    assert contents(tmp_path) == {"file": b"second"}


def test_written_file_can_be_read_by_others(tmp_path):
    write_atomically(tmp_path / "file", b"")
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize(
    "target", ["os.fsync", "pathlib.Path.replace", "pathlib.Path.chmod", "tempfile.mkstemp"]
)
def test_failing_write_leaves_the_old_file_and_nothing_else(target, tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    monkeypatch.setattr(target, fail)
    with pytest.raises(
        OSError, match=r"^\[Errno 28\] No space left on device: '.*/file'$"
    ) as error:
        write_atomically(path, b"new")
    assert error.value.filename == str(path)
    assert contents(tmp_path) == {"file": b"old"}


def test_folder_that_is_gone_is_an_error_of_the_file(tmp_path):
    path = tmp_path / "none" / "file"
    with pytest.raises(FileNotFoundError) as error:
        write_atomically(path, b"new")
    assert error.value.filename == str(path)


def test_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    def interrupt(handle):
        raise KeyboardInterrupt

    path = tmp_path / "file"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, b"new")
    assert contents(tmp_path) == {"file": b"old"}


def test_folder_is_named_by_the_run_and_holds_its_configuration(tmp_path):
    folder = create_run_folder(tmp_path / "deep" / "runs", CONFIG)
    assert folder.path == tmp_path / "deep" / "runs" / CONFIG.run_id
    assert open_run_folder(folder.path) == folder
    paths = {folder.record, folder.metrics, folder.best, folder.checkpoint}
    assert len(paths) == 4
    assert {path.parent for path in paths} == {folder.path}


def test_folder_of_the_same_configuration_is_taken_as_it_is(tmp_path):
    folder = create_run_folder(tmp_path, CONFIG)
    folder.metrics.write_text("mine")
    before = contents(tmp_path)
    assert create_run_folder(tmp_path, CONFIG) == folder
    assert contents(tmp_path) == before


def test_folder_of_another_configuration_is_refused_and_left_as_it_is(tmp_path):
    folder = create_run_folder(tmp_path, CONFIG)
    file = folder.path / "config.yaml"
    file.write_text(file.read_text().replace("seed: 0", "seed: 5"))
    before = contents(tmp_path)
    with pytest.raises(ValueError, match="belongs to another configuration; move it") as error:
        create_run_folder(tmp_path, CONFIG)
    assert str(folder.path) in one_line(error)
    assert contents(tmp_path) == before


def test_folder_with_a_damaged_configuration_is_refused_and_left_as_it_is(tmp_path):
    folder = create_run_folder(tmp_path, CONFIG)
    (folder.path / "config.yaml").write_text("seed: [")
    before = contents(tmp_path)
    with pytest.raises(ValueError, match=r"cannot read configuration '.*config.yaml'") as error:
        create_run_folder(tmp_path, CONFIG)
    one_line(error)
    assert contents(tmp_path) == before


def test_unwritable_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"cannot write to run folder '.*': Not a dir") as error:
        create_run_folder(tmp_path / "file" / "runs", CONFIG)
    one_line(error)


@pytest.mark.parametrize("name", ["missing", "empty"])
def test_folder_without_configuration_is_no_run(name, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=f"'.*{name}' is no run folder: it holds no config.yaml"):
        open_run_folder(tmp_path / name)


def test_folder_of_an_unfinished_configuration_is_named_with_what_is_unset(tmp_path):
    (tmp_path / "config.yaml").write_text(dump_config(RunConfig(**{**vars(CONFIG), "eps": None})))
    message = r"^configuration '.*config.yaml': eps must be set; "
    with pytest.raises(ValueError, match=message) as error:
        open_run_folder(tmp_path)
    one_line(error)


def test_metrics_are_a_json_line_an_epoch_and_replace_the_old_ones(tmp_path):
    folder = create_run_folder(tmp_path, CONFIG)
    rows = [{"epoch": 1, "loss": 0.1}, {"epoch": 2, "loss": 1e-9}]
    folder.write_metrics([*rows, {"epoch": 3}])
    folder.write_metrics(rows)
    assert [json.loads(line) for line in folder.metrics.read_text().splitlines()] == rows
    folder.write_metrics([])
    assert folder.metrics.read_bytes() == b""


def test_second_process_is_refused_until_the_first_lets_go(tmp_path):
    folder = create_run_folder(tmp_path, CONFIG)
    with other_process_holding(folder.path) as process:
        with (
            pytest.raises(ValueError, match="is in use by another process") as error,
            folder.locked(),
        ):
            pytest.fail("two processes hold one folder")
        assert str(folder.path) in one_line(error)
        process.stdin.close()
        process.wait(timeout=30)
        with folder.locked():
            pass


def test_killed_process_holds_nothing(tmp_path):
    folder = create_run_folder(tmp_path, CONFIG)
    with other_process_holding(folder.path) as process:
        process.kill()
        process.wait(timeout=30)
        with folder.locked():
            pass


def test_folder_can_be_held_again_after_an_error(tmp_path):
    folder = create_run_folder(tmp_path, CONFIG)
    with pytest.raises(RuntimeError), folder.locked():
        raise RuntimeError
    with folder.locked():
        pass


# Finding


def test_links_to_runs_are_followed_and_no_run_is_found_twice(tmp_path):
    runs, elsewhere = tmp_path / "runs", tmp_path / "elsewhere"
    for name in ("runs/a", "elsewhere/b", "elsewhere/deep/c"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "config.yaml").touch()
    (runs / "linked").symlink_to(elsewhere / "b")
    (runs / "more").symlink_to(elsewhere)
    (runs / "round").symlink_to(runs)
    (runs / "again").symlink_to("a")
    (runs / "itself").symlink_to("itself")
    (runs / "nowhere").symlink_to(tmp_path / "nowhere")
    (runs / "file").symlink_to(runs / "a" / "config.yaml")
    found = find_runs(runs)
    assert [str(path.relative_to(runs)) for path in found] == ["a", "linked", "more/deep/c"]
    assert find_runs(runs / "linked") == [runs / "linked"]
    (runs / "A").symlink_to("a")  # before it, but no folder
    assert find_runs(runs) == found


def test_link_to_what_cannot_be_read_is_left_out_with_a_warning(tmp_path, monkeypatch):
    runs, elsewhere = tmp_path / "runs", tmp_path / "elsewhere"
    for folder in (runs / "a", elsewhere / "locked"):
        folder.mkdir(parents=True)
    (runs / "a" / "config.yaml").touch()
    (runs / "link").symlink_to(elsewhere)
    scandir = os.scandir

    def refuse(folder):
        if str(folder).endswith("locked"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.warns(UserWarning, match="left out link .*link'.*locked': Permission denied"):
        assert find_runs(runs) == [runs / "a"]


def test_link_that_may_not_be_followed_is_no_folder(tmp_path, monkeypatch):
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    stat = os.stat

    def refuse(path, *args, **options):
        if str(path).endswith("link"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return stat(path, *args, **options)

    monkeypatch.setattr(os, "stat", refuse)
    assert find_runs(tmp_path) == []
