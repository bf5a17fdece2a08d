"""The paper's tables and figures out of the commands, from runs that the recipes list.

At toy size: a tiny network, a few small images, an epoch each. Workers are tested elsewhere; here
the runs are trained one after the other in this process.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from nasbench_at import evaluate_run, train
from nasbench_at.cli import main
from nasbench_at.records.run_folders import StudyRuns
from studies import recipes
from studies.config import StudyConfig, study_folder
from studies.trial_process import is_evaluated
from tests.studies.conftest import tiny_run, write_stripes

# The first test waits for all runs.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """Runs of every recipe, each study with its folder."""
    base = tiny_run(write_stripes(tmp_path_factory.mktemp("data")), epochs=1)
    folder = tmp_path_factory.mktemp("paper") / "runs"
    two = {"seeds": (0, 1)}
    run(recipes.block_space(base, **two), folder)
    run(recipes.block_ensemble(base, methods=("at",), **two), folder)
    run(recipes.initialization(base, seeds=(0,)), folder)
    run(recipes.weight_decay(base), folder)
    parent = folder / recipes.block_space(base).runs[-1].config.run_id
    run(recipes.pruning(base, parents=(parent,), kept=(1, 2)), folder)
    models = ("tiny_resnet", "tiny_wrn")
    run(recipes.methods(base, models=models, seeds=(0,)), folder, ("fgsm", "pgd", "cw"))
    run(recipes.misalignment(base, models=models), folder)
    return folder


def run(study: StudyConfig, runs: Path, attacks: tuple[str, ...] = ("pgd",)) -> None:
    for planned in study.runs:
        record = train(planned.config, runs_dir=runs, device="cpu")
        if not is_evaluated(record, attacks):
            evaluate_run(runs / record.run_id, attacks, device="cpu")
    folder = study_folder(runs, study.name)
    folder.mkdir(parents=True)
    StudyRuns(tuple(planned.config.run_id for planned in study.runs), is_finished=True).write(
        folder
    )


@pytest.mark.parametrize(
    ("number", "study", "rows"),
    [
        (1, "misalignment", ("tiny_resnet", "tiny_wrn")),
        (2, "methods", ("tiny_resnet", "tiny_wrn")),
        (3, "methods", ("tiny_resnet", "tiny_wrn")),
        (4, "pruning", ("1", "2")),
        (5, "methods", ("tiny_resnet", "tiny_wrn")),
        (6, "weight-decay", ("0.0003", "0.0007")),
    ],
)
@pytest.mark.parametrize("suffix", [".md", ".tex", ".csv"])
def test_every_table_comes_out_of_its_study(number, study, rows, suffix, runs, tmp_path):
    out = tmp_path / f"table{suffix}"
    assert main(["table", str(number), str(study_folder(runs, study)), "--out", str(out)]) == 0
    text = out.read_text().replace("\\_", "_")
    for row in rows:
        assert row in text or row.replace("0.000", "") in text


@pytest.mark.parametrize(
    ("name", "study"),
    [
        ("block-ensemble", "block-ensemble"),
        ("initialization", "initialization"),
        ("block-space", "block-space"),
        ("attention", "block-space"),
        ("attention-entropy", "block-space"),
        ("attention-distances", "initialization"),
        ("learning-curves", "weight-decay"),
        ("pareto", "block-space"),
        ("co-occurrence", "block-space"),
        ("rank-correlation", "block-ensemble"),
        ("reliability", "block-ensemble"),
        ("gradient-variance", "weight-decay"),
        ("landscape", "weight-decay"),
    ],
)
def test_every_figure_of_a_study_comes_out_of_it(name, study, runs, tmp_path):
    out = tmp_path / "figure.png"
    words = ["figure", name, str(study_folder(runs, study)), "--out", str(out)]
    words += ["--points", "3", "--num-images", "16"] if name == "landscape" else []
    assert main(words) == 0
    assert out.read_bytes().startswith(b"\x89PNG")


def test_attacks_are_carried_between_runs(runs, tmp_path):
    chosen = StudyRuns.read(study_folder(runs, "block-ensemble")).run_ids[:2]
    out = tmp_path / "figure.svg"
    places = [str(runs / run_id) for run_id in chosen]
    assert main(["figure", "transfer", *places, "--out", str(out), "--device", "cpu"]) == 0
    assert "<svg" in out.read_text()


@pytest.mark.parametrize(
    "name",
    [
        "landscape",
        "gradient-variance",
        "attention",
        "attention-history",
        "lipschitz",
        "cka",
        "perturbations",
        "confusion",
        "class-accuracy",
        "attack-steps",
    ],
)
def test_every_figure_of_a_run_comes_out_of_it(name, runs, tmp_path):
    (run_id, *_) = StudyRuns.read(study_folder(runs, "block-ensemble")).run_ids
    out = tmp_path / "figure.svg"
    words = ["figure", name, str(runs / run_id), "--out", str(out), "--device", "cpu"]
    if name == "landscape":
        words += ["--points", "3", "--num-images", "16", "--adversarial"]
    if name in ("lipschitz", "cka"):
        words += ["--num-images", "8"]
    assert main(words) == 0
    assert "<svg" in out.read_text()


def test_report_holds_all_of_it(runs, tmp_path, capsys):
    out = tmp_path / "report.html"
    words = ["report", str(runs), "--out", str(out), "--landscapes", "1", "--points", "3"]
    assert main([*words, "--num-images", "16"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(out)
    page = out.read_text()
    for section in ("summary", "runs", "tables", "figures", "attention", "curves", "landscapes"):
        assert f'<section id="{section}"' in page
    assert len(page) < 10_000_000
