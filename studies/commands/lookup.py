"""Which studies there are and where they are kept; looking writes nothing."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from nasbench_at.config.allowed_values import Folder, Name, Positional, StorageUrl, hide_passwords
from nasbench_at.config.suggestions import suggest

__all__ = ["FoundStudy", "StudyArguments", "find_studies", "only_study", "warn_of_password"]

_ELSEWHERE = "--storage or the variable NASBENCH_AT_STORAGE names another database"


@dataclass(frozen=True)
class StudyArguments:
    """Arguments of the commands that look at a study.

    Attributes:
        name: The study, or its folder; may be left out where there is one.
        runs_dir: Where runs lie.
        storage: URL of its database; by default that of the variable NASBENCH_AT_STORAGE, or else
            SQLite in the study's folder.
    """

    name: Positional[Name | None] = None
    runs_dir: Annotated[Path, Folder()] = Path("runs")
    storage: StorageUrl | None = None


@dataclass(frozen=True)
class FoundStudy:
    """A study that can be opened.

    Attributes:
        name: The study.
        runs_dir: Where its runs lie.
        url: Where it is kept.
    """

    name: str
    runs_dir: Path
    url: str


def find_studies(arguments: StudyArguments) -> list[FoundStudy]:
    """Returns the study that was named, or all that there are.

    Raises:
        ValueError: If there is none.
    """
    warn_of_password(arguments.storage)
    if arguments.name is None:
        where, known = _known_studies(arguments)
        if not known:
            raise ValueError(f"there is no study in {where}; {_ELSEWHERE}")
        return [_find(name, arguments.runs_dir, arguments.storage) for name in known]
    path = Path(arguments.name)
    if arguments.name not in _local_studies(arguments.runs_dir) and (path / "study.yaml").exists():
        path = path.resolve()
        return [_find(path.name, path.parent.parent, arguments.storage)]
    return [_find(arguments.name, arguments.runs_dir, arguments.storage)]


def only_study(arguments: StudyArguments) -> FoundStudy:
    """Returns the study that was named, or the only one.

    Raises:
        ValueError: If there is none, or if no study was named and there are several.
    """
    found = find_studies(arguments)
    if len(found) == 1:
        return found[0]
    where, known = _known_studies(arguments)
    names = ", ".join(f"{name}{size}" for name, size in known.items())
    raise ValueError(f"there are several studies in {where}, name one: {names}")


def _known_studies(arguments: StudyArguments) -> tuple[str, Mapping[str, str]]:
    """Where studies are looked for, and their names, each with its size where that is known."""
    from studies.storage import chosen_storage
    from studies.study import list_stored

    url = chosen_storage(arguments.storage)
    if url is None:
        folder = arguments.runs_dir / "studies"
        return repr(str(folder)), dict.fromkeys(_local_studies(arguments.runs_dir), "")
    sizes = {name: f" ({count} trials)" for name, count in list_stored(url).items()}
    return f"storage {hide_passwords(url)!r}", sizes


def _local_studies(runs_dir: Path) -> list[str]:
    return sorted(file.parent.name for file in (runs_dir / "studies").glob("*/study.yaml"))


def _find(name: str, runs_dir: Path, given: str | None) -> FoundStudy:
    """A study in the storage that was chosen, or else among the runs.

    Raises:
        ValueError: If the study's folder would hold its database, and does not.
    """
    from studies.config import study_folder
    from studies.storage import SQLITE_FILE, folder_storage, storage_url

    folder = study_folder(runs_dir, name)
    url = storage_url(given, folder)
    if url != folder_storage(folder) or (folder / SQLITE_FILE).exists():
        return FoundStudy(name, runs_dir, url)
    local = _local_studies(runs_dir)
    if name in local:
        missing = str(folder / SQLITE_FILE)
        raise ValueError(f"study {name!r} is not kept in {missing!r}; {_ELSEWHERE}")
    raise ValueError(
        f"there is no study {name!r} in {str(folder.parent)!r}; {suggest(name, local)}; "
        f"{_ELSEWHERE}"
    )


def warn_of_password(given: str | None) -> None:
    """Warns of a storage's password on the command line, which everyone on the machine can read."""
    from studies.storage import STORAGE_VARIABLE, has_password

    if given is not None and has_password(given):
        warnings.warn(
            f"the password in --storage can be read in the list of processes; {STORAGE_VARIABLE} "
            "may hold the URL, or ~/.pgpass the password",
            stacklevel=2,
        )
