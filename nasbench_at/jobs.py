"""The jobs that work on a run's folder: train a configuration, evaluate what it became."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import safetensors.torch
import torch
from torch import nn

from blocks import load_entry_points, load_plugin
from nasbench_at.attacks import Attack
from nasbench_at.config import RunConfig
from nasbench_at.data import DataSet, LabelledImages, load_data
from nasbench_at.devices import select_device
from nasbench_at.evaluation import (
    ATTACK_NAMES,
    AttackResult,
    check_aa_samples,
    evaluate,
    standard_attacks,
)
from nasbench_at.files import write_atomically
from nasbench_at.networks.ds_net import DSNet, build_network
from nasbench_at.presets import resolve
from nasbench_at.provenance import collect_provenance
from nasbench_at.records import Record, read_record
from nasbench_at.runs import RunFolder, create_run_folder, open_run_folder
from nasbench_at.seeding import derive_seed
from nasbench_at.training.checkpoints import load_weights
from nasbench_at.training.trainer import Trainer, TrainingReporter

__all__ = [
    "RunEvaluation",
    "evaluate_run",
    "load_run",
    "prepare_evaluation",
    "prepare_training",
    "train",
]


def train(
    config: RunConfig,
    *,
    runs_dir: str | Path = "runs",
    device: str = "auto",
    reporter: TrainingReporter | None = None,
) -> Record:
    """Trains a configuration with its seed, or goes on where it was interrupted.

    Args:
        config: Unset fields are filled in from the recipe.
        runs_dir: The run's folder is created in here.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        reporter: Is told how it goes.

    Returns:
        The run's record; a finished run's as it is, without training.

    Raises:
        ValueError: If the configuration, the device or the folder is not usable.
        FloatingPointError: If the loss is no longer finite; the last checkpoint is kept.
    """
    return prepare_training(config, runs_dir=runs_dir, device=device).run(reporter)


def prepare_training(
    config: RunConfig, *, runs_dir: str | Path = "runs", device: str = "auto"
) -> Trainer:
    """Checks everything that can be wrong before the first step; arguments as in :func:`train`.

    Raises:
        ValueError: If the configuration, the device or the folder is not usable.
    """
    config = resolve(config)
    chosen = select_device(device)
    data = load_config_data(config, chosen)
    network = create_network(config, data, chosen)
    trainer = Trainer(create_run_folder(runs_dir, config), data, network, chosen)
    trainer.resume()
    return trainer


def load_config_data(config: RunConfig, device: torch.device) -> DataSet:
    """Loads a configuration's data set onto a device.

    Raises:
        ValueError: If the data set is unknown or not usable.
    """
    return load_data(
        config.data,
        validation_fraction=config.validation_fraction,
        split_seed=config.split_seed,
        device=device,
        channels_last=config.channels_last,
    )


def create_network(config: RunConfig, data: DataSet, device: torch.device) -> DSNet:
    """Builds a configuration's network as it is before training, its plugins loaded first.

    Raises:
        ValueError: If the configuration's network cannot be built for these data.
    """
    load_entry_points()
    for plugin in config.plugins:
        load_plugin(plugin)
    architecture = config.architecture(data.image_shape, data.num_classes)
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(config.seed, "network"))
        network = build_network(architecture)
    layout = torch.channels_last if config.channels_last else torch.contiguous_format
    return network.to(device=device, memory_format=layout)  # type: ignore[call-overload, no-any-return]


def evaluate_run(
    path: str | Path,
    names: Sequence[str] = ATTACK_NAMES,
    *,
    eps: float | None = None,
    step_size: float | None = None,
    aa_samples: int | None = None,
    seed: int = 0,
    device: str = "auto",
    on_result: Callable[[str, AttackResult], None] | None = None,
) -> Record:
    """Evaluates a run's selected weights on the test images and writes its record.

    Args:
        path: The run's folder.
        names: Attacks, see :func:`nasbench_at.evaluation.standard_attacks`.
        eps: L∞ radius; the run's own by default.
        step_size: Step of PGD and C&W; eps / 4 by default.
        aa_samples: Let AutoAttack see only the first so many test images.
        seed: Seed of random starts.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        on_result: Called with each row as soon as it is known.

    Returns:
        The run's record with this evaluation in place of an earlier one.

    Raises:
        ValueError: If the folder, its weights or an argument is not usable.
    """
    evaluation = prepare_evaluation(
        path,
        names,
        eps=eps,
        step_size=step_size,
        aa_samples=aa_samples,
        seed=seed,
        device=device,
    )
    return evaluation.run(on_result)


def prepare_evaluation(
    path: str | Path,
    names: Sequence[str] = ATTACK_NAMES,
    *,
    eps: float | None = None,
    step_size: float | None = None,
    aa_samples: int | None = None,
    seed: int = 0,
    device: str = "auto",
) -> RunEvaluation:
    """Checks everything that can be wrong before the first attack; as :func:`evaluate_run`.

    Raises:
        ValueError: If the folder, its weights or an argument is not usable.
    """
    folder = open_run_folder(path)
    record = read_record(folder.record)
    radius = folder.config.eps if eps is None else eps
    assert radius is not None  # a run's folder holds a resolved configuration
    attacks = standard_attacks(names, eps=radius, step_size=step_size, seed=seed)
    model, images = load_run(folder, device)
    check_aa_samples(aa_samples, images)
    return RunEvaluation(folder, record, model, images, attacks, aa_samples, seed)


def load_run(folder: RunFolder, device: str = "auto") -> tuple[nn.Module, LabelledImages]:
    """Loads a run's selected network, in eval mode, and its test images.

    Args:
        folder: The run's folder.
        device: Where to put both.

    Raises:
        ValueError: If the weights are missing, damaged or of another architecture.
    """
    chosen = select_device(device)
    data = load_config_data(folder.config, chosen)
    network = create_network(folder.config, data, chosen)
    load_weights(folder.best, network)
    return network.eval(), data.test


@dataclass(frozen=True)
class RunEvaluation:
    """A run, loaded and about to be attacked; made by :func:`prepare_evaluation`."""

    folder: RunFolder
    record: Record
    model: nn.Module
    images: LabelledImages
    attacks: Mapping[str, Attack]
    aa_samples: int | None
    seed: int

    def run(self, on_result: Callable[[str, AttackResult], None] | None = None) -> Record:
        """Attacks, then writes the per-sample outcomes and the record.

        Args:
            on_result: Called with each row as soon as it is known.
        """
        report = evaluate(
            self.model,
            self.images,
            self.attacks,
            seed=self.seed,
            aa_samples=self.aa_samples,
            on_result=on_result,
        )
        config = self.folder.config
        evaluation = {
            **report.to_dict(),
            "data": f"{config.data}/test",
            "provenance": collect_provenance(self.images.labels.device, config.plugins),
        }
        write_atomically(self.folder.outcomes, safetensors.torch.save(dict(report.outcomes)))
        record = replace(self.record, evaluation=evaluation)
        write_atomically(self.folder.record, record.to_json().encode())
        return record
