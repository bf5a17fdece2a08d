"""``nasbench-at train``: a run, or one with each of several seeds."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from nasbench_at.commands.flags import parse_flags
from nasbench_at.commands.input_errors import bad_input, one_line_warnings
from nasbench_at.config import RunConfig, load_config
from nasbench_at.config.allowed_values import (
    CheckpointMinutes,
    DataRoot,
    Device,
    Distinct,
    Folder,
    FromFile,
    InsteadOf,
    Seed,
)
from nasbench_at.config.catalogue import check_names

if TYPE_CHECKING:
    from nasbench_at.records import Record
    from nasbench_at.records.run_folders import RunFolder
    from nasbench_at.runtime.ranks import Ranks
    from nasbench_at.training.trainer import TrainingReporter

__all__ = ["RunArguments", "TrainArguments", "run_train"]


def _read_run(path: str) -> RunConfig:
    """Reads a configuration that flags may change, so that a DS-Net's name is not in their way."""
    return load_config(path).spelled_out()


@dataclass(frozen=True)
class RunArguments:
    """A configuration with what does not decide the result.

    Attributes:
        config: A run: read from this YAML file, and changed by flags.
        seeds: Train once with each of these seeds, instead of ``seed``.
        runs_dir: The runs' folders are created in here; a finished run found there is not repeated.
        data_root: Where the data set's files lie.
        device: auto, cpu, cuda or cuda:N.
    """

    config: Annotated[RunConfig, FromFile("a YAML file", _read_run)]
    seeds: Annotated[tuple[Seed, ...], Distinct(), InsteadOf("seed")] = ()
    runs_dir: Annotated[Path, Folder()] = Path("runs")
    data_root: DataRoot = None
    device: Device = "auto"


@dataclass(frozen=True)
class TrainArguments(RunArguments):
    """Arguments of ``nasbench-at train``.

    Attributes:
        checkpoint_minutes: Time between checkpoints within an epoch.
        dry_run: Train nothing: show the model, its memory and how long it would take.
        print_sbatch: Train nothing: print a SLURM script that runs this command.
        log: Write each epoch's metrics to an event file for TensorBoard in the run's folder, too.
    """

    checkpoint_minutes: CheckpointMinutes = 5.0
    dry_run: bool = False
    print_sbatch: bool = False
    log: Literal["tensorboard"] | None = None


def run_train(words: Sequence[str]) -> int:
    """Train a network; --config FILE reads a configuration, over which flags win."""
    arguments = parse_flags(TrainArguments, words, "train", run_train.__doc__)
    if arguments.print_sbatch:
        from nasbench_at.runtime.slurm import sbatch_script

        kept = [word for word in words if word != "--print-sbatch"]
        sys.stdout.write(sbatch_script(["train", *kept]))
        return 0
    with bad_input():
        check_names(arguments.config)
        _check_log(arguments)
    if arguments.dry_run:
        return _show_estimate(arguments)
    from nasbench_at.commands.console import show_seeds
    from nasbench_at.runtime.devices import select_device
    from nasbench_at.runtime.ranks import distributed

    with ExitStack() as stack:
        with bad_input():
            device = select_device(arguments.device)
            ranks = stack.enter_context(distributed(device))
        seeds = arguments.seeds or (arguments.config.seed,)
        records = [_train_one(arguments, seed, ranks) for seed in seeds]
        if len(records) > 1 and ranks.is_main:
            show_seeds(records)
    return 0


def _check_log(arguments: TrainArguments) -> None:
    if arguments.log is not None:
        from nasbench_at.training.tensorboard import check_tensorboard

        check_tensorboard()


def _train_one(arguments: TrainArguments, seed: int, ranks: Ranks) -> Record:
    from nasbench_at.commands.console import show_training
    from nasbench_at.training.launch import prepare_training

    with bad_input(), one_line_warnings():
        trainer = prepare_training(
            replace(arguments.config, seed=seed),
            runs_dir=arguments.runs_dir,
            data_root=arguments.data_root,
            device=arguments.device,
            checkpoint_minutes=arguments.checkpoint_minutes,
            ranks=ranks,
        )
    with _reporting(arguments, trainer.folder, ranks) as reporter:
        record = trainer.run(reporter)
    if ranks.is_main:
        show_training(record, trainer.folder.path)
    return record


@contextmanager
def _reporting(
    arguments: TrainArguments, folder: RunFolder, ranks: Ranks
) -> Iterator[TrainingReporter]:
    from nasbench_at.commands.console import ConsoleReporter

    console = ConsoleReporter(silent=not ranks.is_main)
    try:
        if arguments.log is None or not ranks.is_main:
            yield console
        else:
            from nasbench_at.training.tensorboard import TensorBoardReporter

            with TensorBoardReporter(console, folder) as reporter:
                yield reporter
    finally:
        console.stop()


def _show_estimate(arguments: TrainArguments) -> int:
    from nasbench_at.commands.console import show_estimate, show_precisions
    from nasbench_at.training.launch import prepare_estimate

    with bad_input(), one_line_warnings():
        prepared = prepare_estimate(
            arguments.config, data_root=arguments.data_root, device=arguments.device
        )
    show_estimate(prepared.run())
    show_precisions(prepared.time_precisions())
    return 0
