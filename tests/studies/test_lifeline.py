from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from studies.lifeline import LIFELINE_VARIABLE, end_with_supervisor

WORKER = """
import os, signal, sys, time
from studies.lifeline import LIFELINE_VARIABLE, end_with_supervisor
signal.signal(signal.SIGTERM, lambda *_: sys.exit("saved"))
end_with_supervisor()
assert LIFELINE_VARIABLE not in os.environ
print("ready", flush=True)
time.sleep(60)
"""
SUPERVISOR = """
import os, subprocess, sys, time
from studies.lifeline import LIFELINE_VARIABLE, lifeline
with lifeline() as pipe:
    for _ in range(2):
        subprocess.Popen(
            [sys.executable, "-c", sys.argv[1]],
            env={**os.environ, LIFELINE_VARIABLE: str(pipe)},
            pass_fds=(pipe,),
            start_new_session=True,
        )
    time.sleep(60)
"""


def test_workers_are_told_that_their_supervisor_was_killed(tmp_path):
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR, WORKER],
        cwd=root,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as supervisor:
        assert supervisor.stdout is not None
        assert [supervisor.stdout.readline() for _ in range(2)] == ["ready\n"] * 2
        os.kill(supervisor.pid, signal.SIGKILL)
        # The pipes end when the last worker has ended.
        _, errors = supervisor.communicate(timeout=30)
    assert errors.replace("\n", "") == "saved" * 2  # they may write at once


def test_worker_of_its_own_has_no_supervisor(monkeypatch):
    monkeypatch.delenv(LIFELINE_VARIABLE, raising=False)
    end_with_supervisor()
