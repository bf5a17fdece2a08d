"""Command lines and calls with a word gone wrong: no traceback, no hang, no nonsense accepted."""

from __future__ import annotations

import math
import random
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from nasbench_at import Architecture, RunConfig, match_parameters
from nasbench_at.cli import main
from nasbench_at.config import resolve
from nasbench_at.config.allowed_values import field_annotations
from nasbench_at.config.architecture import AttentionSpec
from nasbench_at.evaluation.options import EvaluationOptions

from .conftest import tiny_flags

pytestmark = pytest.mark.slow

MAX_SECONDS = 20
NUM_COMMANDS, NUM_CALLS = 300, 100
DRY = ["train", "--device", "cpu", "--dry-run", *tiny_flags()]
COMMANDS = [
    DRY,
    [*DRY, "--lr", "0.1", "--weight-decay", "5e-4", "--momentum", "0.9", "--augment", "false"],
    [*DRY, "--method", "trades", "--recipe", "authors", "--precision", "fp32", "--beta", "6"],
    [*DRY, "--milestones", "1", "2", "--milestone-factors", "0.1", "0.01", "--warmup-epochs", "1"],
    [*DRY, "--attention", "fixed", "--attention-keep", "0", "1", "0,1", "--seeds", "1", "2"],
    [*DRY, "--attention-init-options", "scale=0.5", "--block-copies", "residual=2"],
    [*DRY, "--runs-dir", "runs", "--data-root", "data", "--checkpoint-minutes", "5"],
    ["graph", "--blocks", "residual", "dense", "--num-modules", "3", "--out", "graph.json"],
    ["graph", "--blocks", "residual", "--init-channels", "4", "--match-parameters", "100000"],
    ["graph", "--model", "tiny_ds_net", "--num-classes", "10", "--input-shape", "3", "32", "32"],
    ["blocks", "residual"],
    ["evaluate", "RUN", "--attacks", "fgsm", "--eps", "0.1", "--seed", "1", "--device", "cpu"],
    ["evaluate", "RUN", "--attacks", "pgd", "--restarts", "1", "--step-size", "0.1"],
    ["evaluate", "--model", "tiny_wrn", "--data", "stripes", "--attacks", "fgsm", "--eps", "0.1"],
]
NONSENSE = [
    *("", " ", "x", "-1", "0", "1.5", "nan", "inf", "-inf", "1e400", "9" * 30, "None", "true"),
    *("--", "-", "--nope", "=", "a=b", "a.b=c", "[", "{a: 1}", "'", "#", "*", "é", "\U0001f600"),
    *("/dev/null", "../..", "x" * 5000, "a,b,c", ",", "%", "50%", "$(id)", "a\nb", "\x1b[31m"),
]
VALUES: list[Any] = [
    *(None, True, "", "x", -1, 0, 1.5, math.nan, math.inf, 10**400, -(10**20), 1j, b"x"),
    *((), [], {}, [[]], [None], {"a": None}, {1: 2}, {"a": {"b": math.nan}}, object(), object),
    *((0.5,), ("a", ""), (("a",), "b"), (-1, 2), {"scale": "x"}, Path(), lambda: None),
]


@contextmanager
def limited() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise TimeoutError(f"took longer than {MAX_SECONDS} s")

    # Processor time, so that a busy machine does not count.
    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, MAX_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def mutate(words: list[str], random_words: random.Random) -> list[str]:
    """Puts nonsense in a word's place or before it, or leaves a word out."""
    place = random_words.randrange(1, len(words))
    before, after = words[:place], words[place:]
    match random_words.choice(("replace", "replace", "insert", "drop")):
        case "replace":
            return [*before, random_words.choice(NONSENSE), *after[1:]]
        case "insert":
            return [*before, random_words.choice(NONSENSE), *after]
        case _:
            return before + after[1:]


def names(line: str, words: list[str]) -> bool:
    """Whether a message shows a word of the command line, its beginning where it is long."""
    shown = {" ".join(word.split())[:50] for word in words} | {repr(word)[1:50] for word in words}
    fields = {word[2:].replace("-", "_") for word in words if word.startswith("--")}
    return any(word in line for word in (shown | fields | {"''", "neither"}) - {""})


@pytest.fixture
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


@pytest.mark.usefixtures("_here")
@pytest.mark.timeout(3600)
def test_no_command_line_ends_in_a_traceback_or_hangs(run, tmp_path, capsys):
    random_words = random.Random(11)
    problems = []
    for _ in range(NUM_COMMANDS):
        words = mutate(random_words.choice(COMMANDS), random_words)
        words = [str(run) if word == "RUN" else word for word in words]
        with limited():
            code = main(words)
        err = capsys.readouterr().err
        logs = list(tmp_path.glob("nasbench-at-*.log"))
        told = [line for line in err.splitlines() if not line.startswith("nasbench-at: warning")]
        is_told = code == 0 or (len(told) == 1 and names(told[0], words[1:]))
        if code not in (0, 2) or logs or not is_told:
            problems.append((words, code, err, [log.read_text() for log in logs]))
        for log in logs:
            log.unlink()
    assert not problems, "\n".join(map(str, problems))


def check(make: Callable[[], Any], name: str, value: Any) -> str | None:
    """Returns what is wrong with how a value was taken, if anything."""
    try:
        with limited():
            made = make()
    except ValueError as error:
        line = str(error)
        return f"{name}={value!r:.80}: {line}" if "\n" in line or len(line) > 600 else None
    except Exception as error:  # noqa: BLE001 - what this test looks for
        return f"{name}={value!r:.80}: {type(error).__name__}: {error}"
    if isinstance(made, RunConfig):  # what was accepted can be resolved, named and written
        return check(lambda: resolve(made).run_id, f"run of {name}", value)
    return None


def test_no_call_ends_in_an_untyped_error_or_hangs():
    random_values = random.Random(11)
    kinds: list[Any] = [RunConfig, RunConfig, Architecture, AttentionSpec, EvaluationOptions]
    problems = []
    for _ in range(NUM_CALLS):
        kind = random_values.choice(kinds)
        name = random_values.choice(list(field_annotations(kind)))
        value = random_values.choice(VALUES)
        problems.append(check(partial(kind, **{name: value}), name, value))
    tiny = Architecture(("residual",), num_modules=3)
    problems += [check(partial(match_parameters, tiny, v), "target", v) for v in VALUES]
    assert [problem for problem in problems if problem] == []
