"""The documents' code: every block of it is run, and commands within prose have the flags they say.

Python blocks of a document share a namespace and a folder, as if a reader typed them in turn. Each
command is run in a folder of its own. Both hold what the documents suppose: trained runs and a
file of them. Whatever is scaled down or left out is declared here, and a declaration that nothing
uses any longer fails.
"""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import shutil
from functools import cache
from pathlib import Path
from string import Template

import numpy as np
import pytest
from sybil import Document
from sybil.parsers.markdown import PythonCodeBlockParser
from sybil.parsers.markdown.lexers import FencedCodeBlockLexer

from analysis.gallery import FIGURES
from blocks.testing import check_block
from nasbench_at import RunConfig, evaluate_run, train
from nasbench_at.cli import find_commands, main
from nasbench_at.records import Benchmark
from studies.commands.study import SUBCOMMANDS
from studies.config import study_folder
from studies.queue import claim_trial
from studies.recipes import RECIPES
from studies.storage import storage_url
from studies.study import open_study
from tests.conftest import forget_plugins

ROOT = Path(__file__).parents[1]
WRITTEN_BY_TOOLS = ("docs/api/", "docs/drawn/")

DOCUMENTS = [
    "README.md",
    "CONTRIBUTING.md",
    "studies/optunahub/README.md",
    *(
        name
        for path in sorted((ROOT / "docs").glob("**/*.md"))
        if not (name := path.relative_to(ROOT).as_posix()).startswith(WRITTEN_BY_TOOLS)
    ),
]

SHELL = ("", "bash")
MADE_WITH_THE_SITE = ("{output}", "{drawn}")
"""Their command stands beside the fence, and `make docs` runs it."""
LANGUAGES = (*SHELL, "python", "text", "toml", "{toctree}", "{include}")
"""What else a block may be; only shell and Python are run."""

NOT_RUN = {
    "pip install": "installs the package",
    "export": "sets what a session of many commands shares",
    "nasbench-at study worker": "works on until the study is done, which nobody does here",
    "nasbench-at train --model ds_net_4 --data cifar10 --method": "needs CIFAR-10, a download",
    "make": "installs the package, or runs these tests",
    "bash .ci/run": "installs the package, and runs these tests",
    ".venv/bin/pre-commit install": "changes the checkout's hooks",
}
"""Commands by their first words, and why they are not run."""

TINY = "--epochs 1 --attack-steps 1"
ONE_TRIAL = f"--blocks residual dense --sizes 2 --workers 1 {TINY}"
SCALED = {
    "nasbench-at train --data": TINY,
    "nasbench-at train --blocks": TINY,
    "nasbench-at train --plugins": f"--init-channels 4 {TINY}",
    "nasbench-at evaluate --model my_model.py:tiny": "--aa-samples 8",
    "nasbench-at study replay": "--repetitions 2",
    "nasbench-at evaluate runs/<run-id> --attacks fgsm pgd cw aa": "--aa-samples 8",
    "nasbench-at evaluate RUN --attacks smooth": "--smooth-samples 4 --smooth-n 100",
    "nasbench-at evaluate RUN --attacks apgd-ce+square": "--aa-samples 8",
    "nasbench-at study run block-space": ONE_TRIAL,
    "nasbench-at study run reliability": "--dry-run",  # hours
    "nasbench-at theory": "--num-images 8 --num-batches 2",
}
"""Flags behind the documents' own, by a command's first words; the last of a flag counts."""

SLOW = (
    "nasbench-at evaluate runs/<run-id>",
    "nasbench-at evaluate RUN --attacks pgd",
    "nasbench-at theory",
    "nasbench-at report",
    "nasbench-at study run",
    "nasbench-at study replay",
    "nasbench-at evaluate --model my_model.py:tiny",
)
"""First words of the commands that take more than two seconds."""

SUBSTITUTIONS = {
    "README.md": {
        "epochs=20,": "epochs=1, attack_steps=1,",
        'data="digits", num_modules=3, widen_factor=2, epochs=5': (
            'data="digits", num_modules=3, widen_factor=2, epochs=1, attack_steps=1, '
            'blocks=("residual", "dense")'
        ),
        "workers=2": "workers=1",
    },
    "docs/guides/python.md": {
        "epochs=5,": "epochs=1, attack_steps=1,",
        "epochs=2": "epochs=1",
        "workers=2": "workers=1",
    },
}
"""What Python blocks say, by document, and what is run in its place."""

SLOW_PYTHON = ("README.md", "docs/guides/python.md", "docs/guides/tables.md")


def read(name):
    return Document((ROOT / name).read_text("utf-8"), str(ROOT / name))


@cache
def blocks_of(name):
    """The line of each block's fence in a document, its language and its text."""
    document = read(name)
    return [
        (
            1 + document.text.count("\n", 0, region.start),
            region.lexemes["language"].strip(),
            region.lexemes["source"],
        )
        for region in FencedCodeBlockLexer(language=".*")(document)
    ]


def commands_in(text):
    """Yields the number of its first line, from 1, and the words of each command of a shell block.

    Continued lines are joined, comments cut, and variables that the block sets filled in.
    """
    variables, started, first = {}, "", 0
    for number, line in enumerate(text.splitlines(), start=1):
        first = first if started else number
        started += line
        if started.endswith("\\"):
            started = started[:-1]
            continue
        # Of a quote, `#` is a part, and so is `$` of a name that the block does not set.
        words = shlex.split(Template(started).safe_substitute(variables), comments=True)
        started = ""
        assignment = re.fullmatch(r"(\w+)=(.*)", words[0]) if len(words) == 1 else None
        if assignment:
            variables[assignment[1]] = assignment[2]
        elif words:
            yield first, words


def shell_commands():
    """Yields every command of the documents' shell blocks: where it stands, and its words."""
    for name in DOCUMENTS:
        for line, language, text in blocks_of(name):
            if language in SHELL:
                for offset, words in commands_in(text):
                    yield f"{name}:{line + offset}", words


def starts_with(words, start):
    """Whether the first words of a command are these."""
    return words[: len(start.split())] == start.split()


def commands_of_the_site():
    """Yields the command of each block that `make docs` fills: where it stands, and its text."""
    for name in DOCUMENTS:
        for line, language, _ in blocks_of(name):
            directive, _, command = language.partition(" ")
            if directive in MADE_WITH_THE_SITE:
                yield f"{name}:{line}", command


def is_run(words):
    return not any(starts_with(words, start) for start in NOT_RUN)


def commands_not_run():
    return [(place, " ".join(words)) for place, words in shell_commands() if not is_run(words)]


def commands_that_run():
    return [
        pytest.param(
            words,
            id=f"{place} {' '.join(words)[:60]}",
            marks=[pytest.mark.slow] * any(starts_with(words, start) for start in SLOW),
        )
        for place, words in shell_commands()
        if is_run(words)
    ]


def documents_with_python():
    """The documents that have Python blocks, and the lines of these."""
    found = []
    for name in DOCUMENTS:
        lines = [str(line) for line, language, _ in blocks_of(name) if language == "python"]
        if lines:
            marks = [pytest.mark.slow] * (name in SLOW_PYTHON)
            found.append(pytest.param(name, id=f"{name}:{'+'.join(lines)}", marks=marks))
    return found


def spans():
    """Yields the code within prose: where it stands, and its text on one line."""
    for name in DOCUMENTS:
        # Blocks leave their lines empty, so that line numbers stay.
        prose = re.sub(
            r"^```.*?^```",
            lambda block: "\n" * block[0].count("\n"),
            (ROOT / name).read_text("utf-8"),
            flags=re.DOTALL | re.MULTILINE,
        )
        for found in re.finditer(r"`([^`]+)`", prose):
            line = 1 + prose.count("\n", 0, found.start())
            yield f"{name}:{line}", " ".join(found[1].split())


def commands_in_prose():
    return [
        pytest.param(text, id=f"{place} {text[:60]}")
        for place, text in (*spans(), *commands_of_the_site(), *commands_not_run())
        if text.startswith("nasbench-at ")
    ]


def files_in_documents():
    """Yields the files that Python blocks say they are, in their first line: name and text."""
    for name in DOCUMENTS:
        for _, language, text in blocks_of(name):
            of_file = re.match(r"# (\w+\.py)\n", text)
            if language == "python" and of_file:
                yield of_file[1], text


@pytest.fixture(scope="module")
def supposed(tmp_path_factory):
    """What the documents suppose: runs of two networks and two seeds, a file of them, a pilot."""
    folder = tmp_path_factory.mktemp("documents")
    for blocks in (("residual", "dense"), ("dense",)):
        for seed in (0, 1):
            config = RunConfig(
                data="digits",
                blocks=blocks,
                num_modules=3,
                init_channels=4,
                widen_factor=1,
                epochs=1,
                attack_steps=1,
                seed=seed,
            )
            record = train(config, runs_dir=folder / "runs", device="cpu")
            evaluate_run(folder / "runs" / record.run_id, ("pgd", "aa"), device="cpu", aa_samples=2)
    Benchmark.load(folder / "runs").save(folder / "all.parquet")
    for name, text in files_in_documents():
        (folder / name).write_text(text)
    x = np.arange(12 * 64, dtype=np.uint8).reshape(12, 8, 8)
    y = np.arange(12) % 3
    np.savez(folder / "three.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    np.savez(folder / "generated.npz", x=x, y=y)
    shutil.copytree(folder / "runs", folder / "pilot")
    return folder


@pytest.fixture
def folder(supposed, tmp_path, monkeypatch):
    """The working directory: a copy of all that is supposed."""
    shutil.copytree(supposed, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NASBENCH_AT_STORAGE", raising=False)
    return tmp_path


def filled_in(words, folder):
    """Yields words, with a run where a word stands for one, and for the next one another."""
    runs = [str(path) for path in sorted((folder / "runs").iterdir())]
    for word in words:
        if word.startswith("runs/studies/"):
            yield "runs"
        else:
            yield runs.pop() if word in ("runs/<run-id>", "RUN") else word


def create_study():
    """A study with one finished trial, which nobody has trained here."""
    flags = ["--blocks", "residual", "dense", "--sizes", "2", "--workers", "0"]
    assert main(["study", "run", "block-space", "--data", "digits", *flags]) == 0
    opened = open_study("block-space", storage_url(None, study_folder("runs", "block-space")))
    trial = claim_trial(opened, "w")
    trial.set_user_attr("run_id", Benchmark.load("runs")[0].run_id)
    opened.study.tell(trial, 0.5)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("command", commands_that_run())
def test_command_runs(command, folder, own_registry, capsys):
    scaled = [flags.split() for start, flags in SCALED.items() if starts_with(command, start)]
    name, *words = sum(scaled, command)
    assert name == "nasbench-at", "a command of another program: run it, or say why not in NOT_RUN"
    if words[:2] in (["study", "status"], ["study", "export"]):
        create_study()
    try:
        assert main(list(filled_in(words, folder))) == 0, capsys.readouterr().err
    finally:
        forget_plugins()
    if "--out" in words:
        assert (folder / words[words.index("--out") + 1]).stat().st_size > 0


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", documents_with_python())
def test_python_runs(name, folder, own_registry):
    document = read(name)
    for said, run_instead in SUBSTITUTIONS.get(name, {}).items():
        assert said in document.text
        document.text = document.text.replace(said, run_instead)
    document.end = len(document.text)
    for region in PythonCodeBlockParser()(document):
        document.add(region)
    for example in document.examples():
        example.evaluate()


def test_block_to_contribute_is_one(folder, own_registry):
    (source,) = (text for _, language, text in blocks_of("CONTRIBUTING.md") if language == "python")
    Path("my_blocks.py").write_text(source)
    plugin = ["--plugins", "my_blocks.py", "--blocks", "plain", "residual"]
    tiny = ["--data", "digits", "--num-modules", "3", "--init-channels", "4", *TINY.split()]
    try:
        assert main(["train", *plugin, *tiny]) == 0
        check_block("plain")
    finally:
        forget_plugins()


def test_substitutions_are_in_documents_that_have_python():
    with_python = {param.values[0] for param in documents_with_python()}
    assert {*SUBSTITUTIONS, *SLOW_PYTHON} <= with_python


@pytest.mark.parametrize("start", sorted({*NOT_RUN, *SCALED, *SLOW}))
def test_declaration_is_used(start):
    assert any(starts_with(words, start) for _, words in shell_commands())


@pytest.mark.parametrize("name", DOCUMENTS)
def test_languages_are_known(name):
    unknown = [
        f"{line}: {language}"
        for line, language, _ in blocks_of(name)
        if language not in LANGUAGES and language.split()[0] not in MADE_WITH_THE_SITE
        if not language.startswith("{include} ")
    ]
    assert not unknown
    fences = re.findall(r"^ *(?:```|~~~)", (ROOT / name).read_text("utf-8"), re.MULTILINE)
    assert len(fences) == 2 * len(blocks_of(name))


def test_targets_of_make_are_there():
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    asked = {words[1] for _, words in shell_commands() if words[0] == "make"}
    assert asked <= set(targets)


@cache
def help_of(*words):
    """What --help behind these words says, or nothing if there is no such command."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.redirect_stderr(io.StringIO()):
        code = main([*words, "--help"])
    return text.getvalue() if code == 0 else ""


def flags_of(*words):
    return set(re.findall(r"(?<![\w-])--[a-z][\w-]*", help_of(*words)))


def flags_in(words):
    return {word.partition("=")[0] for word in words if word.startswith("--")}


@pytest.mark.parametrize("text", commands_in_prose())
def test_command_in_prose_has_its_flags(text):
    words = text.split()[1:]
    assert words[0] in find_commands()
    if words[0] == "figure":
        assert words[1] in (*FIGURES, "NAME", "--help")
    # `figure` takes a name before its flags, `study` one or two.
    names = {"figure": 2, "study": 3 if words[1:2] == ["run"] else 2}.get(words[0], 1)
    assert help_of(*words[:names])
    assert flags_in(words) <= flags_of(*words[:names])


@cache
def all_flags():
    """The flags of all commands together."""
    commands = [*([name] for name in find_commands()), ["figure", "NAME"]]
    commands += [["study", name] for name in SUBCOMMANDS]
    commands += [["study", "run", name] for name in RECIPES]
    return set().union(*(flags_of(*words) for words in commands))


@pytest.mark.parametrize("name", DOCUMENTS)
def test_flag_in_prose_is_one_of_some_command(name):
    for place, text in spans():
        if place.startswith(f"{name}:") and text.startswith("--"):
            assert flags_in(text.split()) <= all_flags(), place
