"""The process that trials are forked from: it imports torch once and never touches a GPU.

No torch here: the server imports it while the worker that starts it does so too.
"""

from __future__ import annotations

import multiprocessing
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext

__all__ = ["start_forkserver", "trial_context"]

PRELOADED = [
    "studies.trial_process",
    "sklearn.datasets",
    "torch._dynamo",  # seconds, which each trial would take to build its first network
]


def trial_context() -> ForkServerContext:
    """Returns what trials' processes are made with."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


def start_forkserver() -> None:
    """Lets the server import what trials need, without waiting for it."""
    trial_context()
    forkserver.ensure_running()
