"""Training jobs: from a configuration to a trained run in its folder."""

from __future__ import annotations

import math
import resource
import statistics
import sys
import timeit
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from nasbench_at.config import Precision, ResolvedConfig, RunConfig, resolve
from nasbench_at.config.allowed_values import CheckpointMinutes, check_value
from nasbench_at.config.contents import check_contents
from nasbench_at.data import DataSet, ImageSpec, load_data, mix_in
from nasbench_at.data.custom import custom_loader
from nasbench_at.networks.ds_net import count_parameters
from nasbench_at.networks.graph import build_network
from nasbench_at.networks.zoo import create_model
from nasbench_at.records import Record
from nasbench_at.records.run_folders import create_run_folder
from nasbench_at.runtime.devices import fit_threads, select_device
from nasbench_at.runtime.provenance import collect_provenance
from nasbench_at.runtime.ranks import Ranks, distributed
from nasbench_at.runtime.seeding import derive_seed, make_generator
from nasbench_at.training.compilation import compile_blocks
from nasbench_at.training.optimizers import check_optimizer_impl
from nasbench_at.training.plugins import load_plugins
from nasbench_at.training.precision import MixedPrecision, check_precision
from nasbench_at.training.step import TrainingStep
from nasbench_at.training.trainer import Trainer, TrainingReporter

__all__ = [
    "Estimate",
    "PreparedEstimate",
    "create_network",
    "fit_batch_size",
    "load_config_data",
    "prepare_estimate",
    "prepare_training",
    "train",
    "warn_of_few_held_out",
    "warn_of_radius",
]

FEW_HELD_OUT = 100
"""Of fewer held-out images the 95 % interval of an accuracy may reach further than ten points."""


def train(
    config: RunConfig,
    *,
    runs_dir: str | Path = "runs",
    data_root: str | Path | None = None,
    device: str = "auto",
    checkpoint_minutes: float = 5.0,
    reporter: TrainingReporter | None = None,
) -> Record:
    """Trains a configuration with its seed, or goes on where it was interrupted.

    Args:
        config: Unset fields are filled in from the recipe.
        runs_dir: The run's folder is created in here.
        data_root: Where the data set's files lie.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        checkpoint_minutes: Time between checkpoints within an epoch.
        reporter: Is told how it goes.

    Returns:
        The run's record; a finished run's as it is, without training.

    Raises:
        ValueError: If the configuration, the device or the folder is not usable.
        InterruptedTraining: After SIGTERM or SIGINT, the state being saved.
        FloatingPointError: If loss or weights are no longer finite; the last good state is kept.
    """
    with distributed(select_device(device)) as ranks:
        trainer = prepare_training(
            config,
            runs_dir=runs_dir,
            data_root=data_root,
            device=device,
            checkpoint_minutes=checkpoint_minutes,
            ranks=ranks,
        )
        return trainer.run(reporter)


def prepare_training(
    config: RunConfig,
    *,
    runs_dir: str | Path = "runs",
    data_root: str | Path | None = None,
    device: str = "auto",
    checkpoint_minutes: float = 5.0,
    ranks: Ranks | None = None,
) -> Trainer:
    """Checks everything that can be wrong before the first step; arguments as in :func:`train`.

    Raises:
        ValueError: If the configuration, the device or the folder is not usable.
    """
    check_value("checkpoint_minutes", CheckpointMinutes, checkpoint_minutes)
    ranks = ranks or Ranks()
    resolved, data, training_step = _prepare_step(config, data_root, device, ranks)
    if ranks.is_main:
        create_run_folder(runs_dir, resolved)
    ranks.barrier()
    folder = create_run_folder(runs_dir, resolved)
    begun = _begin_record(resolved, data, training_step)
    trainer = Trainer(folder, data, training_step, begun, checkpoint_minutes=checkpoint_minutes)
    trainer.resume()
    if ranks.is_main and not trainer.is_finished:
        warn_of_few_held_out(resolved, data)
    return trainer


def _begin_record(config: ResolvedConfig, data: DataSet, training_step: TrainingStep) -> Record:
    """The record before training, which adds how it went: what is trained, on what, where."""
    return Record(
        run_id=config.run_id,
        config=config.to_dict(),
        architecture=config.network_id(data.image_shape, data.num_classes),
        num_params=count_parameters(training_step.network),
        provenance={
            **collect_provenance(data.train.labels.device),
            "precision": config.precision,
            "num_ranks": training_step.ranks.world_size,
            "data_fingerprint": data.fingerprint,
            **_extra_provenance(data),
        },
    )


def _extra_provenance(data: DataSet) -> dict[str, str]:
    return {} if data.mixture is None else {"extra_data_fingerprint": data.mixture.fingerprint}


def _prepare_step(
    config: RunConfig,
    data_root: str | Path | None,
    device: str,
    ranks: Ranks,
) -> tuple[ResolvedConfig, DataSet, TrainingStep]:
    """Fills a configuration in, loads its data and builds its network."""
    chosen = ranks.place(select_device(device))
    resolved = resolve(config)
    if ranks.is_main:
        warn_of_radius(config)
    check_precision(resolved.precision, chosen)
    check_optimizer_impl(resolved.optimizer_impl, chosen)
    data = load_config_data(resolved, chosen, data_root)
    if config.batch_size is None:
        resolved = fit_batch_size(resolved, len(data.train), warn=ranks.is_main)
    if resolved.batch_size > len(data.train):
        raise ValueError(
            f"batch_size must be at most the number of training images, {len(data.train)}, got "
            f"{resolved.batch_size}"
        )
    if resolved.batch_size < 2 * ranks.world_size:
        raise ValueError(
            f"batch_size must be at least two images for each of {ranks.world_size} ranks, got "
            f"{resolved.batch_size}"
        )
    if resolved.extra_data is not None:
        data = _mix_in_extra(data, resolved)
    training_step = TrainingStep(create_network(resolved, data, chosen), resolved, ranks)
    if resolved.compile:
        x, _ = data.train.take(torch.arange(min(resolved.batch_size, 8), device=chosen))
        compile_blocks(training_step.network, x)
    return resolved, data, training_step


def _mix_in_extra(data: DataSet, config: ResolvedConfig) -> DataSet:
    """Adds a configuration's generated images to its data set."""
    assert config.extra_data is not None
    assert config.extra_fraction is not None  # a resolved configuration has both or neither
    data = mix_in(data, config.extra_data, config.extra_fraction)
    assert data.mixture is not None
    data.mixture.extra_in(config.batch_size)  # complains now, if it cannot
    return data


def fit_batch_size(config: ResolvedConfig, num_images: int, *, warn: bool = True) -> ResolvedConfig:
    """Returns a configuration whose recipe's batch is no larger than its training images.

    Args:
        config: A configuration whose ``batch_size`` nobody asked for.
        num_images: Number of training images.
        warn: Whether to say so, once it is another one.
    """
    asked = config.batch_size
    if asked <= num_images or num_images < 2:
        return config
    fitting = 1 << (num_images.bit_length() - 1)  # the largest power of two
    if warn:
        warnings.warn(
            f"batch_size is {fitting} instead of the recipe's {asked}: there are {num_images} "
            "training images",
            stacklevel=2,
        )
    return replace(config, batch_size=fitting)


def warn_of_radius(config: RunConfig) -> None:
    """Says which radius a user's own data get where none was asked for."""
    if config.eps is None and custom_loader(config.data) is not None:
        warnings.warn(
            f"eps is {resolve(config).eps:g}, the recipe's for CIFAR-10: --eps sets the radius "
            f"that suits {config.data!r}",
            stacklevel=2,
        )


def warn_of_few_held_out(config: ResolvedConfig, data: DataSet) -> None:
    """Says so where an epoch is selected on so few images that chance selects."""
    num_images = len(data.validation)
    if config.select_on == "validation" and num_images < FEW_HELD_OUT:
        warnings.warn(
            f"the best epoch is selected on {num_images} held-out images, which is noisy: "
            "--validation-fraction holds out more, --select-on last takes the last epoch",
            stacklevel=2,
        )


def load_config_data(
    config: RunConfig, device: torch.device, data_root: str | Path | None = None
) -> DataSet:
    """Loads a configuration's data set onto a device, without extra data: only training needs them.

    Raises:
        ValueError: If the data set is unknown or not usable, or a file of the configuration has
            changed.
    """
    check_contents(config.contents)
    return load_data(
        config.data,
        root=None if data_root is None else Path(data_root),
        validation_fraction=None if config.select_on == "test" else config.validation_fraction,
        split_seed=config.split_seed,
        device=device,
        channels_last=config.channels_last,
    )


def create_network(
    config: ResolvedConfig, images: DataSet | ImageSpec, device: torch.device
) -> nn.Module:
    """Builds a configuration's network as it is before training, its plugins loaded first.

    Raises:
        ValueError: If the configuration's network cannot be built for these data, or a file of
            the configuration has changed.
    """
    check_contents(config.contents)
    load_plugins(config.plugins)
    # Networks are built on the CPU; the GPUs' generators need not be touched for that.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive_seed(config.seed, "network"))
        if config.model == "ds_net":
            architecture = config.architecture(images.image_shape, images.num_classes)
            network: nn.Module = build_network(architecture)
        else:
            options = config.model_options
            network = create_model(config.model, images.num_classes, images.image_shape, **options)
    fit_threads(network)
    layout = torch.channels_last if config.channels_last else torch.contiguous_format
    return network.to(device=device, memory_format=layout)  # type: ignore[call-overload, no-any-return]


COMPARED: tuple[Precision, ...] = ("fp32", "bf16")
"""Precisions that are timed against a run's own; neither needs a loss scaler."""


@dataclass(frozen=True)
class Estimate:
    """What a run will cost, from a few steps of it.

    Attributes:
        num_params: Parameters, attention logits among them.
        num_train: Training images.
        num_steps: Steps an epoch.
        seconds_per_step: Median of the timed steps.
        seconds: All epochs' training steps; validation comes on top.
        memory_mib: Highest memory seen: the GPU's, or the process's.
    """

    num_params: int
    num_train: int
    num_steps: int
    seconds_per_step: float
    seconds: float
    memory_mib: float


def prepare_estimate(
    config: RunConfig, *, data_root: str | Path | None = None, device: str = "auto"
) -> PreparedEstimate:
    """Checks everything that can be wrong before the first step of a run; writes nothing.

    Args:
        config: Unset fields are filled in from the recipe.
        data_root: Where the data set's files lie.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        ValueError: If the configuration or the device is not usable.
    """
    return PreparedEstimate(*_prepare_step(config, data_root, device, Ranks()))


@dataclass(frozen=True)
class PreparedEstimate:
    """A run, checked and about to be timed."""

    config: ResolvedConfig
    data: DataSet
    training_step: TrainingStep

    def run(self, num_timed: int = 3) -> Estimate:
        """Takes one step that warms up and some that are timed, all thrown away; extrapolates."""
        train, config = self.data.train, self.config
        self._take_step()
        seconds = statistics.median(timeit.repeat(self._take_step, number=1, repeat=num_timed))
        num_steps = train.num_batches(config.batch_size)
        return Estimate(
            num_params=sum(p.numel() for p in self.training_step.network.parameters()),
            num_train=len(train),
            num_steps=num_steps,
            seconds_per_step=seconds,
            seconds=seconds * num_steps * config.epochs,
            memory_mib=_peak_memory_mib(self._device),
        )

    def time_precisions(self, num_rounds: int = 3) -> dict[Precision, float]:
        """Times steps in the precisions that this device computes, in turn.

        Returns:
            Seconds of the fastest step by precision; of a compiled run that of its own alone, since
            others would have to be compiled as well.
        """
        own = self.config.precision
        names = [own, *(name for name in COMPARED if name != own and not self.config.compile)]
        steps = {
            name: MixedPrecision.create(name, self._device)
            for name in names
            if _computes(name, self._device)
        }
        seconds: dict[Precision, float] = dict.fromkeys(steps, math.inf)
        for number in range(1 + num_rounds):
            for name, precision in steps.items():
                self.training_step.precision = precision
                taken = timeit.timeit(self._take_step, number=1)
                if number > 0:
                    seconds[name] = min(seconds[name], taken)
        return seconds

    def _take_step(self) -> None:
        train = self.data.train
        x, y = train.take(torch.arange(self.config.batch_size, device=train.labels.device))
        noise = make_generator(self.config.seed, "estimate", device=x.device)
        self.training_step(x, y, noise, num_images=len(y))
        if x.is_cuda:
            torch.cuda.synchronize(x.device)

    @property
    def _device(self) -> torch.device:
        return self.data.train.labels.device


def _computes(name: Precision, device: torch.device) -> bool:
    try:
        check_precision(name, device)
    except ValueError:
        return False
    return True


def _peak_memory_mib(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    # Kibibytes on Linux, bytes on macOS.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
