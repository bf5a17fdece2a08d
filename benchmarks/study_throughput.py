"""Runs an hour of a study: by an earlier revision and by this one, by one worker and by two.

The study trains the 15 subsets of the paper's blocks on digits. Its times are taken in turn, each
in a process of its own with one thread a worker, so that the start of the study and of its workers
counts. What a trial costs beside its run is measured with tiny runs: trained and evaluated one
after the other in one process, and as trials. Run it from the checkout.

python benchmarks/study_throughput.py --base HEAD~20
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before torch reads it: what a worker of two has
sys.path.insert(0, str(Path(__file__).parents[1]))

from nasbench_at import RunConfig, evaluate_run, train
from studies import StudyConfig, recipes, run_study

ROOT = Path(__file__).parents[1]
NUM_SETS = 15


def main() -> None:
    """Prints runs an hour and their ratios, and seconds a trial of overhead."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", help="a revision to compare with")
    parser.add_argument("--rounds", type=int, default=1, help="times that each study is run")
    parser.add_argument("--epochs", type=int, default=3, help="epochs of a run")
    parser.add_argument("--seeds", type=int, default=1, help="seeds of each of the 15 block sets")
    parser.add_argument(
        "--tiny-runs", type=int, default=6, help="runs that overhead is spread over"
    )
    arguments = parser.parse_args()
    with checkout(arguments.base) as base:
        kinds = {"one worker": (ROOT, 1), "two workers": (ROOT, 2)}
        if base is not None:
            kinds = {f"one worker of {arguments.base}": (base, 1), **kinds}
        seconds: dict[str, list[float]] = {name: [] for name in kinds}
        for _ in range(arguments.rounds):
            for name, (tree, workers) in kinds.items():
                study = f"{name}: {NUM_SETS * arguments.seeds} runs of {arguments.epochs} epochs"
                seconds[name].append(time_study(tree, workers, arguments.epochs, arguments.seeds))
                print(f"{study} in {seconds[name][-1]:.1f} s", flush=True)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    for name, value in medians.items():
        print(f"{name}: {3600 * NUM_SETS * arguments.seeds / value:.0f} runs an hour")
    *before, one, two = medians.values()
    if before:
        print(f"this revision makes {before[0] / one:.2f} times as many as {arguments.base}")
    print(f"two workers make {one / two:.2f} times as many as one")
    print_overhead(arguments.tiny_runs)


@contextmanager
def checkout(revision: str | None) -> Iterator[Path | None]:
    """Yields a folder with an earlier revision of the project; None without one."""
    if revision is None:
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "base"
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", tree, revision], check=True)
        try:
            yield tree
        finally:
            subprocess.run([*git, "remove", "--force", tree], check=True)


def time_study(tree: Path, workers: int, epochs: int, num_seeds: int) -> float:
    """Seconds of a study of block sets, by the code in a folder."""
    words = ["study", "run", "block-space", "--data", "digits", "--device", "cpu"]
    words += ["--epochs", str(epochs), "--workers", str(workers)]
    words += ["--seeds", *map(str, range(num_seeds))]
    with tempfile.TemporaryDirectory() as runs:
        begun = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "nasbench_at", *words, "--runs-dir", runs],
            cwd=tree,
            env=os.environ | {"PYTHONPATH": str(tree)},
            stdout=subprocess.DEVNULL,
            check=True,
        )
        return time.perf_counter() - begun


def print_overhead(num_runs: int) -> None:
    """Prints what a trial costs beside training and evaluation, and what a study's start costs."""
    study, single = make_tiny_study(num_runs), make_tiny_study(1)
    run_plainly(single, Path(tempfile.mkdtemp()))  # imports, first calls
    plain = time_fresh(lambda runs: run_plainly(study, runs))
    whole = time_fresh(lambda runs: run_study(study, runs_dir=runs, device="cpu"))
    start = time_fresh(lambda runs: run_study(single, runs_dir=runs, device="cpu")) - time_fresh(
        lambda runs: run_plainly(single, runs)
    )
    overhead = (whole - plain - start) / (num_runs - 1)
    print(f"overhead: {overhead:.2f} s a trial beside {plain / num_runs:.2f} s of a run")
    print(f"a study, its worker and its first trial begin in {start:.1f} s")


def make_tiny_study(num_runs: int) -> StudyConfig:
    """Equal runs of a tiny network on digits."""
    base = RunConfig(
        data="digits",
        blocks=("residual", "mbconv"),
        num_modules=3,
        init_channels=8,
        widen_factor=1,
        epochs=1,
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
    with tempfile.TemporaryDirectory() as runs:
        begun = time.perf_counter()
        work(Path(runs))
        return time.perf_counter() - begun


if __name__ == "__main__":
    main()
