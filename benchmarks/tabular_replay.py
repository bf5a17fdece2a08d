"""Trials replayed on recorded runs: a table looked up against the records queried in every trial.

Both sides are one study with Optuna's random sampler, in memory; a third looks nothing up, which
is what Optuna itself takes. Run it from the checkout.

python benchmarks/tabular_replay.py
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import optuna

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.timing import time_in_turn
from nasbench_at.config import RunConfig, resolve
from nasbench_at.records import AttackResult, Benchmark, Evaluation, Record
from studies.replay import TabularObjective

BLOCKS = ("residual", "mbconv", "dense", "ada_rk")
METHODS = ("at", "trades", "mart", "fat")
WIDTHS = (8, 12, 16, 20)


def attack_result(accuracy: float) -> AttackResult:
    """Returns a result of PGD on 10,000 images."""
    num_correct = round(10_000 * accuracy)
    return AttackResult("pgd", 10_000, num_correct, norm="Linf", eps=8 / 255, data="cifar10/test")


def make_records(num_seeds: int) -> Benchmark:
    """Returns runs of all block sets, methods and widths, with accuracies drawn at random."""
    generator = np.random.default_rng(0)
    sets = [s for n in range(1, len(BLOCKS) + 1) for s in itertools.combinations(BLOCKS, n)]
    configs = [
        resolve(RunConfig(blocks=blocks, method=method, init_channels=width, seed=seed))
        for blocks, method, width, seed in itertools.product(
            sets, METHODS, WIDTHS, range(num_seeds)
        )
    ]
    return Benchmark(
        [
            Record(
                run_id=config.run_id,
                config=config.to_dict(),
                architecture="",
                num_params=0,
                provenance={},
                evaluations=(Evaluation((attack_result(generator.random()),)),),
            )
            for config in configs
        ]
    )


def suggest(trial: optuna.trial.Trial) -> tuple[tuple[str, ...], str, int]:
    """Returns blocks, method and width."""
    blocks = [name for name in BLOCKS if trial.suggest_categorical(f"blocks.{name}", (False, True))]
    method = trial.suggest_categorical("method", METHODS)
    return tuple(blocks), method, trial.suggest_categorical("init_channels", WIDTHS)


def query_every_time(records: Benchmark) -> Callable[[optuna.trial.Trial], float]:
    """Returns the objective as one would write it without a table."""

    def objective(trial: optuna.trial.Trial) -> float:
        blocks, method, width = suggest(trial)
        found = records.query(method=method, init_channels=width, blocks=blocks)
        if not len(found):
            raise optuna.TrialPruned
        return sum(record.accuracy("pgd") for record in found) / len(found)

    return objective


def look_nothing_up(trial: optuna.trial.Trial) -> float:
    """Returns a constant."""
    suggest(trial)
    return 0.0


def run_study(objective: Callable[[optuna.trial.Trial], float], num_trials: int) -> None:
    """Runs one study in memory."""
    sampler = optuna.samplers.RandomSampler(seed=0)
    optuna.create_study(direction="maximize", sampler=sampler).optimize(objective, num_trials)


def main() -> None:
    """Prints milliseconds a trial, trials a second, and the ratios to the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="runs of each combination")
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)

    records = make_records(arguments.seeds)
    sides: dict[str, Callable[[optuna.trial.Trial], float]] = {
        "records queried": query_every_time(records),
        "table": TabularObjective(records, ("blocks", "method", "init_channels"), "pgd"),
        "Optuna alone": look_nothing_up,
    }
    seconds = time_in_turn(
        {
            name: partial(run_study, objective, arguments.trials)
            for name, objective in sides.items()
        },
        rounds=arguments.rounds,
        warmup=1,
    )
    print(f"{len(records)} records, {arguments.trials} trials of the random sampler")
    for name, value in seconds.items():
        each, ratio = value / arguments.trials, value / seconds["table"]
        print(f"{name:16}{each * 1e3:8.2f} ms a trial, {1 / each:8.0f} trials/s, ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
