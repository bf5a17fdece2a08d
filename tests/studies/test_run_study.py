"""Studies from end to end, in processes of their own, on data that train in a blink."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import FrozenTrial, TrialState

from nasbench_at import train
from nasbench_at.config import resolve
from studies import recipes, run_study
from studies.config import PlannedRun, StudyConfig, study_folder
from studies.queue import requeue_failed
from studies.recipes import RECIPES
from studies.results import StudyResult
from studies.storage import storage_url
from studies.study import OtherVersionError, open_study
from studies.supervisor import create_study
from tests.conftest import forget_plugins
from tests.studies.conftest import tiny_run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(config: StudyConfig, **options: Any) -> StudyResult:
    return run_study(config, device="cpu", **options)


def trained_epochs(runs: Path) -> dict[str, float]:
    """When each run's checkpoint was last written."""
    return {path.parent.name: path.stat().st_mtime_ns for path in runs.glob("*/last.pt")}


def test_grid_is_trained_once_and_then_found(tiny_study):
    statuses: list[Any] = []
    result = run(tiny_study, workers=2, on_status=statuses.append)
    assert [trial.state for trial in result.trials] == [TrialState.COMPLETE] * 3
    frame = result.frame()
    assert list(frame["residual"]) == [True, False, True]
    assert {"validation_robust", "natural", "fgsm", "pgd", "cw"} <= set(frame.columns)
    assert result.best().run_id in set(frame["run_id"])
    assert statuses[-1].is_finished
    assert statuses[-1].num_done == 3
    before = trained_epochs(Path("runs"))
    assert len(before) == 3
    again = run(tiny_study, workers=2)
    assert again.frame().equals(frame)
    assert trained_epochs(Path("runs")) == before


def test_runs_of_other_studies_are_not_repeated(tiny_study):
    run(tiny_study)
    before = trained_epochs(Path("runs"))
    other = run(replace(tiny_study, name="other"))
    assert [trial.user_attrs["from_records"] for trial in other.trials] == [True] * 3
    assert trained_epochs(Path("runs")) == before
    assert other.compute().epochs == 0


def test_another_study_of_the_same_name_is_refused(tiny_study, base):
    create_study(tiny_study)
    other = recipes.block_space(replace(base, epochs=7))
    with pytest.raises(ValueError, match="'block-space' exists and is another one: epochs 2 there"):
        run(other)


def test_other_code_and_other_data_are_refused(tiny_study, stripes, monkeypatch):
    create_study(tiny_study)
    with monkeypatch.context() as patch:
        patch.setattr("studies.study.source_hash", lambda: "another")
        with pytest.raises(OtherVersionError, match=r"other code: .*another.* --any-code goes on"):
            create_study(tiny_study)
        create_study(tiny_study, any_code=True)
    url = storage_url(None, study_folder("runs", tiny_study.name))
    opened = open_study(tiny_study.name, url)
    opened.study.set_user_attr("data_fingerprint", "another")
    with pytest.raises(OtherVersionError, match="begun with other data: fingerprint another there"):
        open_study(tiny_study.name, url, to_work=True)


@pytest.mark.filterwarnings("ignore:plugin .* registers nothing")
def test_study_whose_plugin_was_edited_is_not_worked_on_but_can_be_looked_at(stripes, tmp_path):
    plugin = tmp_path / "my_blocks.py"
    plugin.write_text("first = 1")
    base = tiny_run(stripes, plugins=(str(plugin),))
    study = recipes.block_space(base)
    create_study(study)
    plugin.write_text("first = 2")
    forget_plugins()
    url = storage_url(None, study_folder("runs", study.name))
    with pytest.raises(ValueError, match=r"my_blocks.py' has changed since the run was made"):
        open_study(study.name, url, to_work=True)
    assert open_study(study.name, url).config == study
    with pytest.raises(ValueError, match=r"is another one: '.*my_blocks.py' has changed; choose"):
        create_study(recipes.block_space(base))


SCRIPT = """
import sys, yaml
from pathlib import Path
from studies import StudyConfig, StudyInterruptedError, run_study
config = StudyConfig.from_dict(yaml.safe_load(Path(sys.argv[1]).read_text()))
try:
    run_study(config, workers=int(sys.argv[2]), ranks=int(sys.argv[3]), device="cpu")
except StudyInterruptedError as stopped:
    print(stopped)
    sys.exit(75)
"""


class RunningStudy:
    """A study that runs in processes of its own, to be killed."""

    def __init__(self, config: StudyConfig, workers: int = 1, ranks: int = 1) -> None:
        self.config = config
        self.folder = study_folder("runs", config.name)
        Path("config.yaml").write_text(config.to_yaml())
        with Path("output").open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-c", SCRIPT, "config.yaml", str(workers), str(ranks)],
                stdout=output,
            )

    def wait_for_epochs(self, count: int) -> None:
        def is_reached() -> bool:
            files = Path("runs").glob("*/metrics.jsonl")
            return max((len(f.read_text().splitlines()) for f in files), default=0) >= count

        wait_for(is_reached)

    def worker_pids(self) -> list[int]:
        return [int(path.stem.split("-")[-2]) for path in self.folder.glob("workers/*.lock")]

    def finish(self) -> int:
        return self.process.wait(timeout=240)

    def trials(self) -> list[FrozenTrial]:
        url = storage_url(None, self.folder)
        return open_study(self.config.name, url).study.get_trials()


def resumed_epoch(trial: FrozenTrial) -> int:
    """The epoch, counted from 1, in which a trial's run went on."""
    return int(trial.user_attrs["resumed_from"].split()[1].rstrip(","))


def wait_for(condition: Callable[[], Any], seconds: float = 200) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def slow_study(stripes: Path) -> StudyConfig:
    """One run that takes long enough to be killed in its midst."""
    base = tiny_run(stripes, epochs=25, attack_steps=8)
    return replace(recipes.block_space(base, sizes=(2,)), attacks=("pgd",))


def test_killed_worker_is_replaced_and_its_run_goes_on(stripes):
    study = RunningStudy(slow_study(stripes))
    study.wait_for_epochs(2)
    (victim,) = study.worker_pids()
    os.kill(victim, signal.SIGKILL)
    assert study.finish() == 0
    first, second = study.trials()
    assert (first.state, second.state) == (TrialState.FAIL, TrialState.COMPLETE)
    assert first.user_attrs["error"] == "its worker died"
    assert resumed_epoch(second) > 2


def test_study_whose_every_process_is_killed_goes_on_when_it_is_started_again(stripes):
    config = slow_study(stripes)
    study = RunningStudy(config)
    study.wait_for_epochs(2)
    study.process.kill()
    for pid in study.worker_pids():
        os.kill(pid, signal.SIGKILL)
    study.finish()
    again = RunningStudy(config)
    assert again.finish() == 0
    trials = again.trials()
    assert [trial.state for trial in trials] == [TrialState.FAIL, TrialState.COMPLETE]
    assert resumed_epoch(trials[1]) > 2
    # Interrupted at will, the run has the bits of one that was not.
    whole = train(config.runs[0].config, runs_dir="whole", device="cpu")
    weights = [Path(runs) / whole.run_id / "best.safetensors" for runs in ("runs", "whole")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_study_that_is_asked_to_stop_saves_and_goes_on(stripes):
    config = slow_study(stripes)
    study = RunningStudy(config)
    study.wait_for_epochs(2)
    study.process.send_signal(signal.SIGINT)
    assert study.finish() == 75
    assert "stopped with 0 of 1 trials done" in Path("output").read_text()
    assert [trial.state.name for trial in study.trials()] == ["WAITING"]
    again = RunningStudy(config)
    assert again.finish() == 0
    (trial,) = again.trials()
    assert trial.state == TrialState.COMPLETE
    assert resumed_epoch(trial) > 2


def test_ranks_that_are_asked_to_stop_save_and_go_on(stripes):
    config = slow_study(stripes)
    study = RunningStudy(config, ranks=2)
    study.wait_for_epochs(2)
    study.process.send_signal(signal.SIGTERM)
    assert study.finish() == 75
    assert [trial.state.name for trial in study.trials()] == ["WAITING"]
    again = RunningStudy(config, ranks=2)
    assert again.finish() == 0
    (trial,) = again.trials()
    assert trial.state == TrialState.COMPLETE
    assert resumed_epoch(trial) > 2


def processes_in(folder: Path) -> list[int]:
    """The other processes that work in a folder."""
    found = []
    for link in Path("/proc").glob("[0-9]*/cwd"):
        try:
            if link.readlink() == folder and int(link.parent.name) != os.getpid():
                found.append(int(link.parent.name))
        except OSError:  # it has ended
            continue
    return found


@pytest.mark.skipif(not Path("/proc/self/cwd").exists(), reason="needs /proc")
@pytest.mark.parametrize(("workers", "ranks"), [(2, 1), (1, 2)])
def test_nothing_outlives_a_supervisor_that_is_killed(workers, ranks, stripes, tmp_path):
    study = RunningStudy(slow_study(stripes), workers=workers, ranks=ranks)
    study.wait_for_epochs(2)
    assert len(processes_in(tmp_path)) > workers + ranks
    study.process.kill()
    study.finish()
    wait_for(lambda: not processes_in(tmp_path), seconds=60)
    assert [trial.state for trial in study.trials()] == [TrialState.WAITING]
    (metrics,) = Path("runs").glob("*/metrics.jsonl")
    assert len(metrics.read_text().splitlines()) < 25
    logs = "".join(path.read_text() for path in (study.folder / "logs").glob("worker-*.log"))
    assert "trial 0 goes back to the queue: " in logs


def test_trial_that_raises_costs_one_trial(stripes):
    base = tiny_run(stripes, epochs=1)
    bad = replace(base, lr=1e30)
    config = replace(
        recipes.block_space(base, sizes=(2,)),
        runs=tuple(PlannedRun({"lr": run.lr or 0.0}, resolve(run)) for run in (bad, base)),
    )
    result = run(config)
    assert [trial.state for trial in result.trials] == [TrialState.FAIL, TrialState.COMPLETE]
    error = result.frame()["error"][0]
    assert error.startswith("FloatingPointError: ")
    log = (study_folder("runs", config.name) / "logs" / "trial-0000.log").read_text()
    assert "Traceback" in log
    # What failed by itself is not tried again until it is asked for.
    assert len(run(config).study.trials) == 2
    url = storage_url(None, study_folder("runs", config.name))
    requeue_failed(open_study(config.name, url))
    assert len(run(config).study.trials) == 3


def test_search_prunes_and_counts_what_it_saved(base):
    config = recipes.search(
        replace(base, epochs=4), num_trials=8, pool=("residual", "mbconv", "dense")
    )
    result = run(config, workers=2)
    assert {trial.state for trial in result.trials} == {TrialState.COMPLETE, TrialState.PRUNED}
    compute = result.compute()
    assert 8 <= compute.epochs < compute.full_epochs == 32
    assert (compute.space_size, compute.exhaustive_epochs) == (7, 28)
    assert set(result.importance().index) == {"residual", "mbconv", "dense"}
    assert result.best().training["epochs"] == 4


def test_search_of_several_objectives_gives_a_front_within_the_constraints(base):
    config = recipes.search(
        base,
        num_trials=5,
        pool=("residual", "mbconv", "dense"),
        objectives=("robust", "parameters", "seconds_per_step"),
        max_parameters=9_000,
        sampler="nsga2",
    )
    result = run(config)
    states = result.frame()["state"]
    assert set(states) == {"complete", "pruned"}
    assert all(record.num_params <= 9_000 for record in result.records)
    front = result.pareto()
    assert 1 <= len(front) <= len(result.records)
    assert front["parameters"].min() == min(record.num_params for record in result.records)


def test_screening_trains_only_what_passes(base):
    config = recipes.search(
        replace(base, epochs=3),
        num_trials=6,
        pool=("residual", "mbconv", "dense"),
        pruner="none",
        screening_epochs=1,
        screening_attack_steps=1,
    )
    result = run(config)
    screened = [trial.user_attrs["screened"] for trial in result.trials]
    assert len(screened) == 6
    assert {trial.state.name for trial in result.trials} == {"COMPLETE", "PRUNED"}
    for record in result.records:
        assert (record.config["epochs"], record.config["attack_steps"]) == (3, 2)
    metrics = [path.read_text().splitlines() for path in Path("runs").glob("*/metrics.jsonl")]
    assert result.compute().epochs == sum(map(len, metrics))


def test_ranks_train_a_trial_together(base):
    result = run(recipes.block_space(base, sizes=(2,)), ranks=2)
    assert result.records[0].provenance["num_ranks"] == 2
    assert result.records[0].is_evaluated


@pytest.mark.parametrize(
    ("recipe", "options", "num_runs"),
    [
        ("block-ensemble", {"methods": ("at",)}, 4),
        ("initialization", {}, 5),
        ("weight-decay", {}, 5),
        ("methods", {"models": ("ds_net", "tiny_resnet"), "methods": ("at", "mart")}, 4),
        ("misalignment", {"models": ("tiny_resnet", "tiny_ds_net")}, 4),
    ],
)
def test_recipes_run_and_evaluate_all_their_runs(recipe, options, num_runs, stripes):
    base = tiny_run(stripes, epochs=1)
    config = RECIPES[recipe](base, seeds=(0,), **options)
    result = run(replace(config, attacks=("pgd",)), workers=2)
    assert len(result.records) == num_runs
    for record in result.records:
        assert record.was_evaluated_by("natural")
        assert record.was_evaluated_by("pgd")


def test_pruning_retrains_what_a_parent_has_learned(stripes):
    base = tiny_run(stripes, epochs=1)
    parent = train(base, runs_dir="runs", device="cpu")
    config = recipes.pruning(base, parents=(Path("runs") / parent.run_id,), kept=(1, 2))
    result = run(replace(config, attacks=("pgd",)))
    frame = result.frame()
    assert list(zip(frame["kept"], frame["form"], strict=True)) == [
        (1, "instantiated"),
        (1, "zeroed"),
        (2, "instantiated"),
    ]
    for record in result.records:
        assert record.config["attention"] == "fixed"
        assert record.training["epochs"] == 1


def test_run_with_attacks_of_its_own_meets_them_beside_the_studys(stripes):
    study = recipes.block_space(tiny_run(stripes, epochs=1), sizes=(1,))
    first, second = study.runs
    study = replace(study, runs=(first, replace(second, attacks=("pgd",))), attacks=("fgsm",))
    met = [set(record.results) for record in run(study).records]
    common = {"natural", "fgsm", "worst_case"}
    assert met == [common, common | {"pgd"}]


def test_arguments_are_checked_before_anything_is_written(tiny_study):
    with pytest.raises(ValueError, match="workers must be at least 1, got 0"):
        run(tiny_study, workers=0)
    with pytest.raises(ValueError, match="ranks must be at least 1, got 0"):
        run(tiny_study, ranks=0)
    assert not list(Path().iterdir())
