"""What a study adds to its runs, and what a second worker brings, on a fixed grid.

First: the same tiny runs trained and evaluated one after the other in this process, and as trials
of a study. The difference, spread over the trials, is what storage, records and processes cost.
Then: a grid of runs by one worker and by two, each with one thread. Run it from the checkout.

python benchmarks/study_overhead.py
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before torch reads it: what a worker of two has
sys.path.insert(0, str(Path(__file__).parents[1]))

from nasbench_at import RunConfig, evaluate_run, train
from studies import StudyConfig, recipes, run_study


def make_study(num_runs: int, epochs: int) -> StudyConfig:
    """A grid of equal runs of a tiny network on digits."""
    base = RunConfig(
        data="digits",
        blocks=("residual", "mbconv"),
        num_modules=3,
        init_channels=8,
        widen_factor=1,
        epochs=epochs,
    )
    study = recipes.weight_decay(base, seeds=tuple(range(num_runs)), values=(5e-4,))
    return replace(study, attacks=("pgd",))


def run_plainly(study: StudyConfig, runs: Path) -> None:
    """Trains and evaluates the runs without a study."""
    for planned in study.runs:
        record = train(planned.config, runs_dir=runs, device="cpu")
        evaluate_run(runs / record.run_id, ("pgd",), device="cpu")


def time_fresh(work: Callable[[Path], object]) -> float:
    """Seconds of something that fills an empty folder."""
    runs = Path(tempfile.mkdtemp())
    try:
        begun = time.perf_counter()
        work(runs)
        return time.perf_counter() - begun
    finally:
        shutil.rmtree(runs)


def main() -> None:
    """Prints seconds a trial of overhead, and the ratio of one worker's time to two workers'."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=6)
    parser.add_argument("--epochs", type=int, default=1)
    arguments = parser.parse_args()
    study = make_study(arguments.runs, arguments.epochs)
    run_plainly(make_study(1, 1), Path(tempfile.mkdtemp()))  # imports, first calls
    plain = time_fresh(lambda runs: run_plainly(study, runs))
    one = time_fresh(lambda runs: run_study(study, runs_dir=runs, device="cpu"))
    two = time_fresh(lambda runs: run_study(study, workers=2, runs_dir=runs, device="cpu"))
    start = time_fresh(
        lambda runs: run_study(make_study(1, 1), runs_dir=runs, device="cpu")
    ) - time_fresh(lambda runs: run_plainly(make_study(1, 1), runs))
    num_runs = arguments.runs
    overhead = (one - plain - start) / num_runs
    print(
        f"{num_runs} runs of {plain / num_runs:.1f} s: plainly {plain:.1f} s, "
        f"one worker {one:.1f} s"
    )
    print(f"starting a study and its worker: {start:.1f} s")
    print(f"overhead: {overhead:.2f} s a trial, {overhead * num_runs / plain:.1%} of these runs")
    print(f"two workers: {two:.1f} s; one worker takes {one / two:.2f} times as long")


if __name__ == "__main__":
    main()
