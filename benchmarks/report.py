"""``nasbench-at report`` of 2,000 runs of 120 epochs each: seconds, memory, and the page.

Of the page it says the size, and where Chromium is installed the seconds until rows are laid out.
The runs are made up, but as large as real ones, as those of ``benchmarks/records.py``, with the
metrics of their epochs. Run it from the checkout.

python benchmarks/report.py
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.records import make_configs, measure, run_apart, write_runs
from nasbench_at.config import RunConfig
from nasbench_at.config.architecture import architecture_of


def make_metrics(config: RunConfig, generator: random.Random) -> Iterator[dict[str, Any]]:
    """Makes the lines of a run's epochs up, with attention weights if it is a DS-Net."""
    network = architecture_of(config.to_dict())
    modules = () if network is None else network.blocks
    names = ("train_accuracy", "validation_natural", "validation_robust")
    for epoch in range(1, 121):
        row: dict[str, Any] = {name: generator.random() for name in names}
        attention = [[1 / len(blocks)] * len(blocks) for blocks in modules] or None
        yield {"epoch": epoch, **row, "attention": attention}


def write_metrics(folder: Path, num_runs: int) -> None:
    """Writes the metrics of the runs that :func:`benchmarks.records.write_runs` writes."""
    generator = random.Random(0)
    for config in islice(make_configs(), num_runs):
        lines = (json.dumps(row) + "\n" for row in make_metrics(config, generator))
        (folder / config.run_id / "metrics.jsonl").write_text("".join(lines))


def open_page(path: Path) -> float | None:
    """Opens a page in a new Chromium and returns its seconds; None where there is none."""
    executable = shutil.which("chromium") or shutil.which("chromium-browser")
    if executable is None:
        return None
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        page = browser.new_page()
        start = time.perf_counter()
        page.goto(path.as_uri())
        page.wait_for_selector("#runs-table tbody tr")
        seconds = time.perf_counter() - start
        browser.close()
    return seconds


def main() -> None:
    """Times reports of a tenth of the runs and of all, and prints the best of some rounds each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        for num_runs in (max(1, arguments.runs // 10), arguments.runs):
            folder, out = Path(name) / str(num_runs), Path(name) / f"{num_runs}.html"
            run_apart(write_runs, folder, num_runs)
            write_metrics(folder, num_runs)
            words = ["report", str(folder), "--out", str(out)]
            rounds = [measure(words) for _ in range(arguments.rounds)]
            seconds, memory = (min(values) for values in zip(*rounds, strict=True))
            size = out.stat().st_size / 1e6
            print(
                f"{num_runs:5d} runs: {seconds:5.2f} s, {memory:4.0f} MB, page {size:.1f} MB",
                end="",
            )
            opened = [open_page(out) for _ in range(arguments.rounds)]
            known = [each for each in opened if each is not None]
            print(f", opens in {min(known):.2f} s" if known else "")


if __name__ == "__main__":
    main()
