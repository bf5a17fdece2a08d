"""The ``nasbench-at`` command.

Commands are entry points of the group ``nasbench_at.commands``: a name, and a function that takes
the words behind it and returns the exit code; its docstring's line is its help. Each imports what
it needs when it runs, so that ``nasbench-at --help`` answers at once.
Exit codes: 0 done, 2 bad input, 75 interrupted but resumable, 1 anything else; what nobody foresaw
leaves its traceback in a log file, and one line that names it.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points, version
from typing import NoReturn

from nasbench_at.commands.input_errors import BadInputError, describe_fault
from nasbench_at.config.suggestions import suggest
from nasbench_at.records.run_folders import FolderInUseError
from nasbench_at.training.interruption import InterruptedTraining

__all__ = ["COMMAND_GROUP", "find_commands", "main", "run"]

COMMAND_GROUP = "nasbench_at.commands"

EXIT_FAILED = 1
EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 75  # EX_TEMPFAIL: schedulers requeue on it

Command = Callable[[Sequence[str]], int]


def find_commands() -> Mapping[str, EntryPoint]:
    """Returns the commands of all installed packages by name, in alphabetical order."""
    found = entry_points(group=COMMAND_GROUP)
    return {name: found[name] for name in sorted(found.names)}


def run() -> NoReturn:
    """Runs the command line as this whole process, which ends with its exit code."""
    code = main()
    if os.environ.get("WORLD_SIZE", "1") != "1":
        # Threads of torch's process group outlive it. One that still needs the interpreter while
        # that is taken down aborts the process, whose work was all done and written.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


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
    except KeyboardInterrupt as stopped:  # whose word is the signal, if it was not Python's own
        name = str(stopped) or "SIGINT"
        code = _complain(f"{name}: interrupted; the same command goes on", EXIT_INTERRUPTED)
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
    commands = find_commands()
    if name not in commands:
        raise BadInputError(f"unknown command {name!r}; {suggest(name, commands)}")
    return _load(commands[name])(rest)


def _load(entry: EntryPoint) -> Command:
    command: Command = entry.load()
    return command


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
    commands = find_commands()
    lines = [f"  {name:<13} {_load(entry).__doc__}" for name, entry in commands.items()]
    return (
        "usage: nasbench-at COMMAND [flags]   (nasbench-at COMMAND --help for each)\n\n"
        "Diverse-structured networks for adversarial robustness, from any set of blocks.\n\n"
        + "\n".join(lines)
        + "\n"
    )
