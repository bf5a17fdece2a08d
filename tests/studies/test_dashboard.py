from __future__ import annotations

import socket
import subprocess
import sys
import urllib.error
import urllib.request

import pytest

from studies.config import study_folder
from studies.queue import claim_trial
from studies.storage import storage_url
from studies.study import open_study
from studies.supervisor import create_study
from tests.browser import open_browser
from tests.studies.test_run_study import wait_for

pytestmark = pytest.mark.slow


def test_dashboard_shows_the_trials(tiny_study, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    create_study(tiny_study)
    url = storage_url(None, study_folder("runs", tiny_study.name))
    opened = open_study(tiny_study.name, url)
    for value in (0.25, 0.75):
        trial = claim_trial(opened, "w")
        for label in tiny_study.runs[0].labels:
            trial.suggest_categorical(label, [True, False] if label != "seed" else [0])
        opened.study.tell(trial, value)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "nasbench_at", "study", "dashboard", "--port", str(port)]
    )
    address = f"http://127.0.0.1:{port}/"

    def answers() -> bool:
        try:
            urllib.request.urlopen(address, timeout=5).close()
        except (urllib.error.URLError, OSError):
            return False
        return True

    try:
        wait_for(answers)
        with open_browser() as (page, _):
            page.goto(f"{address}dashboard/")
            page.get_by_text("block-space").first.click()
            page.wait_for_url("**/studies/1")
            page.goto(f"{address}dashboard/studies/1/trials")
            page.get_by_text("3 Trials").wait_for()
            assert page.get_by_text("Complete", exact=True).count() >= 2
            page.get_by_text("Trial 1", exact=True).click()
            page.get_by_text("0.75").first.wait_for()
    finally:
        server.terminate()
        server.wait(timeout=30)
