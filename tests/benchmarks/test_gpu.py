"""The GPU's benchmark and report, tried on the CPU."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import gpu_check

ROOT = Path(__file__).parents[2]


def run(*words):
    return subprocess.run(
        [sys.executable, "-m", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_every_variant_gets_a_row(tmp_path):
    out = tmp_path / "table.md"
    words = ("--device", "cpu", "--batch-size", "2", "--network", "tiny", "--seconds", "60")
    done = run("benchmarks.gpu", *words, "--parts", "at", "pgd", "--out", str(out))
    assert done.returncode == 0, done.stderr
    rows = [line for line in out.read_text().splitlines() if line.startswith(("| at", "| PGD"))]
    names = [row.split("|")[2].strip() for row in rows]
    both = ["plain, fp16 (the authors')", "plain, fp32", "ours, fp32", "ours, bf16"]
    assert names == [*both, "ours, bf16, no CUDA graph", *both]
    assert all(float(row.split("|")[5]) > 0 for row in rows)
    assert out.read_text() == done.stdout


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_one_line_says_so():
    done = run("benchmarks.gpu")
    assert done.returncode == 2
    assert done.stdout == "this machine has no GPU that torch can use: nothing is timed\n"


def test_report_counts_tests_by_part_and_names_what_did_not_pass(tmp_path):
    report = tmp_path / "tests.xml"
    report.write_text(
        """<testsuites><testsuite>
        <testcase classname="a" name="one"/>
        <testcase classname="a" name="two"><failure message="E  x"/></testcase>
        <testcase classname="b" name="three"><skipped message="optuna is not installed"/></testcase>
        </testsuite></testsuites>"""
    )
    text = gpu_check.describe_tests(report)
    assert "| a | 1 | 1 | 0 |" in text
    assert "| b | 0 | 0 | 1 |" in text
    assert "| all | 1 | 1 | 1 |" in text
    assert "- failed: `a::two`: E x" in text
    assert "- skipped: `b::three`: optuna is not installed" in text
    assert "did not end" in gpu_check.describe_tests(tmp_path / "missing.xml")


def test_command_that_takes_too_long_is_interrupted():
    assert gpu_check.run(["-c", "import time; time.sleep(60)"], 0.2) != 0
