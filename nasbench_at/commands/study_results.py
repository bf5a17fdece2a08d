"""``nasbench-at study status``, ``repair``, ``export``, ``importance`` and ``dashboard``."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro

from nasbench_at.allowed_values import Folder, Name, StorageUrl
from nasbench_at.commands.input_errors import bad_input

__all__ = [
    "DashboardArguments",
    "ExportArguments",
    "StudyArguments",
    "run_dashboard",
    "run_export",
    "run_importance",
    "run_repair",
    "run_status",
]

EXPORT_SUFFIXES = (".csv", ".parquet", ".tex")


@dataclass(frozen=True)
class StudyArguments:
    """Arguments of the commands that look at a study.

    Attributes:
        name: The study, or its folder; may be left out where there is one.
        runs_dir: Where runs lie.
        storage: URL of its database; by default SQLite in the study's folder.
    """

    name: tyro.conf.Positional[Name | None] = None
    runs_dir: Annotated[Path, Folder()] = Path("runs")
    storage: StorageUrl | None = None


@dataclass(frozen=True)
class ExportArguments(StudyArguments):
    """Arguments of ``nasbench-at study export``.

    Attributes:
        out: File to write: .csv, .parquet or .tex; by default NAME.csv.
    """

    out: Path | None = None

    def __post_init__(self) -> None:
        if self.out is not None and self.out.suffix not in EXPORT_SUFFIXES:
            allowed = ", ".join(EXPORT_SUFFIXES)
            raise ValueError(f"--out must end in {allowed}, got {str(self.out)!r}")


@dataclass(frozen=True)
class DashboardArguments(StudyArguments):
    """Arguments of ``nasbench-at study dashboard``.

    Attributes:
        host: Address to listen at.
        port: Port to listen at.
    """

    host: str = "127.0.0.1"
    port: int = 8080


ArgumentsT = TypeVar("ArgumentsT", bound=StudyArguments)


def _parse(
    kind: type[ArgumentsT], words: Sequence[str], command: str, text: str | None
) -> ArgumentsT:
    from nasbench_at.flags import parse_flags

    return parse_flags(kind, words, command=f"study {command}", description=text)


def _storage_url(arguments: StudyArguments, name: str) -> str:
    from studies.config import study_folder
    from studies.storage import SQLITE_FILE, storage_url

    folder = study_folder(arguments.runs_dir, name)
    url = storage_url(arguments.storage, folder)
    if url.endswith(SQLITE_FILE) and not (folder / SQLITE_FILE).exists():
        there = ", ".join(_names(arguments)) or "none"
        raise ValueError(f"there is no study {name!r} in {str(folder.parent)!r}; there is {there}")
    return url


def _names(arguments: StudyArguments) -> list[str]:
    """The studies among the runs, or the one that was named."""
    if arguments.name is not None:
        path = Path(arguments.name)
        return [path.name if (path / "study.yaml").exists() else arguments.name]
    folders = (arguments.runs_dir / "studies").glob("*/study.yaml")
    return sorted(path.parent.name for path in folders)


def _only_name(arguments: StudyArguments) -> str:
    names = _names(arguments)
    if len(names) == 1:
        return names[0]
    where = str(arguments.runs_dir / "studies")
    if not names:
        raise ValueError(f"there is no study in {where!r}")
    raise ValueError(f"there are several studies in {where!r}, name one: {', '.join(names)}")


def _open(arguments: StudyArguments, name: str) -> Any:
    from studies.study import open_study

    return open_study(name, _storage_url(arguments, name))


def _quietly() -> AbstractContextManager[None]:
    from studies.study import quiet_optuna

    return quiet_optuna()


def run_status(words: Sequence[str]) -> int:
    """Show a study's trials, the best of them and the time left; all studies without a name."""
    with bad_input():
        arguments = _parse(StudyArguments, words, "status", run_status.__doc__)
    from nasbench_at.commands.study_progress import show_status
    from nasbench_at.console import show_frame, stdout
    from studies.results import StudyResult, StudyStatus

    with bad_input(), _quietly():
        names = _names(arguments)
        if not names:
            _only_name(arguments)
        for name in names:
            opened = _open(arguments, name)
            show_status(StudyStatus.of(opened))
            result = StudyResult.of(opened, arguments.runs_dir)
            if len(names) == 1:
                show_frame(result.frame())
                stdout.print(result.compute().describe(), highlight=False, soft_wrap=True)
            if len(opened.config.objectives) > 1:
                stdout.print("Pareto front:")
                show_frame(result.pareto())
            elif len(result.records):
                stdout.print(f"best: {result.best().run_id}", highlight=False, soft_wrap=True)
    return 0


def run_repair(words: Sequence[str]) -> int:
    """Queue the trials again that dead workers held, and those that failed."""
    with bad_input():
        arguments = _parse(StudyArguments, words, "repair", run_repair.__doc__)
    from nasbench_at.console import stdout
    from studies.config import study_folder
    from studies.queue import fill_queue, requeue_failed
    from studies.supervisor import release_dead_workers

    with bad_input(), _quietly():
        name = _only_name(arguments)
        opened = _open(arguments, name)
        released = release_dead_workers(opened, study_folder(arguments.runs_dir, name))
        missing = fill_queue(opened)
        failed = requeue_failed(opened)
    stdout.print(
        f"study {name}: queued again {released} trials of dead workers and {failed} that failed; "
        f"{missing} were missing",
        highlight=False,
        soft_wrap=True,
    )
    return 0


def run_export(words: Sequence[str]) -> int:
    """Write a study's trials and their accuracies as a table: CSV, Parquet or LaTeX."""
    with bad_input():
        arguments = _parse(ExportArguments, words, "export", run_export.__doc__)
    from nasbench_at.console import stdout
    from nasbench_at.tables import write_frame
    from studies.results import StudyResult

    with bad_input(), _quietly():
        name = _only_name(arguments)
        result = StudyResult.of(_open(arguments, name), arguments.runs_dir)
        out = arguments.out or Path(f"{name}.csv")
        write_frame(result.frame(), out)
    stdout.print(f"{len(result.trials)} trials written to {out}", highlight=False, soft_wrap=True)
    return 0


def run_importance(words: Sequence[str]) -> int:
    """Show how much each choice matters for a study's first objective (PED-ANOVA)."""
    with bad_input():
        arguments = _parse(StudyArguments, words, "importance", run_importance.__doc__)
    from nasbench_at.console import show_frame
    from studies.results import StudyResult

    with bad_input(), _quietly():
        result = StudyResult.of(_open(arguments, _only_name(arguments)), arguments.runs_dir)
        importance = result.importance()
    show_frame(importance.rename_axis("parameter").rename("importance").reset_index())
    return 0


def run_dashboard(words: Sequence[str]) -> int:
    """Serve a study's trials as a page, by optuna-dashboard."""
    with bad_input():
        arguments = _parse(DashboardArguments, words, "dashboard", run_dashboard.__doc__)
    from nasbench_at.console import stdout

    with bad_input():
        try:
            from optuna_dashboard import run_server
        except ImportError:
            raise ValueError(
                "the dashboard needs optuna-dashboard: pip install 'nasbench-at[dashboard]'"
            ) from None
        name = _only_name(arguments)
        opened = _open(arguments, name)
    stdout.print(f"study {name}: http://{arguments.host}:{arguments.port}/", highlight=False)
    try:
        run_server(opened.storage, host=arguments.host, port=arguments.port)
    except OSError as error:
        with bad_input():
            raise ValueError(
                f"cannot listen at {arguments.host}:{arguments.port}: {error.strerror}"
            ) from None
    return 0
