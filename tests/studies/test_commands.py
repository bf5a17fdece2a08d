from __future__ import annotations

import os
import subprocess
from pathlib import Path

import optuna
import pandas as pd
import pytest

from nasbench_at.cli import main
from nasbench_at.records import Benchmark
from studies.config import StudyConfig, study_folder
from studies.queue import claim_trial
from studies.recipes import RECIPES
from studies.storage import StorageError, storage_url
from studies.study import open_study
from studies.suggestion import suggest_run
from tests.nasbench_at.records.test_records import make_record, write
from tests.studies.proxies.test_comparison import make_table as make_proxy_table
from tests.studies.replay.test_regret import make_table
from tests.studies.replay.test_table import make_run

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
    commands = ("run", "worker", "status", "repair", "export", "importance", "dashboard")
    for name in (*commands, "replay"):
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
        (["status", "none"], "there is no study 'none' in 'runs/studies'; known: none"),
        (["run", "block-space", "--storage", "mysql://x", "--dry-run"], "sqlite or postgresql"),
        (
            ["run", "block-space", *FLAGS, "--batch-size", "1500"],
            "batch_size must be at most the number of training images, 1167, got 1500",
        ),
        (
            ["run", "block-space", *FLAGS, "--device", "cuda:99"],
            "device 'cuda:99' is not available",
        ),
        (["run", "block-space", *FLAGS, "--aa-samples", "501"], "must lie in 1..500, got 501"),
        (
            ["run", "block-space", *FLAGS, "--aa-samples", "501", "--dry-run"],
            "aa_samples must lie in 1..500, got 501",
        ),
        (["run", "block-space", "--ranks", "0"], "ranks must be"),
        (["run", "search", "--seeds", "1", "2"], "takes one seed (--seed), got seeds (1, 2)"),
        (
            ["status"],
            "there is no study in 'runs/studies'; --storage or the variable NASBENCH_AT_STORAGE",
        ),
        (["export", "--out", "a.doc"], "out must be a file ending in .csv, .parquet or .tex, in"),
        (["export", "--out", "no/a.csv"], "in an existing folder, got 'no/a.csv'"),
    ],
)
def test_bad_input_is_a_line(words, message, capsys):
    assert main(["study", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not Path("runs").exists()


def test_digits_get_a_network_of_their_size_unless_flags_say_otherwise():
    assert main(["study", "run", "block-space", "--workers", "0", "--sizes", "4"]) == 0
    create("--name", "flags", "--sizes", "2")
    wide, own = (
        open_study(name, storage_url(None, study_folder("runs", name))).config
        for name in ("block-space", "flags")
    )
    assert (wide.base.num_modules, wide.base.init_channels, wide.base.widen_factor) == (3, 8, 2)
    assert (own.base.num_modules, own.base.init_channels, own.base.widen_factor) == (3, 4, 1)


def test_study_under_l2_has_the_attacks_that_there_are_under_it():
    create("--norm", "L2", "--sizes", "2")
    study = open_study("block-space", storage_url(None, study_folder("runs", "block-space")))
    assert (study.config.base.norm, study.config.attacks) == ("L2", ("pgd",))


@pytest.mark.parametrize("model", ["tiny_wrn", "tiny_ds_net"])
def test_network_by_name_is_left_as_it_is_on_digits(model):
    words = ["weight-decay", "--model", model, "--data", "digits", "--seeds", "0"]
    assert main(["study", "run", *words, "--workers", "0"]) == 0


def test_study_for_workers_elsewhere_may_name_a_device_that_is_not_here():
    create("--device", "cuda:99", "--ranks", "64")


def test_storage_that_stays_away_interrupts_a_study(monkeypatch, capsys):
    def away(*words: object, **options: object) -> None:
        raise StorageError("the storage was away for 600 s: gone")

    monkeypatch.setattr("studies.supervisor.work_through", away)
    assert main(["study", "run", "block-space", *FLAGS]) == 75
    error = capsys.readouterr().err
    assert error == "nasbench-at: the storage was away for 600 s: gone; the same command goes on\n"


def test_what_ones_own_data_lack_is_told_once_when_a_study_begins(stripes, capsys):
    create("--data", str(stripes))
    expected = [
        f"eps is 0.031, the recipe's for CIFAR-10: --eps sets the radius that suits '{stripes}'",
        "the best epoch is selected on 16 held-out images, which is noisy: --validation-fraction "
        "holds out more, --select-on last takes the last epoch",
    ]
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if "batch_size" not in line] == [
        f"nasbench-at: warning: {line}" for line in expected
    ]
    create("--data", str(stripes), "--eps", "0.1", "--select-on", "last", "--name", "another")
    assert "eps is" not in (error := capsys.readouterr().err)
    assert "held-out" not in error


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
    row = next(line for line in text.splitlines() if line.startswith("2\twaiting"))
    assert row.split("\t")[-2:] == ["-", "-"]
    create("--name", "second")
    assert main(["study", "status"]) == 0
    text = capsys.readouterr().out
    assert "study second: 0 of 3 trials done; 3 waiting" in text
    assert main(["study", "export"]) == 2
    assert "several studies in 'runs/studies', name one: block-space, second" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize("given", ["flag", "variable"])
def test_studies_of_a_database_are_found_without_a_name(given, capsys, monkeypatch):
    url = "sqlite:///all.db"
    create("--storage", url)
    optuna.create_study(study_name="of_others", storage=url)
    words = ["--storage", url] if given == "flag" else []
    if given == "variable":
        monkeypatch.setenv("NASBENCH_AT_STORAGE", url)
    assert main(["study", "status", *words, "--runs-dir", "elsewhere"]) == 0
    assert "study block-space: 0 of 3 trials done" in capsys.readouterr().out
    create("--name", "second", "--seeds", "0", "1", "--storage", url)
    assert main(["study", "status", *words]) == 0
    text = capsys.readouterr().out
    assert "study block-space: 0 of 3 trials done" in text
    assert "study second: 0 of 6 trials done" in text
    known = "block-space (3 trials), second (6 trials)"
    for command in ("worker", "export", "repair", "importance"):
        assert main(["study", command, *words]) == 2
        expected = f"several studies in storage '{url}', name one: {known}"
        assert expected in capsys.readouterr().err
    assert main(["study", "status", "thrid", *words]) == 2
    expected = f"no study 'thrid' in storage '{url}'; known: block-space, second"
    assert expected in capsys.readouterr().err


def test_database_without_studies_of_ours_has_none(capsys):
    optuna.create_study(study_name="of_others", storage="sqlite:///all.db")
    assert main(["study", "status", "--storage", "sqlite:///all.db"]) == 2
    assert "there is no study in storage 'sqlite:///all.db'; --stor" in capsys.readouterr().err


def test_study_of_another_database_is_not_suggested_to_its_own_name(capsys):
    create("--storage", "sqlite:///all.db")
    database = "runs/studies/block-space/study.db"
    for name in ("block-space", "runs/studies/block-space"):
        assert main(["study", "status", name]) == 2
        error = capsys.readouterr().err
        assert f"study 'block-space' is not kept in '{database}'; " in error.replace(
            str(Path.cwd()) + "/", ""
        )
        assert error.endswith(
            "--storage or the variable NASBENCH_AT_STORAGE names another database\n"
        )
        assert "did you mean" not in error


@pytest.mark.parametrize(
    "command",
    ["run block-space", "worker", "status", "export", "repair", "importance", "dashboard"],
)
def test_help_names_the_variable_of_the_storage(command, capsys):
    assert main(["study", *command.split(), "--help"]) == 0
    assert "NASBENCH_AT_STORAGE" in capsys.readouterr().out


def test_name_is_that_of_a_study_among_the_runs_before_it_is_a_folder(capsys, monkeypatch):
    create()
    create("--seeds", "0", "1", "--runs-dir", "other")
    monkeypatch.chdir("runs/studies")
    assert main(["study", "status", "block-space", "--runs-dir", "../../other"]) == 0
    assert "0 of 6 trials done" in capsys.readouterr().out
    assert main(["study", "status", "block-space", "--runs-dir", "nowhere"]) == 0
    assert "0 of 3 trials done" in capsys.readouterr().out


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


def test_export_says_which_runs_have_no_record(capsys):
    create()
    tell("block-space", 0.25, 0.75)
    url = storage_url(None, study_folder("runs", "block-space"))
    ids = [planned.config.run_id for planned in open_study("block-space", url).config.runs]
    write(Path("runs"), make_record(ids[0]))
    assert main(["study", "export"]) == 0
    line = (
        "nasbench-at: warning: 1 of 2 finished runs have no record in 'runs' (--runs-dir) that can "
        f"be read, and no accuracies of the attacks in the table: {ids[1]}\n"
    )
    assert capsys.readouterr().err == line
    assert main(["study", "export", "--runs-dir", "elsewhere", "--storage", url]) == 0
    assert "2 of 2 finished runs have no record in 'elsewhere' (--" in capsys.readouterr().err
    write(Path("runs"), make_record(ids[1]))
    assert main(["study", "export"]) == 0
    assert capsys.readouterr().err == ""


def test_importance_names_the_parameters(capsys):
    create("--seeds", "0", "1", "2", "3")
    tell("block-space", *(0.1 * i for i in range(12)))
    assert main(["study", "importance"]) == 0
    text = capsys.readouterr().out
    assert "residual" in text
    assert "seed" in text


def test_replay_draws_regret_and_writes_its_table(capsys):
    make_table().save("runs.parquet")
    words = ["study", "replay", "runs.parquet", "--repetitions", "3", "--workers", "1"]
    searched = [*words, "--samplers", "random", "brute", "--pruners", "none", "median"]
    assert main([*searched, "--out", "regret.png"]) == 0
    headings, *rows, last = (line.split("\t") for line in capsys.readouterr().out.splitlines())
    assert headings[:4] == ["sampler", "pruner", "share", "regret"]
    pairs = [[s, p] for s in ("random", "brute") for p in ("none", "median") for _ in range(4)]
    assert [row[:2] for row in rows] == [*pairs, ["every network, once", "none"]]
    assert [row[2] for row in rows[:4]] == ["0.05", "0.1", "0.25", "0.5"]
    assert last == ["figure drawn to regret.png, table written to regret.csv"]
    assert Path("regret.png").read_bytes().startswith(b"\x89PNG")
    written = pd.read_csv("regret.csv")
    assert len(written) == 4 * 19 + 1
    assert f"{written['regret'].iloc[-1]:.4g}" == rows[-1][3]


def test_proxies_are_tabulated_and_drawn(capsys):
    make_proxy_table().save("runs.parquet")
    assert main(["study", "proxies", "runs.parquet", "--out", "proxies.svg"]) == 0
    headings, *rows, ceiling, last = capsys.readouterr().out.splitlines()
    assert headings.split("\t")[:4] == ["proxy", "kind", "cost", "tau"]
    assert {"synflow", "croze", "ntk", "3 epochs"} <= {row.split("\t")[0] for row in rows}
    assert ceiling.startswith("noise ceiling: tau ")
    assert last == "figure drawn to proxies.svg, table written to proxies.csv"
    assert list(pd.read_csv("proxies.csv")["proxy"]) == [row.split("\t")[0] for row in rows]
    assert main(["study", "proxies", "runs.parquet", "--attack", "aa"]) == 2
    assert "one ranking by 'aa'" in capsys.readouterr().err


def test_bad_replay_is_one_line_before_any_search(capsys):
    make_table().save("runs.parquet")
    Benchmark([make_run(seed=seed) for seed in (0, 1)]).save("plain.jsonl")
    for words, message in (
        (["runs.parquet", "--samplers"], "there must be a sampler and a pruner, got 0 samplers"),
        (["runs.parquet", "--samplers", "annealing"], "samplers must be"),
        (["runs.parquet", "--pruners", "cut"], "pruners must be"),
        (["runs.parquet", "--space", "nope"], "space has the unknown key 'nope'"),
        (["runs.parquet", "--repetitions", "1"], "at least 2 repetitions, got 1"),
        (["plain.jsonl"], "run 'residual-at-s0' has no metrics"),
    ):
        assert main(["study", "replay", *words]) == 2
        captured = capsys.readouterr()
        assert message in captured.err
        assert captured.err.count("\n") == 1
        assert captured.out == ""


@pytest.mark.parametrize("command", ["status", "export", "importance", "dashboard", "repair"])
@pytest.mark.parametrize("storage", [[], ["--storage", "sqlite:///elsewhere.db"]])
def test_looking_for_a_study_that_is_not_there_writes_nothing(command, storage, capsys):
    create("--name", "other")
    before = sorted(Path().rglob("*"))
    assert main(["study", command, "nope", *storage]) == 2
    error = capsys.readouterr().err
    if storage:
        assert "storage 'sqlite:///elsewhere.db' holds no studies" in error
    else:
        assert "there is no study 'nope' in 'runs/studies'; known: other; --storage or" in error
    assert sorted(Path().rglob("*")) == before


def test_worker_of_a_study_that_is_not_there_writes_nothing(capsys):
    assert main(["study", "worker", "nope"]) == 2
    assert "there is no study 'nope' in 'runs/studies'; known: none" in capsys.readouterr().err
    assert not list(Path().iterdir())


def test_looking_at_a_study_writes_nothing():
    create()
    tell("block-space", 0.25, 0.75)
    before = {path: path.stat().st_mtime_ns for path in Path().rglob("*")}
    assert main(["study", "status"]) == 0
    assert main(["study", "importance"]) == 0
    assert {path: path.stat().st_mtime_ns for path in Path().rglob("*")} == before


def test_status_tells_the_best_although_its_record_is_missing(capsys):
    create()
    tell("block-space", 0.25, 0.75)
    run_id = (
        open_study("block-space", storage_url(None, study_folder("runs", "block-space")))
        .config.runs[1]
        .config.run_id
    )
    Path("runs", run_id).mkdir()
    assert main(["study", "status"]) == 0
    assert f"best: {run_id} (its record is missing)" in capsys.readouterr().out


def test_what_fails_after_the_checks_is_a_fault(monkeypatch, capsys):
    create()
    tell("block-space", 0.25, 0.75)

    def broken(*words: object, **options: object) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr("studies.results.StudyResult.frame", broken)
    for command in ("status", "export"):
        assert main(["study", command]) == 1
        assert "ValueError: a bug; traceback in " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "seeds"),
    [
        ([], [0, 1, 2]),
        (["--seed", "0"], [0]),
        (["--seed=0"], [0]),
        (["--seed", "5"], [5]),
        (["--seeds", "0"], [0]),
        (["--seeds", "4", "0"], [4, 0]),
    ],
)
def test_seeds_are_those_of_the_flags_else_the_recipes(flags, seeds):
    create(*flags, "--methods", "at", "--models", "tiny_resnet", recipe="methods")
    url = storage_url(None, study_folder("runs", "methods"))
    assert [planned.config.seed for planned in open_study("methods", url).config.runs] == seeds


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


def print_script(capsys, *flags: str) -> str:
    words = ["study", "run", "block-space", *FLAGS, *flags, "--print-sbatch", "--workers", "4"]
    assert main(words) == 0
    text: str = capsys.readouterr().out
    return text


def test_print_sbatch_is_an_array_of_workers(capsys):
    script = print_script(capsys, "--name", "big", "--ranks", "2")
    assert "#SBATCH --array=1-8" in script
    assert "#SBATCH --gpus-per-task=2" in script
    assert "#SBATCH --job-name=big" in script
    assert "srun nasbench-at study worker big --runs-dir runs --device auto" in script
    assert "exec nasbench-at study run block-space --blocks residual mbconv" in script
    assert script.count("--workers") == 1
    assert "--workers 0" in script
    assert not list(Path().iterdir())


def test_print_sbatch_needs_no_data(capsys, monkeypatch):
    def load(*words: object) -> None:
        raise ValueError("there are no data here")

    monkeypatch.setattr("studies.variants.load_config_data", load)
    script = print_script(capsys)
    assert "exec nasbench-at study run block-space" in script


PAYLOADS = ("\ntouch ran\n", "$(touch ran)", "'; touch ran; '", "`touch ran`")


def run_script(script: str, **variables: str) -> list[list[str]]:
    """Runs a script beside commands that only note their words."""
    Path("bin").mkdir(exist_ok=True)
    for name in ("nasbench-at", "srun", "scontrol"):
        command = Path("bin", name)
        command.write_text(f'#!/bin/bash\nprintf "%s\\0" {name} "$@" $\'\\n\' >> calls\n')
        command.chmod(0o755)
    Path("calls").unlink(missing_ok=True)
    path = f"{Path('bin').resolve()}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash"],
        input=script,
        text=True,
        capture_output=True,
        timeout=60,
        env={"PATH": path, **variables},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    calls = Path("calls").read_text().split("\0\n\0")[:-1]
    return [call.split("\0") for call in calls]


@pytest.mark.parametrize("payload", PAYLOADS)
def test_words_of_a_user_do_not_run_in_the_script(payload, capsys):
    Path(f"p{payload}.py").write_text("")
    Path(f"d{payload}").mkdir()
    flags = ["--runs-dir", f"r{payload}", "--data-root", f"d{payload}"]
    plugin = ["--plugins", f"p{payload}.py"]
    storage = ["--storage", f"sqlite:///{payload.strip()}"]
    script = print_script(capsys, *flags, *plugin, *storage)
    done = subprocess.run(["bash", "-n"], input=script, text=True, check=False)
    assert done.returncode == 0
    ((create),) = run_script(script)
    assert create[:4] == ["nasbench-at", "study", "run", "block-space"]
    ((worker),) = run_script(script, SLURM_ARRAY_JOB_ID="7", SLURM_ARRAY_TASK_ID="1")
    assert worker[:5] == ["srun", "nasbench-at", "study", "worker", "block-space"]
    for words in (create, worker):
        assert {flags[1], flags[3], storage[1]} <= set(words)
    assert plugin[1] in create
    assert not Path("ran").exists()


@pytest.mark.parametrize("given", ["--storage", "--storage=", "variable"])
def test_script_takes_a_storage_with_a_password_from_the_environment(given, capsys, monkeypatch):
    url = "postgresql+psycopg://me:hunter2@host/studies"
    flags = {"--storage": ["--storage", url], "--storage=": [f"--storage={url}"], "variable": []}
    if given == "variable":
        monkeypatch.setenv("NASBENCH_AT_STORAGE", url)
    script = print_script(capsys, *flags[given])
    assert "hunter2" not in script
    assert "postgresql+psycopg://me" not in script
    for variables in ({}, {"SLURM_ARRAY_JOB_ID": "7"}):
        with pytest.raises(AssertionError, match="NASBENCH_AT_STORAGE: must hold the URL of the"):
            run_script(script, **variables)
        run_script(script, NASBENCH_AT_STORAGE=url, **variables)
        assert "hunter2" not in Path("calls").read_text()


@pytest.mark.parametrize("query", ["%70assword=hunter2", "sslpassword=hunter2"])
def test_script_leaves_out_a_storage_with_a_password_in_its_query(query, capsys):
    script = print_script(capsys, "--storage", f"postgresql+psycopg://me@host/studies?{query}")
    assert "hunter2" not in script
    assert "NASBENCH_AT_STORAGE:?must hold" in script


@pytest.mark.parametrize("password", ["hunter2 hunter3", "hunter2'hunter3", 'hunter2"hunter3'])
def test_blanks_and_quotes_in_a_password_are_refused_and_not_shown(password, capsys, monkeypatch):
    url = f"postgresql+psycopg://me:{password}@host/studies"
    run = ["run", "block-space", *FLAGS]
    for words in ([*run, "--print-sbatch"], [*run, "--dry-run"], run, ["status", "s"]):
        assert main(["study", *words, "--storage", url]) == 2
        shown = "".join(capsys.readouterr())
        assert "hunter" not in shown
        assert "blanks and quotes in it as %20, %22 and %27" in shown
        assert shown.count("\n") == 1
    monkeypatch.setenv("NASBENCH_AT_STORAGE", url)
    assert main(["study", *run]) == 2
    shown = "".join(capsys.readouterr())
    assert "a blank or a quote in a storage's URL must be written" in shown
    assert "hunter" not in shown


def test_script_names_a_storage_without_a_password(capsys):
    script = print_script(capsys, "--storage", "postgresql+psycopg://me@host/studies")
    assert script.count("--storage postgresql+psycopg://me@host/studies") == 2
    assert "NASBENCH_AT_STORAGE:?" not in script


def test_password_of_a_storage_is_not_shown(capsys):
    url = "postgresql+psycopg://me:hunter2@127.0.0.1:9/studies"
    for words in (["run", "block-space", *FLAGS], ["worker", "s"], ["status", "s"], ["repair"]):
        assert main(["study", *words, "--storage", url]) == 2
        shown = "".join(capsys.readouterr())
        assert "hunter2" not in shown
        assert shown.count("warning: the password in --storage can be read in the list of") == 1
        assert "storage 'postgresql+psycopg://me:***@127.0.0.1:9/studies' cannot be" in shown
    for words in (["--epoch", "3"], ["extra"], ["--storage", "mysql://me:hunter2@h/d"]):
        assert main(["study", "run", "block-space", "--storage", url, *words]) == 2
        assert "hunter2" not in "".join(capsys.readouterr())
    assert not any("hunter2" in path.read_text() for path in Path().rglob("*") if path.is_file())


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
