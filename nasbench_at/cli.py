"""The ``nasbench-at`` command.

Every command imports what it needs when it runs, so that ``nasbench-at --help`` answers at once.
Exit codes: 0 done, 2 bad input, 75 interrupted but resumable, 1 anything else; what nobody foresaw
leaves its traceback in a log file, and one line that names it.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version

from nasbench_at.commands.blocks import run_blocks
from nasbench_at.commands.compare import run_compare
from nasbench_at.commands.evaluate import run_evaluate
from nasbench_at.commands.figure import run_figure
from nasbench_at.commands.graph import run_graph
from nasbench_at.commands.input_errors import BadInputError, describe_fault
from nasbench_at.commands.models import run_models
from nasbench_at.commands.query import run_query
from nasbench_at.commands.report import run_report
from nasbench_at.commands.study import run_study_command
from nasbench_at.commands.table import run_table
from nasbench_at.commands.theory import run_theory
from nasbench_at.commands.train import run_train
from nasbench_at.runs import FolderInUseError
from nasbench_at.suggestions import suggest
from nasbench_at.training.interruption import InterruptedTraining

__all__ = ["main"]

EXIT_FAILED = 1
EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 75  # EX_TEMPFAIL: schedulers requeue on it

Command = Callable[[Sequence[str]], int]

COMMANDS: dict[str, Command] = {
    "blocks": run_blocks,
    "graph": run_graph,
    "train": run_train,
    "evaluate": run_evaluate,
    "compare": run_compare,
    "models": run_models,
    "study": run_study_command,
    "figure": run_figure,
    "table": run_table,
    "theory": run_theory,
    "report": run_report,
    "query": run_query,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        code = _dispatch(words)
        sys.stdout.flush()
    except (BadInputError, FolderInUseError) as error:
        code = _complain(error, EXIT_BAD_INPUT)
    except SystemExit as stop:  # from the flags' parser: 0 after --help, else 2
        code = stop.code if isinstance(stop.code, int) else EXIT_BAD_INPUT
    except BrokenPipeError:  # the reader of a pipe, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except InterruptedTraining as stopped:
        code = _complain(f"{stopped}; the same command goes on", EXIT_INTERRUPTED)
    except KeyboardInterrupt:
        code = _complain("interrupted; the same command goes on", EXIT_INTERRUPTED)
    except Exception as error:  # noqa: BLE001 - the traceback is kept
        code = _complain(_describe_failure(error), EXIT_FAILED)
    return code


def _dispatch(words: Sequence[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        sys.stdout.write(_usage())
        return 0 if words else EXIT_BAD_INPUT
    if words[0] == "--version":
        sys.stdout.write(f"nasbench-at {version('nasbench-at')}\n")
        return 0
    name, *rest = words
    if name not in COMMANDS:
        raise BadInputError(f"unknown command {name!r}; {suggest(name, COMMANDS)}")
    return COMMANDS[name](rest)


def _describe_failure(error: Exception) -> str:
    """A line about what went wrong after the checks, with a log unless it says all there is."""
    is_full = isinstance(error, OSError) and error.errno == errno.ENOSPC
    if isinstance(error, FloatingPointError) or (isinstance(error, OSError) and error.filename):
        return str(error)  # training diverged, or a file is named that cannot be used
    return f"{error}: standard output" if is_full else describe_fault(error)


def _complain(message: object, code: int) -> int:
    sys.stderr.write(f"nasbench-at: {message}\n")
    return code


def _usage() -> str:
    lines = [f"  {name:<13} {command.__doc__}" for name, command in COMMANDS.items()]
    return (
        "usage: nasbench-at COMMAND [flags]   (nasbench-at COMMAND --help for each)\n\n"
        "Diverse-structured networks for adversarial robustness, from any set of blocks.\n\n"
        + "\n".join(lines)
        + "\n"
    )
