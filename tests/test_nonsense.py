"""Nonsense on the command line and in Python: refused at once, in one line that names it.

Command lines that work are spoiled in one flag each, calls in one argument. What is drawn is
decided by a seed; every case can be run alone by its words.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import random
import re
import shlex
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import blocks
from nasbench_at import Architecture, Benchmark, RunConfig, create_model, evaluate_run, train
from nasbench_at.attacks import FGSM, L2PGD, AutoAttack, LinfPGD, MarginPGD
from nasbench_at.cli import main
from nasbench_at.config.architecture import AttentionSpec
from nasbench_at.evaluation.options import EvaluationOptions
from nasbench_at.networks.widths import match_parameters

NUM_COMMAND_LINES = 300
NUM_CALLS = 100
SECONDS = 20

HUGE = "99999999999999999999"
TEXT = ("x", "", "1,2", "0x")
NOT_FINITE = ("inf", "-inf", "nan", "1e999")
POSITIVE = (*TEXT, *NOT_FINITE, "0", "-1", "-1e-9")
AT_LEAST_0 = (*TEXT, *NOT_FINITE, "-1", "-0.5")
BELOW_1 = (*AT_LEAST_0, "1", "1.5")
COUNT = (*TEXT, *NOT_FINITE, "0", "-1", "1.5", HUGE)
COUNT_OR_0 = (*TEXT, *NOT_FINITE, "-1", "1.5", HUGE)
CHOICE = ("", "nope", "0", "x y")
NO_FILE = ("", "nope", "/dev/null", "/nope/nope", "\x01")
UNKNOWN_FLAGS = ("--nope", "--epoch")
TINY = {
    "--data": "digits",
    "--blocks": "residual dense",
    "--num-modules": "3",
    "--init-channels": "4",
    "--widen-factor": "2",
    "--epochs": "1",
}
TRAIN_FLAGS = {
    "--lr": POSITIVE,
    "--step-size": POSITIVE,
    "--attention-lr": POSITIVE,
    "--checkpoint-minutes": AT_LEAST_0,
    "--eps": (*AT_LEAST_0, "1.1", "8"),
    "--norm": CHOICE,
    "--attack-noise": AT_LEAST_0,
    "--awp-gamma": AT_LEAST_0,
    "--weight-decay": AT_LEAST_0,
    "--attention-weight-decay": AT_LEAST_0,
    "--ema-decay": BELOW_1,
    "--momentum": BELOW_1,
    "--validation-fraction": (*BELOW_1, "0"),
    "--attack-steps": COUNT,
    "--epochs": COUNT,
    "--batch-size": (*COUNT, "1"),
    "--accumulation-steps": COUNT,
    "--num-modules": (*COUNT, "2"),
    "--init-channels": COUNT,
    "--widen-factor": (*POSITIVE, "0.5", HUGE),
    "--warmup-epochs": (*COUNT_OR_0, "50"),
    "--split-seed": COUNT_OR_0,
    "--seed": COUNT_OR_0,
    "--seeds": (*COUNT_OR_0, "0 0"),
    "--milestones": ("x", "0", "-1", "2 1", "1.5", HUGE, "nan"),
    "--attention-betas": ("x y", "0.9 1", "-1 0.5", "nan 0.9", "0.9 0.9 0.9"),
    "--select-on": CHOICE,
    "--attention": CHOICE,
    "--attention-init": CHOICE,
    "--recipe": CHOICE,
    "--attack-start": CHOICE,
    "--lr-schedule": CHOICE,
    "--precision": (*CHOICE, "fp12"),
    "--log": (*CHOICE, "wandb"),
    "--optimizer-impl": (*CHOICE, "fusd"),
    "--method": ("", "nope", "att"),
    "--model": ("", "nope", "wrn_x_y"),
    "--data": ("", "digts", "nope.npz", "nope:nope"),
    "--extra-data": ("", "nope.npz", "digits", "/dev/null"),
    "--extra-fraction": (*POSITIVE, "1", "0.5"),
    "--blocks": ("residul", "residual nope", ",", "residual,dense dense,"),
    "--device": ("", "gpu", "cuda:99", "tpu"),
    "--block-options": ("residual", "residual.x", "residual.nope=1", "nope.x=1", "dense.=1"),
    "--block-copies": ("residual", "residual=0", "residual=x", "residual=1.5", "nope=2"),
    "--model-options": ("x", "depth=10"),
    "--attention-init-options": ("scale", "scale=-1", "scale=inf", "std=nan", "nope=1"),
    "--attention-keep": ("5 5 5", "x 0 0", "0", "0 0 0 0", "-1 0 0"),
    "--plugins": NO_FILE,
    "--runs-dir": ("", "/dev/null", "/dev/null/runs"),
    "--data-root": ("/dev/null",),
    "--config": NO_FILE,
    "--nope": ("1",),
    "--epoch": ("1",),
}
MEASURE_FLAGS = {
    "--seed": COUNT_OR_0,
    "--device": ("", "gpu", "cuda:99", "tpu"),
    "--data-root": ("/dev/null",),
    "--nope": ("1",),
}
COMMANDS: Mapping[str, tuple[Mapping[str, str], Mapping[str, Sequence[str]]]] = {
    "train --dry-run": (TINY, TRAIN_FLAGS),
    "study run block-space --dry-run": (
        {**TINY, "--sizes": "1"},
        {
            **{name: TRAIN_FLAGS[name] for name in ("--lr", "--epochs", "--precision", "--eps")},
            "--seeds": (*COUNT_OR_0, "0 0"),
            "--sizes": ("0", "-1", "x", "9", HUGE),
            "--match-parameters": COUNT,
            "--max-parameters": COUNT,
            "--workers": COUNT_OR_0,
            "--ranks": COUNT,
            "--attacks": CHOICE,
            "--aa-samples": ("-1", "0", "x", "101%", "nan", HUGE),
            "--storage": ("", "mysql://x", "nope", "x://"),
            "--name": ("", "a/b", "..", "a\nb"),
        },
    ),
    "study run search --dry-run": (
        {**TINY, "--num-trials": "2"},
        {
            "--num-trials": COUNT,
            "--pool": ("", "residul", "nope"),
            "--per": CHOICE,
            "--depths": ("6 3", "x 3", "0 3", f"3 {HUGE}"),
            "--widths": ("8 4", "0 4", "x 4"),
            "--weight-decays": ("1 0.1", "nan 1", "-1 1", "1e-4 inf"),
            "--objectives": CHOICE,
            "--sampler": CHOICE,
            "--pruner": CHOICE,
            "--screening-keep": (*POSITIVE, "1.5"),
            "--screening-epochs": COUNT_OR_0,
            "--screening-attack-steps": COUNT,
            "--max-seconds-per-step": POSITIVE,
        },
    ),
    "evaluate RUN": (
        {"--attacks": "fgsm"},
        {
            **MEASURE_FLAGS,
            "--attacks": ("", "nope", "pgdd", "aaa"),
            "--eps": (*AT_LEAST_0, "1.1", "0.1 0.1"),
            "--norm": CHOICE,
            "--step-size": POSITIVE,
            "--restarts": COUNT,
            "--recipe": CHOICE,
            "--counts": CHOICE,
            "--num-images": ("-1", "0", "x", "101%", "nan", HUGE),
            "--aa-samples": ("-1", "0", "x", "101%", "nan", HUGE),
            "--severities": ("0", "6", "x", "1 1", "2 1", ""),
            "--smooth-sigma": POSITIVE,
            "--smooth-n0": COUNT,
            "--smooth-n": COUNT,
            "--smooth-alpha": ("0", "1", "nan", "x"),
            "--smooth-samples": ("-1", "0", "x", "101%", "nan", HUGE),
            "--weights": ("nope.pt",),
            "--out": ("nope.json",),
            "--model": ("tiny_wrn",),
        },
    ),
    "evaluate --model tiny_wrn": (
        {"--data": "digits", "--eps": "0.1", "--attacks": "fgsm"},
        {
            "--weights": ("", "nope.pt", "/dev/null", "{folder}/nonsense.pt"),
            "--data": ("", "digts", "nope.npz"),
            "--out": ("", "/dev/null/x.json"),
        },
    ),
    "graph": (
        {"--num-modules": "3", "--init-channels": "4"},
        {
            "--match-parameters": COUNT,
            "--blocks": TRAIN_FLAGS["--blocks"],
            "--num-classes": (*COUNT, "1"),
            "--input-shape": ("3 8", "0 8 8", "x 8 8", f"3 {HUGE} 8", "3 8 8 8"),
            "--remove": ("nope", "module99.dense"),
            "--out": ("", "x.txt", "/nope/x.json"),
            "--model": ("", "nope"),
        },
    ),
    "blocks": ({}, {"": ("residul", "nope", "residual densse"), "--plugins": NO_FILE}),
    "models tiny_wrn": ({}, {"": ("tiny_wrm", "nope"), "--nope": ("1",)}),
    "compare RUN RUN": ({"--attack": "natural"}, {"--attack": ("", "nope", "pgdd")}),
    "export RUN": (
        {"--out": "x.pt2"},
        {"--out": ("", "x.onnx", "/nope/x.pt2", "/dev/null/x.pt2"), "--nope": ("1",)},
    ),
    "claim RUN": ({}, {"--out": ("/dev/null",), "--name": ("",), "--nope": ("1",)}),
    "claim": ({}, {"": ("", "nope", "/dev/null")}),
    "export --out x.pt2": ({}, {"": ("", "nope", "/dev/null")}),
    "query RUN": (
        {},
        {
            "--where": ("method", "methd=at", "nope=1", "=1", "method=nope"),
            "--columns": ("nope", "", "sed"),
            "--sort": ("nope", ""),
            "--top": COUNT,
            "--out": ("", "x.txt", "/nope/x.csv"),
        },
    ),
    "watch RUN": (
        {"--interval": "1"},
        {
            "--interval": ("x", "", "nan", "inf", "0", "-1", "0.05", "3601", HUGE),
            "--nope": ("1",),
        },
    ),
    "watch": ({}, {"": ("", "nope", "/dev/null", "x.parquet")}),
    "query": ({}, {"": ("", "nope", "/dev/null", "x.parquet")}),
    "figure class-accuracy RUN": (
        {"--num-images": "8"},
        {**MEASURE_FLAGS, "--num-images": (*COUNT, HUGE), "--out": ("", "x.txt", "/nope/x.png")},
    ),
    "figure landscape RUN": (
        {"--num-images": "8", "--points": "3"},
        {"--points": (*COUNT, "1", "2"), "--span": POSITIVE, "--form": CHOICE},
    ),
    "theory RUN": (
        {"--num-images": "4", "--num-batches": "2"},
        {**MEASURE_FLAGS, "--num-images": COUNT, "--num-batches": (*COUNT, "1")},
    ),
    "report RUN": (
        {"--landscapes": "0", "--theory": "0"},
        {
            "--landscapes": COUNT_OR_0,
            "--theory": COUNT_OR_0,
            "--points": (*COUNT, "1"),
            "--num-images": COUNT,
            "--out": ("", "x.txt", "/nope/x.html"),
        },
    ),
    "table": ({}, {"": ("0", "7", "x", "1.5", "2 nope", "")}),
    "study status": (
        {},
        {"": ("nope", "a/b"), "--runs-dir": ("", "/dev/null"), "--storage": ("x", "mysql://x")},
    ),
}


TINY_ARCHITECTURE = Architecture(num_modules=3, init_channels=4, widen_factor=2)
NAN, INF = math.nan, math.inf
NO_NUMBER: Sequence[Any] = (NAN, INF, -INF, "a", None, [], 10**400)
NO_COUNT: Sequence[Any] = (0, -1, 1.5, NAN, "a", None, True, 10**30)
NO_TEXT: Sequence[Any] = (5, None, "", [], True)


def _load_records(path: Any) -> None:
    Benchmark.load(path)


def _attack(kind: Callable[..., Any]) -> Callable[..., Any]:
    def make(**arguments: Any) -> None:
        kind(**{"eps": 0.1, **arguments})

    return make


ATTACK_ARGUMENTS: Mapping[str, Sequence[Any]] = {
    "eps": (-0.1, NAN, INF, "a"),
    "step_size": (0, -1, NAN, INF, "a"),
    "steps": (0, -1, 1.5, "a", NAN),
    "restarts": (0, -1, 1.5, "a"),
    "noise": (-1, NAN, INF, "a"),
    "start": ("nope", None, 5),
    "counts": ("nope", None, 5),
}
CALLS: Mapping[Callable[..., Any], Mapping[str, Sequence[Any]]] = {
    RunConfig: {
        "seed": ("a", 1.5, None, -1, True, 10**30),
        "epochs": ("a", 0, 1.5, True, 10**30, [1]),
        "lr": (0, -1, *NO_NUMBER[:4], [], 10**400),
        "eps": (1.1, -0.1, NAN, INF, "a", 10**400),
        "norm": ("L1", "l2", None, 5),
        "weight_decay": (-1, NAN, INF, "a"),
        "init_channels": NO_COUNT,
        "num_modules": (*NO_COUNT, 2),
        "blocks": ([""], [], "residual", [5], 5, None, [["residual"]], ["nope", 3]),
        "attention_betas": ((0.9,), (0.9, 1.0), 0.9, ("a", "b"), (NAN, 0.9)),
        "milestones": ((0,), (2, 1), (1.5,), 5, ("a",)),
        "data": NO_TEXT,
        "method": NO_TEXT,
        "model": NO_TEXT,
        "compile": ("yes", 1, None),
        "augment": ("yes", 1),
        "precision": ("fp12", "off", None, 5),
        "lr_schedule": ("cosine", 5),
        "select_on": ("tset", 5),
        "optimizer_impl": ("fusd", None),
        "recipe": ("nope", None),
        "attention": ("nope", None),
        "attention_init": ("nope", 5),
        "attention_init_options": ({"scale": -1}, {"scale": NAN}, {"nope": 1}, 5),
        "attention_weights": (((0.5, 0.6),), 5, (("a",),)),
        "attention_keep": (((9,),) * 15, 5, ((0,),)),
        "block_options": (5, {"nope": {"x": 1}}, {"dense": 5}),
        "block_copies": ({"dense": 0}, {"dense": 1.5}, {"nope": 2}, 5),
        "plugins": (5, "x.py", (5,)),
    },
    Architecture: {
        "init_channels": NO_COUNT,
        "num_classes": (1, *NO_COUNT),
        "input_shape": ((3, 8), (0, 8, 8), 5, "abc", (3, 8, 8.5)),
        "blocks": ("residual", (), ("",), 5, (5,)),
        "block_copies": ({"dense": 0}, {"dense": "a"}),
    },
    AttentionSpec: {
        "mode": ("nope", None),
        "init": ("nope", None),
        "init_options": ({"scale": -1}, {"std": NAN}, {"nope": 1}),
    },
    EvaluationOptions: {
        "attacks": (("nope",), ("pgdd",), (5,), "pgd"),
        "eps": ((-1,), (NAN,), (0.1, 0.1), ("a",)),
        "norm": ("L1", 5),
        "severities": ((0,), (6,), (2, 2), (2, 1), (), (1.5,), 3),
        "smooth_sigma": (0, -1, NAN, INF, "a"),
        "smooth_n0": NO_COUNT,
        "smooth_n": NO_COUNT,
        "smooth_alpha": (0, 1, NAN, "a", None),
        "smooth_samples": (0, -1, "x", "101%", 1.5),
        "step_size": (0, -1, NAN, "a"),
        "restarts": NO_COUNT,
        "counts": ("nope", 5),
        "num_images": (0, -1, "x", "101%", 1.5),
        "aa_samples": (0, -1, "x", "101%", 1.5),
        "seed": (-1, 1.5, "a", None),
    },
    _attack(FGSM): {"eps": ATTACK_ARGUMENTS["eps"]},
    _attack(LinfPGD): ATTACK_ARGUMENTS,
    _attack(L2PGD): ATTACK_ARGUMENTS,
    _attack(MarginPGD): ATTACK_ARGUMENTS,
    _attack(AutoAttack): {
        "eps": ATTACK_ARGUMENTS["eps"],
        "norm": ("L1", None),
        "version": ("nope",),
        "batch_size": NO_COUNT,
        "attacks": (("nope",), ("square", "square")),
    },
    partial(match_parameters, TINY_ARCHITECTURE): {"target": (NAN, INF, 0, -5, "a", 1.5, None)},
    partial(blocks.create_block, "residual"): {"channels": (0, -1, 1.5, "a", None)},
    partial(blocks.create_block, channels=4): {"name": ("residul", "", 5, None)},
    partial(create_model, "tiny_wrn"): {
        "num_classes": (0, 1, "a", None),
        "input_shape": ((3, 8), (0, 8, 8), 5, "abc"),
    },
    create_model: {"name": ("wrn_x_y", "nope", "", 5, None)},
    _load_records: {"path": ("nope", "/dev/null", "", "nope.parquet")},
}


class CommandLine(NamedTuple):
    """A command line that is right but for one flag.

    Attributes:
        words: What is typed.
        value: What is wrong in it.
    """

    words: tuple[str, ...]
    value: str

    @classmethod
    def spoil(cls, command: str, flag: str, value: str) -> CommandLine:
        """Sets a flag of a command, or with no flag its positional words, to a value."""
        words = command.split()
        for name, setting in COMMANDS[command][0].items():
            words += [] if name == flag else [name, *setting.split()]
        position = len(command.split()) if not flag else len(words)
        words[position:position] = [*filter(None, [flag]), *value.split(" ")]
        is_known = flag not in UNKNOWN_FLAGS
        return cls(tuple(words), value if is_known else flag)


class Call(NamedTuple):
    """A call that is right but for one argument."""

    function: Callable[..., Any]
    name: str
    value: Any


def draw_command_lines() -> list[CommandLine]:
    """Returns the cases, spread over commands and flags as evenly as their number allows."""
    chance = random.Random(0)
    by_flag = [
        [CommandLine.spoil(command, flag, value) for value in chance.sample(values, k=len(values))]
        for command, (_, flags) in COMMANDS.items()
        for flag, values in flags.items()
    ]
    return _spread(by_flag, NUM_COMMAND_LINES)


def draw_calls() -> list[Call]:
    """Returns the cases, spread over functions and arguments."""
    chance = random.Random(0)
    by_argument = [
        [Call(function, name, value) for value in chance.sample(values, k=len(values))]
        for function, arguments in CALLS.items()
        for name, values in arguments.items()
    ]
    return _spread(by_argument, NUM_CALLS)


def _spread(groups: Sequence[list[Any]], count: int) -> list[Any]:
    drawn = [case for row in itertools.zip_longest(*groups) for case in row if case is not None]
    assert len(drawn) >= count
    return drawn[:count]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a run of one epoch was trained and evaluated."""
    path: Path = tmp_path_factory.mktemp("nonsense")
    config = RunConfig(
        data="digits",
        blocks=("residual", "dense"),
        num_modules=3,
        init_channels=4,
        widen_factor=2,
        epochs=1,
        attack_steps=1,
    )
    record = train(config, runs_dir=path / "runs", device="cpu")
    run = path / "runs" / record.run_id
    evaluate_run(run, ("fgsm", "aa"), aa_samples=2)
    run.rename(path / "RUN")
    (path / "nonsense.pt").write_bytes(b"nonsense")
    return path


def run_command(words: Sequence[str], folder: Path, seconds: int) -> tuple[int, str]:
    """Runs a command in a process of its own, which is killed if it takes too long.

    Returns:
        The exit code, -SIGALRM if it was killed, and what it wrote to stderr.
    """
    errors = folder / "stderr.txt"
    child = os.fork()
    if child == 0:  # this process has loaded torch already, which takes most of a command's time
        os.chdir(folder)
        for file, number in ((Path(os.devnull), 1), (errors, 2)):
            os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        sys.stdout, sys.stderr = (open(n, "w", closefd=False) for n in (1, 2))  # noqa: SIM115
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(seconds)
        code = 70
        try:
            code = main(words)
        except BaseException:  # noqa: BLE001 - what this test looks for
            traceback.print_exc()
        sys.stderr.flush()
        os._exit(code)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), errors.read_text("utf-8")


def complaint_about(line: CommandLine, folder: Path) -> str:
    """Returns what is wrong with how a spoiled command line is answered; empty if nothing is."""
    code, errors = run_command(line.words, folder, SECONDS)
    said = errors.splitlines()
    if code == -signal.SIGALRM:
        return f"did not end within {SECONDS} s"
    if "Traceback" in errors:
        return f"a traceback: {said[-1]}"
    if code != 2:
        return f"exit code {code}: {errors!r}"
    if len(said) != 1:
        return f"{len(said)} lines: {errors!r}"
    return "" if names(said[0], line.value) else f"does not name {line.value!r}: {said[0]}"


def names(message: str, value: object) -> bool:
    """Whether a message names a value, or of several words or entries at least one."""
    if len(repr(value)) > 2 and repr(value)[:50] in message:
        return True
    texts = {str(value) or "''"}
    if isinstance(value, str):
        texts |= set(value.split()) | set(re.split("[=,. ]", value)) - {""}
        with contextlib.suppress(ValueError):
            texts.add(str(float(value)))
    elif isinstance(value, Mapping):
        texts |= {str(entry) for pair in value.items() for entry in pair}
    elif isinstance(value, Sequence):
        texts |= set() if value else {"empty"}
        texts |= {repr(entry) for entry in value} | {str(entry) for entry in value} - {""}
    said = message.partition(" got ")[2] or message  # before it stands what is allowed
    return any(re.search(rf"(?<!\w){re.escape(text)}(?!\w)", said) for text in texts)


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_the_command_lines_are_right_until_they_are_spoiled(command: str, folder: Path) -> None:
    flags, spoilable = COMMANDS[command]
    if not flags and "" in spoilable and command not in ("blocks", "models tiny_wrn"):
        pytest.skip("it needs more words")
    words = [*command.split(), *(w for name, v in flags.items() for w in (name, *v.split()))]
    code, errors = run_command(words, folder, 10 * SECONDS)
    assert code == 0, errors


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_spoiled_command_lines_are_refused_in_one_line_that_names_the_value(folder: Path) -> None:
    wrong = {}
    for line in draw_command_lines():
        if complaint := complaint_about(line, folder):
            wrong[shlex.join(line.words)] = complaint
    report = "\n".join(f"nasbench-at {words}\n    {what}" for words, what in wrong.items())
    assert not wrong, f"{len(wrong)} of {NUM_COMMAND_LINES}:\n{report}"


def test_spoiled_calls_are_refused_in_one_line_that_names_the_value() -> None:
    wrong = []
    for call in draw_calls():
        what = f"{call.function}({call.name}={call.value!r})"
        start = time.monotonic()
        try:
            call.function(**{call.name: call.value})
        except ValueError as error:
            if "\n" in str(error) or not names(str(error), call.value):
                wrong.append(f"{what} does not name the value in one line: {error}")
        except Exception as error:  # noqa: BLE001 - what this test looks for
            wrong.append(f"{what} raises {type(error).__name__}: {error}")
        else:
            wrong.append(f"{what} is accepted")
        if time.monotonic() - start > SECONDS:
            wrong.append(f"{what} took {time.monotonic() - start:.0f} s")
    assert not wrong, f"{len(wrong)} of {NUM_CALLS}:\n" + "\n".join(wrong)
