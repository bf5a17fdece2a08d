"""``nasbench-at watch``: lines in a pipe, a table on a terminal, runs that end meanwhile."""

from __future__ import annotations

import io
import os
import re
import shutil
import signal
import subprocess
import sys
import types
from pathlib import Path

import pytest

from nasbench_at.cli import main
from nasbench_at.commands import console
from tests.nasbench_at.records.test_run_progress import START, begin, make_run, row, write

ROOT = Path(__file__).resolve().parents[3]
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
COLOUR = re.compile(r"\x1b\[[0-9;]*3[0-7]m")


@pytest.fixture(autouse=True)
def _somewhere_else(tmp_path, monkeypatch):
    """Looks at ./runs, 23 seconds after its runs began."""
    monkeypatch.chdir(tmp_path)
    clock = types.SimpleNamespace(time=lambda: START + 23)
    monkeypatch.setattr("nasbench_at.records.run_progress.time", clock)


@pytest.fixture
def meanwhile(monkeypatch):
    """What happens between one look and the next, in turn, as functions; beyond, nothing may."""
    steps = []
    clock = types.SimpleNamespace(sleep=lambda seconds: steps.pop(0)())
    monkeypatch.setattr("nasbench_at.commands.watch.time", clock)
    return steps


@pytest.fixture
def terminal(monkeypatch):
    """A terminal of 120 columns, as what was written to it; NO_COLOR is as the test sets it."""
    screen = io.StringIO()

    def open_terminal():
        made = console._PlainConsole(
            file=screen, force_terminal=True, width=120, height=40, color_system="standard"
        )
        monkeypatch.setattr(console, "stdout", made)
        monkeypatch.setattr(console, "is_terminal", lambda: True)
        return screen

    return open_terminal


@pytest.fixture
def folder():
    """A run of which two of four epochs are finished."""
    folder = make_run(Path("runs"))
    write(folder, [row(1, 0.625, 0.25), row(2, 0.5, 0.375, 0.75)], START + 20)
    return folder


def nothing():
    pass


def finish(folder):
    folder.record.write_text("{}")


# --- lines


def test_once_prints_a_line_a_run_and_the_counts(folder, capsys):
    waiting = make_run(Path("runs"), seed=1)
    finish(make_run(Path("runs"), seed=2))
    with folder.locked():
        begin(folder, START)
        assert main(["watch", "--once"]) == 0
    assert capsys.readouterr() == (
        f"{folder.path.name}  running  epoch 2/4  loss 0.750  natural 50.0% (best 62.5%)  "
        "PGD 37.5% (best 37.5%)  10.0 s an epoch  about 17.0 s left\n"
        f"{waiting.path.name}  waiting  epoch 0/4\n"
        "runs: 1 running, 1 waiting, 1 done before\n",
        "",
    )


def test_line_is_printed_only_when_something_changes(folder, meanwhile, capsys):
    meanwhile += [
        nothing,
        lambda: write(folder, [row(1), row(2), row(3)], START + 30),
        nothing,
        lambda: finish(folder),
        nothing,
    ]
    assert main(["watch"]) == 0
    assert meanwhile == []
    *lines, last = capsys.readouterr().out.splitlines()
    found = [re.match(r"\S+  (\w+)  epoch (\d)/4", line).groups() for line in lines]
    assert found == [("interrupted", "2"), ("interrupted", "3"), ("done", "3")]
    assert last == "runs: 1 done"


def test_folder_that_vanishes_is_named_once(folder, meanwhile, capsys):
    other = make_run(Path("runs"), seed=1)
    meanwhile += [
        lambda: shutil.rmtree(folder.path),
        nothing,
        lambda: finish(other),
        nothing,
    ]
    assert main(["watch", "runs"]) == 0
    assert capsys.readouterr().out.count(f"{folder.path.name}  gone\n") == 1


def test_runs_that_were_all_done_before_end_it_at_once(folder, meanwhile, capsys):
    finish(folder)
    assert main(["watch"]) == 0
    assert capsys.readouterr().out == "runs: 1 done before\n"


def test_once_says_that_there_are_no_runs_yet(capsys):
    Path("runs").mkdir()
    assert main(["watch", "--once"]) == 0
    assert capsys.readouterr().out == "runs: none yet\n"


def test_damaged_configuration_is_counted(folder, capsys):
    (folder.path / "config.yaml").write_text("seed: [")
    assert main(["watch", "--once"]) == 0
    assert capsys.readouterr().out == "runs: 1 with a config.yaml that cannot be read\n"


def test_runs_of_one_name_are_shown_by_their_paths(folder, capsys):
    shutil.copytree("runs", "others")
    assert main(["watch", "runs", "others", "--once"]) == 0
    lines = capsys.readouterr().out.splitlines()
    names = [line.partition("  ")[0] for line in lines[:-1]]
    assert names == [f"others/{folder.path.name}", f"runs/{folder.path.name}"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(1, "1.0 s"), (99.9, "99.9 s"), (100, "1.7 min"), (5999, "100.0 min"), (7200, "2.0 h")],
)
def test_durations_are_in_the_unit_that_suits_them(seconds, text, folder, capsys):
    write(folder, [row(1)], START + seconds)
    main(["watch", "--once"])
    assert f"  {text} an epoch" in capsys.readouterr().out


# --- a terminal


def test_once_shows_a_table(folder, terminal):
    screen = terminal()
    with folder.locked():
        begin(folder, START)
        assert main(["watch", "--once"]) == 0
    text = ESCAPE.sub("", screen.getvalue())
    cells = [cell.strip() for cell in next(x for x in text.splitlines() if "2/4" in x).split("│")]
    numbers = ["2/4", "0.750", "50.0%", "62.5%", "37.5%", "37.5%", "10.0 s", "17.0 s"]
    assert cells == ["", folder.path.name, *numbers, "running", ""]
    assert "runs: 1 running" in text


def test_table_is_drawn_anew_until_all_are_done(folder, terminal, meanwhile):
    screen = terminal()
    meanwhile += [lambda: finish(folder), nothing]
    assert main(["watch"]) == 0
    assert meanwhile == []
    drawn = screen.getvalue()
    assert drawn.index("interrupted") < drawn.index("runs: 1 done")
    assert drawn.endswith("\x1b[?25h")  # the cursor is given back


def test_terminal_without_runs_shows_the_counts_alone(folder, terminal):
    finish(folder)
    screen = terminal()
    assert main(["watch"]) == 0
    text = ESCAPE.sub("", screen.getvalue())
    assert {line.strip() for line in text.splitlines()} - {""} == {"runs: 1 done before"}


def test_long_names_are_folded_and_not_cut(folder, terminal):
    name = "a" * 60 + "b" * 60
    folder.path.rename(folder.path.with_name(name))
    screen = terminal()
    assert main(["watch", "--once"]) == 0
    assert "".join(re.findall("│ ([ab]+) *│", ESCAPE.sub("", screen.getvalue()))) == name


@pytest.mark.parametrize("setting", ["", "1"])
def test_no_color_is_honoured(setting, folder, terminal, monkeypatch):
    monkeypatch.setenv("NO_COLOR", setting)
    screen = terminal()
    assert main(["watch", "--once"]) == 0
    assert bool(COLOUR.search(screen.getvalue())) is not bool(setting)


@pytest.mark.parametrize("word", ["runs[v2]", "[bold]", ":smiley:"])
def test_names_are_shown_as_they_are(word, folder, terminal):
    folder.path.rename(folder.path.with_name(word))
    screen = terminal()
    assert main(["watch", "--once"]) == 0
    assert word in screen.getvalue()


# --- bad input, signals


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nope"], "'nope' is no folder of runs"),
        (["file"], "paths must be a list of folders, got ('file',)"),
        ([""], "paths must be a list of folders, got ('',)"),
        (["--interval", "0"], "interval must be a number in [0.1, 3600], got 0"),
        (["--interval", "3601"], "interval must be a number in [0.1, 3600], got 3601"),
        (["--interval", "nan"], "interval must be a number in [0.1, 3600], got 'nan'"),
        (["--one"], "unknown flag '--one'; did you mean '--once'?"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_one_line(words, message, folder, capsys):
    Path("file").write_text("")
    assert main(["watch", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert message in err


def test_interval_is_the_time_between_two_looks(folder, monkeypatch):
    slept = []

    def sleep(seconds):
        slept.append(seconds)
        finish(folder)

    monkeypatch.setattr("nasbench_at.commands.watch.time", types.SimpleNamespace(sleep=sleep))
    assert main(["watch", "--interval", "0.5"]) == 0
    assert slept == [0.5, 0.5]


def test_interrupt_ends_it_as_other_commands(folder):
    words = [sys.executable, "-m", "nasbench_at", "watch", str(folder.path.resolve())]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout.readline().startswith(f"{folder.path.name}  interrupted  epoch 2/4")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 75
    assert (out, err) == ("", "nasbench-at: SIGINT: interrupted; the same command goes on\n")
