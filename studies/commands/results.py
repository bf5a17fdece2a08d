"""``nasbench-at study status``, ``repair``, ``export``, ``importance`` and ``dashboard``."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from nasbench_at.commands.flags import parse_flags
from nasbench_at.commands.input_errors import bad_input, one_line_warnings
from nasbench_at.config.allowed_values import NewFile
from studies.commands.lookup import FoundStudy, StudyArguments, find_studies, only_study

__all__ = [
    "DashboardArguments",
    "ExportArguments",
    "run_dashboard",
    "run_export",
    "run_importance",
    "run_repair",
    "run_status",
]

EXPORT_SUFFIXES = (".csv", ".parquet", ".tex")
SHOWN_MISSING = 10


@dataclass(frozen=True)
class ExportArguments(StudyArguments):
    """Arguments of ``nasbench-at study export``.

    Attributes:
        out: File to write: .csv, .parquet or .tex; by default NAME.csv.
    """

    out: Annotated[Path, NewFile(EXPORT_SUFFIXES)] | None = None


@dataclass(frozen=True)
class DashboardArguments(StudyArguments):
    """Arguments of ``nasbench-at study dashboard``.

    Attributes:
        host: Address to listen at.
        port: Port to listen at.
    """

    host: str = "127.0.0.1"
    port: int = 8080


def _open(found: FoundStudy) -> Any:
    """Opens a study that was found; writes nothing."""
    from studies.study import open_study

    return open_study(found.name, found.url)


@contextmanager
def _quietly() -> Iterator[None]:
    from studies.study import quiet_optuna

    with quiet_optuna(), one_line_warnings():
        yield


def run_status(words: Sequence[str]) -> int:
    """Show a study's trials, the best of them and the time left; all studies without a name."""
    arguments = parse_flags(StudyArguments, words, "study status", run_status.__doc__)
    from nasbench_at.commands.console import show_frame, stdout
    from studies.commands.progress import show_status
    from studies.results import StudyResult, StudyStatus

    with _quietly():
        with bad_input():
            found = find_studies(arguments)
            opened = [_open(one) for one in found]
        for one, study in zip(found, opened, strict=True):
            show_status(StudyStatus.of(study))
            result = StudyResult.of(study, one.runs_dir)
            if len(found) == 1:
                show_frame(result.frame())
                stdout.say(result.compute().describe())
            if len(study.config.objectives) > 1:
                stdout.print("Pareto front:")
                show_frame(result.pareto())
            elif best := _describe_best(result):
                stdout.say(f"best: {best}")
    return 0


def _describe_best(result: Any) -> str:
    trial = result.best_trial()
    if trial is None:
        return ""
    run_id: str = trial.user_attrs["run_id"]
    is_there = any(record.run_id == run_id for record in result.records)
    return run_id if is_there else f"{run_id} (its record is missing)"


def run_repair(words: Sequence[str]) -> int:
    """Queue the trials again that dead workers held, and those that failed."""
    arguments = parse_flags(StudyArguments, words, "study repair", run_repair.__doc__)
    from nasbench_at.commands.console import stdout
    from studies.config import study_folder
    from studies.queue import fill_queue, requeue_failed
    from studies.supervisor import release_dead_workers

    with _quietly():
        with bad_input():
            study = only_study(arguments)
            opened = _open(study)
        name = opened.config.name
        released = release_dead_workers(opened, study_folder(study.runs_dir, name))
        missing = fill_queue(opened)
        failed = requeue_failed(opened)
    stdout.say(
        f"study {name}: queued again {released} trials of dead workers and {failed} that failed; "
        f"{missing} were missing",
    )
    return 0


def run_export(words: Sequence[str]) -> int:
    """Write a study's trials and their accuracies as a table: CSV, Parquet or LaTeX."""
    arguments = parse_flags(ExportArguments, words, "study export", run_export.__doc__)
    from nasbench_at.commands.console import stdout
    from nasbench_at.records.table_files import write_frame
    from studies.results import StudyResult

    with _quietly():
        with bad_input():
            study = only_study(arguments)
            opened = _open(study)
        result = StudyResult.of(opened, study.runs_dir)
        _warn_of_missing(result, study.runs_dir)
        frame = result.frame()
    out = arguments.out or Path(f"{opened.config.name}.csv")
    with bad_input():
        write_frame(frame, out)
    stdout.say(f"{len(result.trials)} trials written to {out}")
    return 0


def _warn_of_missing(result: Any, runs_dir: Path) -> None:
    missing = result.missing_runs()
    if missing:
        rest = f" and {len(missing) - SHOWN_MISSING} more" if len(missing) > SHOWN_MISSING else ""
        warnings.warn(
            f"{len(missing)} of {len(missing) + len(result.records)} finished runs have no record "
            f"in {str(runs_dir)!r} (--runs-dir) that can be read, and no accuracies of the attacks "
            f"in the table: {', '.join(missing[:SHOWN_MISSING])}{rest}",
            stacklevel=2,
        )


def run_importance(words: Sequence[str]) -> int:
    """Show how much each choice matters for a study's first objective (PED-ANOVA)."""
    arguments = parse_flags(StudyArguments, words, "study importance", run_importance.__doc__)
    from nasbench_at.commands.console import show_frame
    from studies.results import StudyResult

    with _quietly():
        with bad_input():
            study = only_study(arguments)
            result = StudyResult.of(_open(study), study.runs_dir)
            result.check_varied()
        importance = result.importance()
    show_frame(importance.rename_axis("parameter").rename("importance").reset_index())
    return 0


def run_dashboard(words: Sequence[str]) -> int:
    """Serve a study's trials as a page, by optuna-dashboard."""
    arguments = parse_flags(DashboardArguments, words, "study dashboard", run_dashboard.__doc__)
    from nasbench_at.commands.console import stdout

    with bad_input(), _quietly():
        try:
            from optuna_dashboard import run_server
        except ImportError:
            raise ValueError(
                "the dashboard needs optuna-dashboard: pip install 'nasbench-at[dashboard]'"
            ) from None
        opened = _open(only_study(arguments))
    stdout.print(
        f"study {opened.config.name}: http://{arguments.host}:{arguments.port}/", highlight=False
    )
    try:
        run_server(opened.storage, host=arguments.host, port=arguments.port)
    except OSError as error:
        with bad_input():
            raise ValueError(
                f"cannot listen at {arguments.host}:{arguments.port}: {error.strerror}"
            ) from None
    return 0
