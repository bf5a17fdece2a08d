"""Studies: questions about block spaces as Optuna studies whose trials are ordinary runs."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from studies import recipes
    from studies.config import PlannedRun, StudyConfig
    from studies.results import StudyResult, StudyStatus
    from studies.space import SearchSpace
    from studies.supervisor import StudyInterruptedError, run_study

# Imported on first use: a recipe's name and a study's folder need neither torch nor Optuna.
_HOMES = {
    "PlannedRun": "config",
    "SearchSpace": "space",
    "StudyConfig": "config",
    "StudyInterruptedError": "supervisor",
    "StudyResult": "results",
    "StudyStatus": "results",
    "recipes": None,
    "run_study": "supervisor",
}

__all__ = [
    "PlannedRun",
    "SearchSpace",
    "StudyConfig",
    "StudyInterruptedError",
    "StudyResult",
    "StudyStatus",
    "recipes",
    "run_study",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = _HOMES[name]
    if home is None:
        return import_module(f"{__name__}.{name}")
    return getattr(import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
