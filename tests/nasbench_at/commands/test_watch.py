"""``nasbench-at watch``: lines in a pipe, a table on a terminal, runs that end meanwhile."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nasbench_at.cli import main
from nasbench_at.commands import watch
from tests.nasbench_at.records.test_run_progress import START, begin, make_run, row, write

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def _somewhere_else(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(time, "time", lambda: START + 23)


@pytest.fixture
def meanwhile(monkeypatch):
    """What happens between looks, in turn; after that nothing may be left to wait for."""
    steps = []
    slept = []

    def sleep(seconds):
        slept.append(seconds)
        steps.pop(0)()

    monkeypatch.setattr(watch.time, "sleep", sleep)
    steps.slept = slept if False else None
    return steps


def refused(words, capsys):
    assert main(["watch", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    return err
