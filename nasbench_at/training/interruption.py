"""SIGTERM and SIGINT, answered between two steps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["InterruptedTraining", "StopRequest", "stop_on_signals"]


class InterruptedTraining(Exception):  # noqa: N818 - the run is fine and can be resumed
    """Training was asked to stop and has saved its state; the same call goes on from there."""


class StopRequest:
    """Whether a signal has asked to stop."""

    def __init__(self) -> None:
        self.signal_name: str | None = None

    def receive(self, number: int, frame: FrameType | None) -> None:
        """Handles a signal; a second one interrupts at once."""
        name = signal.Signals(number).name
        if self.signal_name is not None:
            raise KeyboardInterrupt(name)
        self.signal_name = name


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Collects SIGTERM and SIGINT for the length of the block, in the main thread only."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {
        number: signal.signal(number, request.receive) for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
