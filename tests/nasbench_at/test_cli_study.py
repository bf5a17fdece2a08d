from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from nasbench_at.cli import main
from studies.config import StudyConfig, study_folder
from studies.queue import claim_trial
from studies.recipes import RECIPES
from studies.storage import storage_url
from studies.study import open_study
from studies.suggestion import suggest_run

FLAGS = [
    *("--blocks", "residual", "mbconv", "--num-modules", "3", "--init-channels", "4"),
    *("--widen-factor", "1", "--epochs", "1"),
]


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NASBENCH_AT_STORAGE", raising=False)


def create(*flags: str, recipe: str = "block-space") -> None:
    assert main(["study", "run", recipe, *FLAGS, *flags, "--workers", "0"]) == 0


def tell(name: str, *values: float) -> None:
    """Completes trials as a worker would, without training anything."""
    opened = open_study(name, storage_url(None, study_folder("runs", name)))
    for value in values:
        trial = claim_trial(opened, "w")
        assert trial is not None
        run = suggest_run(opened.config, trial, opened.images)
        trial.set_user_attr("run_id", run.config.run_id)
        opened.study.tell(trial, value)


def test_recipes_and_commands_are_listed(capsys):
    assert main(["study", "--help"]) == 0
    assert main(["study", "run", "--help"]) == 0
    text = capsys.readouterr().out
    for name in ("run", "worker", "status", "repair", "export", "importance", "dashboard"):
        assert f"  {name}" in text
    for name in RECIPES:
        assert f"  {name}" in text


def test_help_of_a_recipe_shows_its_own_flags_and_those_of_training(capsys):
    assert main(["study", "run", "pruning", "--help"]) == 0
    text = capsys.readouterr().out
    for flag in ("--parents", "--kept", "--forms", "--workers", "--storage", "--epochs"):
        assert flag in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["rnu"], "unknown study command 'rnu'; did you mean 'run'?"),
        (["run"], "study run needs a recipe: block-space, "),
        (["run", "blok-space"], "unknown recipe 'blok-space'; did you mean 'block-space'?"),
        (["run", "block-space", "--sizes", "7"], "sizes must lie in 1..4, got 7"),
        (
            ["run", "block-space", "--workers", "-1"],
            "workers must be a whole number",
        ),
        (["run", "block-space", "--name", "a/b"], "must be letters, digits, '.', '_' and '-'"),
        (
            ["run", "block-space", "--attacks", "pdg"],
            "attacks must be a list of",
        ),
        (["run", "block-space", "--max-parameters", "50"], "no width meets 50 parameters"),
        (["run", "block-space", "--epoch", "3"], "--epochs"),
        (["run", "pruning"], "pruning needs at least one parent"),
        (["run", "pruning", "--parents", "none"], "'none' is no run folder"),
        (
            ["run", "block-space", "--storage", "postgresql+psycopg://u@127.0.0.1:9/d"],
            "storage 'postgresql+psycopg://u@127.0.0.1:9/d' cannot be reached",
        ),
        (["worker", "none"], "there is no study in 'runs/studies/none'"),
        (["status", "none"], "there is no study 'none' in 'runs/studies'; there is none"),
        (["status"], "there is no study in 'runs/studies'"),
        (["export", "--out", "a.doc"], "--out must end in .csv, .parquet, .tex, got 'a.doc'"),
    ],
)
def test_bad_input_is_a_line(words, message, capsys):
    assert main(["study", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list(Path().glob("runs/digits*"))


def test_digits_get_a_network_of_their_size_unless_flags_say_otherwise():
    assert main(["study", "run", "block-space", "--workers", "0", "--sizes", "4"]) == 0
    create("--name", "flags", "--sizes", "2")
    wide, own = (
        open_study(name, storage_url(None, study_folder("runs", name))).config
        for name in ("block-space", "flags")
    )
    assert (wide.base.num_modules, wide.base.init_channels, wide.base.widen_factor) == (3, 8, 2)
    assert (own.base.num_modules, own.base.init_channels, own.base.widen_factor) == (3, 4, 1)


def test_another_study_of_the_same_name_is_bad_input(capsys):
    create()
    assert main(["study", "run", "block-space", *FLAGS, "--epochs", "5", "--workers", "0"]) == 2
    error = capsys.readouterr().err
    assert "study 'block-space' exists and is another one: epochs 1 there, 5 here" in error
    assert "choose another name (--name)" in error


def test_status_tells_states_and_the_best(capsys):
    create()
    tell("block-space", 0.25, 0.75)
    assert main(["study", "status"]) == 0
    text = capsys.readouterr().out
    assert "study block-space: 2 of 3 trials done; 2 complete, 1 waiting, best 0.75" in text
    assert "waiting" in text
    create("--name", "second")
    assert main(["study", "status"]) == 0
    text = capsys.readouterr().out
    assert "study second: 0 of 3 trials done; 3 waiting" in text
    assert main(["study", "export"]) == 2
    assert "several studies in 'runs/studies', name one: block-space, second" in (
        capsys.readouterr().err
    )


def test_folder_is_as_good_as_a_name(capsys):
    create()
    assert main(["study", "status", "runs/studies/block-space"]) == 0
    assert "study block-space: 0 of 3" in capsys.readouterr().out


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".tex"])
def test_export_writes_a_row_a_trial(suffix, capsys):
    create()
    tell("block-space", 0.25, 0.75, 0.5)
    out = Path(f"table{suffix}")
    assert main(["study", "export", "--out", str(out)]) == 0
    assert "3 trials written to table" in capsys.readouterr().out
    if suffix == ".tex":
        text = out.read_text()
        assert r"validation\_robust" in text
        assert text.count(r"\\") == 4
        return
    frame = pd.read_csv(out) if suffix == ".csv" else pd.read_parquet(out)
    assert list(frame["validation_robust"]) == [0.25, 0.75, 0.5]
    assert list(frame["residual"].astype(str)) == ["True", "False", "True"]


def test_importance_names_the_parameters(capsys):
    create("--seeds", "0", "1", "2", "3")
    tell("block-space", *(0.1 * i for i in range(12)))
    assert main(["study", "importance"]) == 0
    text = capsys.readouterr().out
    assert "residual" in text
    assert "seed" in text


def test_importance_of_too_few_trials_is_bad_input(capsys):
    create()
    assert main(["study", "importance"]) == 2
    assert "importance needs at least two completed trials" in capsys.readouterr().err


def test_repair_queues_failed_trials_again(capsys):
    create()
    opened = open_study("block-space", storage_url(None, study_folder("runs", "block-space")))
    trial = claim_trial(opened, "w")
    assert trial is not None
    from optuna.trial import TrialState

    opened.study.tell(trial, state=TrialState.FAIL)
    assert main(["study", "repair"]) == 0
    assert "0 trials of dead workers and 1 that failed; 0 were missing" in capsys.readouterr().out


def test_print_sbatch_is_an_array_of_workers(capsys):
    words = ["study", "run", "block-space", *FLAGS, "--print-sbatch", "--name", "big"]
    assert main(words) == 0
    script = capsys.readouterr().out
    assert "#SBATCH --array=1-8" in script
    assert "srun nasbench-at study worker big --runs-dir runs --device auto" in script
    assert "#   nasbench-at study run block-space --blocks residual mbconv" in script
    assert "--workers 0" in script
    assert not list(Path().iterdir())


def test_dry_run_tells_what_each_run_costs(capsys):
    assert main(["study", "run", "weight-decay", *FLAGS, "--dry-run", "--workers", "2"]) == 0
    text = capsys.readouterr().out
    assert "5 runs, about " in text
    assert "with 2 worker(s)" in text
    assert not list(Path().iterdir())


def test_configuration_file_is_the_base(tmp_path):
    Path("own.yaml").write_text("data: digits\nnum_modules: 4\nblocks: [residual, dense]\n")
    assert main(["study", "run", "block-space", "--config", "own.yaml", "--workers", "0"]) == 0
    url = storage_url(None, study_folder("runs", "block-space"))
    config: StudyConfig = open_study("block-space", url).config
    assert (config.base.num_modules, config.base.init_channels) == (4, 20)
