"""How far from the best network each sampler and pruner is, by what the search has cost."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from statistics import fmean

import numpy as np
import optuna
import pandas as pd
from numpy.typing import NDArray

from nasbench_at.records import mean_interval
from nasbench_at.records.evaluation import wilson_interval
from studies.replay.search import (
    PrunerFactory,
    SamplerFactory,
    TabularTraining,
    draw_runs,
    run_search,
)
from studies.replay.table import RecordedRun, TabularObjective

__all__ = ["EVERY_NETWORK", "SHARES", "regret_by_cost"]

SHARES = (0.05, 0.1, 0.25, 0.5)
"""Shares of the cost of training every network once, at which regret is tabulated."""
EVERY_NETWORK = "every network, once"
"""In the place of a sampler: no search, all networks are trained with one seed each."""
_CHUNK = 10
_Job = tuple[SamplerFactory, PrunerFactory, range]


def regret_by_cost(
    objective: TabularObjective,
    samplers: Mapping[str, SamplerFactory],
    pruners: Mapping[str, PrunerFactory],
    *,
    shares: Sequence[float] = SHARES,
    repetitions: int = 50,
    workers: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """Replays searches, and says what each has found when it has spent so much.

    A search is told validation accuracies of one seed of each network, and chooses the network with
    the highest. The choice is judged by the mean test accuracy over all seeds of the network.
    Optuna's warnings of its experimental parts are not shown.

    Args:
        objective: The table, of a Benchmark with learning curves.
        samplers: Makes each sampler from a seed.
        pruners: Makes each pruner for a number of epochs.
        shares: Of the cost of training every network once, in (0, 1]; ascending.
        repetitions: Searches of each sampler with each pruner, at least 2; they differ in the
            sampler's seed and in which runs stand for the networks.
        workers: Processes; as many as there are cores by default.
        on_progress: Called with the number of searches done and that of all.

    Returns:
        A row a sampler, pruner and share: ``sampler``, ``pruner``, ``share``, ``regret`` (the mean
        over repetitions of the table's best accuracy minus that of the chosen network, in [0, 1]),
        ``low`` and ``high`` (the 95 % interval of that mean by Student's t distribution), ``best``
        (the share of searches that chose the best network) with its 95 % Wilson interval
        ``best_low`` and ``best_high``, ``near`` (the share that chose one within the 95 % interval
        of the best one's mean), ``near_low``, ``near_high``, and ``repetitions``. Before a search
        has finished a training, its regret is that of the table's worst network. The last row, of
        :data:`EVERY_NETWORK` at share 1, is the regret that one seed of each network leaves.

    Raises:
        ValueError: If there is no sampler or pruner, fewer than two repetitions, a share out of
            range, a sampler that was made already, or the table lacks what is replayed.
    """
    _check(samplers, pruners, shares, repetitions)
    is_near = objective.near_best()
    runs = objective.recorded_runs()
    pairs = list(itertools.product(samplers, pruners))
    jobs = [
        (samplers[sampler], pruners[pruner], seeds)
        for sampler, pruner in pairs
        for seeds in _chunks(repetitions)
    ]
    found: list[NDArray[np.int64]] = []
    for chosen in _run_jobs(objective, runs, jobs, shares, workers or _num_cores()):
        found.extend(chosen)
        if on_progress is not None:
            on_progress(len(found), len(pairs) * repetitions)
    rows = [
        row
        for number, (sampler, pruner) in enumerate(pairs)
        for row in _rows(
            objective,
            is_near,
            np.stack(found[number * repetitions : (number + 1) * repetitions]),
            {"sampler": sampler, "pruner": pruner},
            shares,
        )
    ]
    everything = np.stack([_choose_from_all(runs, seed) for seed in range(repetitions)])
    names = {"sampler": EVERY_NETWORK, "pruner": "none"}
    rows.extend(_rows(objective, is_near, everything, names, (1.0,)))
    return pd.DataFrame(rows)


def _choose_from_all(runs: Sequence[Sequence[RecordedRun]], seed: int) -> NDArray[np.int64]:
    """Returns the combination that is told best when all are trained, (1,)."""
    drawn = draw_runs(runs, seed)
    return np.array([max(range(len(drawn)), key=lambda number: drawn[number].told)])


def _check(
    samplers: Mapping[str, SamplerFactory],
    pruners: Mapping[str, PrunerFactory],
    shares: Sequence[float],
    repetitions: int,
) -> None:
    if not samplers or not pruners:
        raise ValueError(
            f"there must be a sampler and a pruner, got {len(samplers)} samplers and "
            f"{len(pruners)} pruners"
        )
    if repetitions < 2:
        raise ValueError(f"an interval needs at least 2 repetitions, got {repetitions}")
    if not shares or sorted(shares) != list(shares) or not 0 < shares[0] <= shares[-1] <= 1:
        raise ValueError(f"shares must be in (0, 1], ascending, got {tuple(shares)}")
    for sampler in samplers.values():
        if isinstance(sampler, optuna.samplers.BaseSampler):
            name = type(sampler).__name__
            raise ValueError(
                f"a sampler must be made from a seed: give the class {name}, or a function of "
                "seed, got an object of it"
            )


def _chunks(repetitions: int) -> list[range]:
    return [
        range(start, min(start + _CHUNK, repetitions)) for start in range(0, repetitions, _CHUNK)
    ]


def _num_cores() -> int:
    return len(os.sched_getaffinity(0))


def _run_jobs(
    objective: TabularObjective,
    runs: Sequence[Sequence[RecordedRun]],
    jobs: Sequence[_Job],
    shares: Sequence[float],
    workers: int,
) -> Iterator[list[NDArray[np.int64]]]:
    """Yields the choices of each job's searches, in the jobs' order."""
    if workers == 1:
        for job in jobs:
            yield _search_all(objective, runs, shares, job)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_use_one_thread) as pool:
        futures = [pool.submit(_search_all, objective, runs, shares, job) for job in jobs]
        try:
            for future in futures:
                yield future.result()
        finally:
            for future in futures:
                future.cancel()


def _use_one_thread() -> None:
    os.environ["OMP_NUM_THREADS"] = "1"  # read when the Gaussian process imports torch


def _search_all(
    objective: TabularObjective,
    runs: Sequence[Sequence[RecordedRun]],
    shares: Sequence[float],
    job: _Job,
) -> list[NDArray[np.int64]]:
    """Returns what each search had chosen at each share of the cost, (num_shares,)."""
    make_sampler, make_pruner, seeds = job
    full = sum(fmean(run.seconds for run in known) for known in runs)
    num_epochs = max(len(run.validation) for known in runs for run in known)
    points = full * np.array(shares)
    chosen = []
    with warnings.catch_warnings(action="ignore", category=optuna.exceptions.ExperimentalWarning):
        for seed in seeds:
            training = TabularTraining(objective, runs, seed)
            path = run_search(
                training, make_sampler(seed=seed), make_pruner(num_epochs), points[-1]
            )
            chosen.append(path.at(points))
    return chosen


def _rows(
    objective: TabularObjective,
    is_near: Sequence[bool],
    chosen: NDArray[np.int64],
    names: Mapping[str, str],
    shares: Sequence[float],
) -> Iterator[dict[str, object]]:
    """Yields a row a share from choices, (repetitions, num_shares)."""
    # The last entry stands for no choice, -1.
    accuracies = np.array([*objective.accuracies, objective.worst])
    near = np.array([*is_near, False])
    regrets = objective.best - accuracies[chosen]
    low, high = mean_interval(regrets)
    count = len(chosen)
    for column, share in enumerate(shares):
        hits = int((regrets[chosen[:, column] >= 0, column] == 0).sum())
        nears = int(near[chosen[:, column]].sum())
        best_low, best_high = wilson_interval(hits, count)
        near_low, near_high = wilson_interval(nears, count)
        yield {
            **names,
            "share": share,
            "regret": float(regrets[:, column].mean()),
            "low": float(low[column]),
            "high": float(high[column]),
            "best": hits / count,
            "best_low": best_low,
            "best_high": best_high,
            "near": nears / count,
            "near_low": near_low,
            "near_high": near_high,
            "repetitions": count,
        }
