"""How workers notice that their supervisor is gone: the pipe whose other end it held closes.

No torch and no Optuna here: a worker listens before it imports them.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["LIFELINE_VARIABLE", "end_with_supervisor", "lifeline"]

LIFELINE_VARIABLE = "NASBENCH_AT_LIFELINE"
"""Environment variable with the number of the pipe's end that a worker was given."""


@contextmanager
def lifeline() -> Iterator[int]:
    """Yields the end of a pipe that is to be given to workers; the other end closes with us.

    Whatever ends this process, SIGKILL too, closes it.
    """
    given, held = os.pipe()  # neither is inherited by itself
    try:
        yield given
    finally:
        os.close(held)
        os.close(given)


def end_with_supervisor() -> None:
    """Sends this process SIGTERM when its supervisor is gone; does nothing where it has none."""
    given = os.environ.pop(LIFELINE_VARIABLE, None)
    if given is None:
        return
    descriptor = int(given)

    def watch() -> None:
        os.read(descriptor, 1)  # nothing is ever written: this returns when the pipe closes
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
