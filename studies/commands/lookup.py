"""Which studies there are and where they are kept; looking writes nothing."""

from __future__ import annotations

import warnings
from pathlib import Path

from nasbench_at.config.suggestions import suggest

__all__ = ["existing_storage", "list_studies", "warn_of_password"]


def list_studies(runs_dir: Path) -> list[str]:
    """Returns the names of the studies among runs."""
    return sorted(file.parent.name for file in (runs_dir / "studies").glob("*/study.yaml"))


def existing_storage(name: str, runs_dir: Path, given: str | None) -> str:
    """Returns where a study is kept that is to be looked at or worked on.

    Args:
        name: The study.
        runs_dir: Where runs lie.
        given: The URL on the command line, if there is one.

    Raises:
        ValueError: If there is no such study among the runs, whose folder would hold its database.
    """
    from studies.config import study_folder
    from studies.storage import SQLITE_FILE, folder_storage, storage_url

    warn_of_password(given)
    folder = study_folder(runs_dir, name)
    url = storage_url(given, folder)
    if url == folder_storage(folder) and not (folder / SQLITE_FILE).exists():
        raise ValueError(
            f"there is no study {name!r} in {str(folder.parent)!r}; "
            f"{suggest(name, list_studies(runs_dir))}"
        )
    return url


def warn_of_password(given: str | None) -> None:
    """Warns of a storage's password on the command line, which everyone on the machine can read."""
    from studies.storage import STORAGE_VARIABLE, has_password

    if given is not None and has_password(given):
        warnings.warn(
            f"the password in --storage can be read in the list of processes; {STORAGE_VARIABLE} "
            "may hold the URL, or ~/.pgpass the password",
            stacklevel=2,
        )
