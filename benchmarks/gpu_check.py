"""What is run the day there is a GPU: the tests marked gpu, then the benchmark, in 8 minutes.

python -m benchmarks.gpu_check --out gpu.md

Nothing but torch and pytest has to be installed beyond what the packages import; what needs more is
skipped by name. Without a GPU the tests on the meta device run instead.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections import Counter, defaultdict
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
KINDS = ("passed", "failed", "skipped")


def run(words: Sequence[str], seconds: float) -> int:
    """Runs a command from the checkout's root, interrupted after so many seconds; its status."""
    known = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(known), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, *words], cwd=ROOT, env=environment)
    for patience, number in ((seconds, signal.SIGINT), (15, signal.SIGKILL)):
        try:
            return process.wait(timeout=patience)
        except subprocess.TimeoutExpired:
            process.send_signal(number)
    return process.wait()


def test_words(report: Path, device: str) -> list[str]:
    """Returns the command that runs the tests for a GPU."""
    parallel = ["-n", "6"] if device == "cuda" and find_spec("xdist") else []
    # pytest-benchmark, where it is there, warns of working beside pytest-xdist.
    return [
        "-m",
        "pytest",
        "-m",
        "gpu",
        "-p",
        "no:benchmark",
        "-q",
        "-rfEs",
        f"--junitxml={report}",
        *parallel,
    ]


def describe_tests(report: Path) -> str:
    """Returns a table of the tests by file, and the names and reasons of what did not pass."""
    if not report.exists():
        return "The tests did not end in time.\n"
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    others = []
    for case in ET.parse(report).iter("testcase"):
        part = case.get("classname") or case.get("name") or "?"
        kind, reason = _outcome(case)
        counts[part][kind] += 1
        if kind != "passed":
            others.append(f"- {kind}: `{part}::{case.get('name')}`: {reason}")
    rows = [
        f"| {part} | {' | '.join(str(found[kind]) for kind in KINDS)} |"
        for part, found in sorted(counts.items())
    ]
    total = sum(counts.values(), Counter())
    rows.append(f"| all | {' | '.join(str(total[kind]) for kind in KINDS)} |")
    head = [f"| part | {' | '.join(KINDS)} |", "|---|---|---|---|"]
    return "\n".join([*head, *rows, "", *sorted(others)]) + "\n"


def _outcome(case: ET.Element) -> tuple[str, str]:
    for tag, kind in (("failure", "failed"), ("error", "failed"), ("skipped", "skipped")):
        found = case.find(tag)
        if found is not None:
            message = " ".join((found.get("message") or found.text or "").split())
            return kind, message[:300]
    return "passed", ""


def main() -> int:
    """Runs both, writes the report, and returns 0 if no test failed and the benchmark ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("gpu.md"))
    parser.add_argument("--seconds", type=float, default=460.0, help="for everything")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("this machine has no GPU that torch can use: the meta device's tests run instead")
        sys.stdout.flush()
        return run(["-m", "pytest", "-q", "tests/gpu"], arguments.seconds)
    start = time.monotonic()
    card = torch.cuda.get_device_name()
    with tempfile.TemporaryDirectory() as folder:
        report, table = Path(folder, "tests.xml"), Path(folder, "benchmark.md")
        failed = run(test_words(report, "cuda"), 0.5 * arguments.seconds)
        tested = time.monotonic()
        text = (
            f"# On {card}, torch {torch.__version__}, Python {sys.version.split()[0]}\n\n"
            f"## Tests, {tested - start:.0f} s\n\n{describe_tests(report)}\n## Benchmark"
        )
        arguments.out.write_text(text)
        left = arguments.seconds - (tested - start) - 15
        benchmark = run(
            ["-m", "benchmarks.gpu", "--seconds", str(0.7 * left), "--out", str(table)], left
        )
        text += f", {time.monotonic() - tested:.0f} s\n\n"
        text += table.read_text() if table.exists() else f"It ended with {benchmark}.\n"
    arguments.out.write_text(text)
    print(text, end="")
    return 1 if failed or benchmark else 0


if __name__ == "__main__":
    sys.exit(main())
