"""``nasbench-at train``: a run, or one with each of several seeds."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nasbench_at.commands.input_errors import bad_input, one_line_warnings
from nasbench_at.commands.run_arguments import RunArguments, parse_run_flags
from nasbench_at.config import RunConfig
from nasbench_at.config.allowed_values import CheckpointMinutes
from nasbench_at.config.catalogue import check_names

if TYPE_CHECKING:
    from nasbench_at.records import Record
    from nasbench_at.runtime.ranks import Distribution

__all__ = ["TrainArguments", "run_train"]


@dataclass(frozen=True)
class TrainArguments(RunArguments):
    """Arguments of ``nasbench-at train``.

    Attributes:
        checkpoint_minutes: Time between checkpoints within an epoch.
        dry_run: Train nothing: show the model, its memory and how long it would take.
        print_sbatch: Train nothing: print a SLURM script that runs this command.
    """

    checkpoint_minutes: CheckpointMinutes = 5.0
    dry_run: bool = False
    print_sbatch: bool = False


def run_train(words: Sequence[str]) -> int:
    """Train a network; --config FILE reads a configuration, over which flags win."""
    with bad_input():
        arguments = parse_run_flags(
            TrainArguments, words, command="train", description=run_train.__doc__
        )
    if arguments.print_sbatch:
        from nasbench_at.runtime.slurm import sbatch_script

        kept = [word for word in words if word != "--print-sbatch"]
        sys.stdout.write(sbatch_script(["train", *kept]))
        return 0
    with bad_input():
        check_names(arguments)
    if arguments.dry_run:
        return _show_estimate(arguments)
    from nasbench_at.commands.console import show_seeds
    from nasbench_at.runtime.devices import select_device
    from nasbench_at.runtime.ranks import distributed

    with ExitStack() as ranks:
        with bad_input():
            device = select_device(arguments.device)
            distribution = ranks.enter_context(distributed(device))
        records = [_train_one(arguments, config, distribution) for config in arguments.configs()]
        if len(records) > 1 and distribution.is_main:
            show_seeds(records)
    return 0


def _train_one(arguments: TrainArguments, config: RunConfig, distribution: Distribution) -> Record:
    from nasbench_at.commands.console import ConsoleReporter, show_training
    from nasbench_at.training.launch import prepare_training

    with bad_input(), one_line_warnings():
        trainer = prepare_training(
            config,
            runs_dir=arguments.runs_dir,
            data_root=arguments.data_root,
            device=arguments.device,
            checkpoint_minutes=arguments.checkpoint_minutes,
            distribution=distribution,
        )
    reporter = ConsoleReporter(silent=not distribution.is_main)
    try:
        record = trainer.run(reporter)
    finally:
        reporter.stop()
    if distribution.is_main:
        show_training(record, trainer.folder.path)
    return record


def _show_estimate(arguments: TrainArguments) -> int:
    from nasbench_at.commands.console import show_estimate
    from nasbench_at.training.launch import prepare_estimate

    with bad_input(), one_line_warnings():
        prepared = prepare_estimate(
            arguments.config(), data_root=arguments.data_root, device=arguments.device
        )
    show_estimate(prepared.run())
    return 0
