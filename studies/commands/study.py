"""``nasbench-at study``: run studies, look at them, mend them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence

from nasbench_at.commands.input_errors import BadInputError
from nasbench_at.config.suggestions import suggest
from studies.commands.proxies import run_proxies
from studies.commands.replay import run_replay
from studies.commands.results import (
    run_dashboard,
    run_export,
    run_importance,
    run_repair,
    run_status,
)
from studies.commands.run import run_study_run, run_study_worker

__all__ = ["run_study_command"]

SUBCOMMANDS: Mapping[str, Callable[[Sequence[str]], int]] = {
    "run": run_study_run,
    "worker": run_study_worker,
    "status": run_status,
    "repair": run_repair,
    "export": run_export,
    "importance": run_importance,
    "dashboard": run_dashboard,
    "replay": run_replay,
    "proxies": run_proxies,
}


def run_study_command(words: Sequence[str]) -> int:
    """Run studies over block sets, initialisations, pruning; status, export, dashboard."""
    if not words or words[0] in ("-h", "--help"):
        sys.stdout.write(_usage())
        return 0 if words else 2
    name, *rest = words
    if name not in SUBCOMMANDS:
        raise BadInputError(f"unknown study command {name!r}; {suggest(name, SUBCOMMANDS)}")
    return SUBCOMMANDS[name](rest)


def _usage() -> str:
    lines = [f"  {name:<11} {command.__doc__}" for name, command in SUBCOMMANDS.items()]
    return "usage: nasbench-at study COMMAND [flags]\n\n" + "\n".join(lines) + "\n"
