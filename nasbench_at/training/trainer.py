"""The life of a run: epochs, validation, the best weights, checkpoints, resumption."""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from pydantic import TypeAdapter
from torch import Tensor, nn

from nasbench_at.attacks import PGD_BY_NORM, GradientAttack, attack_mode
from nasbench_at.config import ResolvedConfig
from nasbench_at.data import Augmentation, DataSet
from nasbench_at.records import Record, read_record
from nasbench_at.records.run_folders import RunFolder
from nasbench_at.runtime.atomic_files import write_atomically
from nasbench_at.runtime.seeding import derive_seed, make_generator
from nasbench_at.training.checkpoints import (
    CheckpointError,
    load_checkpoint,
    previous_path,
    save_checkpoint,
    save_weights,
)
from nasbench_at.training.interruption import InterruptedTraining, StopRequest, stop_on_signals
from nasbench_at.training.precision import compare_gradients
from nasbench_at.training.schedules import learning_rate
from nasbench_at.training.step import TrainingStep

__all__ = ["NoReport", "Trainer", "TrainingReporter", "count_correct", "validation_attack"]

MISLED_LIMIT = 0.1
"""Share of pixels in which low precision may mislead the attack without a warning."""
CATASTROPHIC_DROP = 0.2
"""Fast AT stops when robust accuracy falls by so much from one epoch to the next."""


class TrainingReporter(Protocol):
    """Is told how training goes, to show it."""

    def start(self, num_epochs: int, num_steps: int, num_done: int) -> None:
        """Training begins after ``num_done`` of ``num_epochs * num_steps`` steps."""

    def step(self) -> None:
        """A step was taken."""

    def epoch(self, row: dict[str, Any]) -> None:
        """An epoch ended with this line of metrics."""


class NoReport:
    """Shows nothing."""

    def start(self, num_epochs: int, num_steps: int, num_done: int) -> None:
        """Does nothing."""

    def step(self) -> None:
        """Does nothing."""

    def epoch(self, row: dict[str, Any]) -> None:
        """Does nothing."""


@dataclass
class _Progress:
    """What has been reached; with weights and optimizers, all that a resumed run needs.

    Attributes:
        epoch: Epochs finished.
        step: Steps taken in the epoch after them.
        totals: Summed loss, correct predictions and images of these steps.
        history: A line of metrics for each finished epoch.
        best: The selected epoch and its accuracies.
        seconds: Time spent so far, without what a kill made to be done again.
        stopped: Why training ended before its last epoch.
    """

    epoch: int = 0
    step: int = 0
    totals: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    history: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    stopped: str | None = None


class Trainer:
    """Trains one network in one run folder.

    Every random number is derived from the seed, the epoch and the step, so a resumed run repeats
    the bits of one that was never interrupted, on the CPU.

    Args:
        folder: Where everything is written; holds the resolved configuration.
        data: The data set on the device.
        training_step: The network and all that changes it.
        begun: The run's record as far as it is known before training.
        checkpoint_minutes: Time between checkpoints within an epoch.
    """

    def __init__(
        self,
        folder: RunFolder,
        data: DataSet,
        training_step: TrainingStep,
        begun: Record,
        *,
        checkpoint_minutes: float = 5.0,
    ) -> None:
        self.folder = folder
        self.config = folder.config
        self.data = data
        self.training_step = training_step
        self.begun = begun
        self.ranks = training_step.ranks
        self.device = data.train.labels.device
        self.validation_attack = validation_attack(folder.config)
        self.augmentation = Augmentation() if self.config.augment else None
        self.checkpoint_seconds = 60 * checkpoint_minutes
        self.progress = _Progress()
        self._counted = time.monotonic()
        self.num_steps = data.train.num_batches(self.config.batch_size, self.ranks.world_size)

    @property
    def network(self) -> nn.Module:
        """The network that is trained."""
        return self.training_step.network

    @property
    def is_finished(self) -> bool:
        """Whether no epoch is left."""
        reached_end = self.progress.epoch == self.config.epochs
        return reached_end or self.progress.stopped is not None

    def resume(self) -> None:
        """Restores the last checkpoint; a damaged one falls back to the one before, and warns.

        Raises:
            ValueError: If no checkpoint can be read, or they are of another network or other data.
        """
        last = self.folder.checkpoint
        candidates = [path for path in (last, previous_path(last)) if path.exists()]
        for i, path in enumerate(candidates):
            try:
                state = load_checkpoint(path)
            except CheckpointError as error:
                if i + 1 == len(candidates):
                    raise
                warnings.warn(f"{error}; going on from the one before", stacklevel=2)
                continue
            self._restore(state, str(path))
            return

    def _restore(self, state: dict[str, Any], name: str) -> None:
        there, here = state.get("data_fingerprint"), self.data.fingerprint
        if isinstance(there, str) and there != here:
            raise ValueError(
                f"checkpoint {name!r} is of a run on other data than {self.config.data!r} holds "
                f"now: fingerprint {there} there, {here} here"
            )
        try:
            progress = TypeAdapter(_Progress).validate_python(state["progress"])
            self.training_step.load_state_dict(state["training_step"])
            self.progress = progress
            if not self.ranks.is_main:  # they are of all ranks together
                self.progress.totals = [0.0, 0.0, 0.0]
        except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:300]
            raise ValueError(f"checkpoint {name!r} is of another network: {reason}") from None

    def run(self, reporter: TrainingReporter | None = None) -> Record:
        """Trains the epochs that are left and writes the record.

        Args:
            reporter: Is told how it goes.

        Raises:
            FolderInUseError: If another process works in the folder.
            InterruptedTraining: After SIGTERM or SIGINT, the state being saved.
            FloatingPointError: If loss or weights are no longer finite.
        """
        reporter = reporter or NoReport()
        with (
            self.folder.locked(self.ranks.is_main),
            torch.random.fork_rng(devices=_cuda_devices(self.device)),
            stop_on_signals() as stop,
        ):
            if self.folder.record.exists():  # the last that training writes
                return read_record(self.folder.record)
            if self.ranks.is_main:
                self.folder.write_metrics(self.progress.history)
            reporter.start(
                self.config.epochs,
                self.num_steps,
                self.progress.epoch * self.num_steps + self.progress.step,
            )
            self._counted = time.monotonic()
            while not self.is_finished:
                self._run_epoch(reporter, stop)
                (is_stopped,) = self.ranks.agree(stop.signal_name is not None)
                if is_stopped and not self.is_finished:
                    epoch = f"epoch {self.progress.epoch} of {self.config.epochs}"
                    raise InterruptedTraining(
                        f"{stop.signal_name or 'another rank'}: stopped after {epoch}"
                    )
            return self._write_record()

    def _run_epoch(self, reporter: TrainingReporter, stop: StopRequest) -> None:
        loss, accuracy = self._train_epoch(reporter, stop)
        natural, robust = self._validate()
        progress = self.progress
        row = {
            "epoch": progress.epoch + 1,
            "lr": self._rate(self.num_steps - 1),
            "train_loss": loss,
            "train_accuracy": accuracy,
            "validation_natural": natural,
            "validation_robust": robust,
            **self._compare_gradients(),
            **_attention_of(self.training_step.evaluated),
        }
        progress.stopped = self._catastrophe(row)
        progress.epoch, progress.step, progress.totals = row["epoch"], 0, [0.0, 0.0, 0.0]
        progress.history.append(row)
        self._keep_best(row)
        # After the best weights, before the metrics: what a kill leaves out is written again.
        self._save_checkpoint()
        if self.ranks.is_main:
            self.folder.write_metrics(progress.history)
        reporter.epoch(row)

    def _rate(self, step: int) -> float:
        return learning_rate(self.config, self.progress.epoch + 1, step, self.num_steps)

    def _train_epoch(self, reporter: TrainingReporter, stop: StopRequest) -> tuple[float, float]:
        """Returns mean loss and training accuracy; the host waits at its end and to save only."""
        seed, epoch, first = self.config.seed, self.progress.epoch + 1, self.progress.step
        method = self.training_step.method
        self.training_step.method = method.start_epoch(epoch)
        totals = torch.tensor(self.progress.totals, dtype=torch.float64, device=self.device)
        bad_step = torch.tensor(-1, device=self.device)
        saved = time.monotonic()

        def crops(step: int) -> torch.Generator:
            return make_generator(seed, "augmentation", epoch, step, device=self.device)

        images = self.data.train if self.data.mixture is None else self.data.mixture
        batches = images.shuffled_batches(
            self.config.batch_size,
            make_generator(seed, "order", epoch),
            skip=first,
            shard=self.ranks.shard,
            augmentation=self.augmentation,
            augmentation_generator=None if self.augmentation is None else crops,
        )
        for step, (x, y) in enumerate(batches, start=first):
            self.training_step.optimizers.set_rate(self._rate(step))
            # Drop-connect draws from the global generator; the attack from one of its own.
            torch.manual_seed(derive_seed(seed, "step", epoch, step, self.ranks.rank))
            rank = self.ranks.rank
            noise = make_generator(seed, "attack", epoch, step, rank, device=self.device)
            totals += self.training_step(x, y, noise, num_images=self._num_images(step))
            bad_step = torch.where((bad_step < 0) & ~totals[0].isfinite(), step, bad_step)
            reporter.step()
            if step + 1 == self.num_steps:
                break
            # Ranks are signalled, and look at the clock, at different steps.
            is_due, is_stopped = self.ranks.agree(
                time.monotonic() - saved >= self.checkpoint_seconds, stop.signal_name is not None
            )
            if is_due or is_stopped:
                self._save_within_epoch(step + 1, totals, bad_step)
                saved = time.monotonic()
            if is_stopped:
                raise InterruptedTraining(
                    f"{stop.signal_name or 'another rank'}: stopped in epoch {epoch} after step "
                    f"{step + 1} of {self.num_steps}"
                )
        self._check_finite(bad_step, epoch)
        loss, num_correct, num_seen = self.ranks.sum(totals).tolist()
        return loss / num_seen, num_correct / num_seen

    def _num_images(self, step: int) -> int:
        """Images of all ranks in a step."""
        batch_size = self.config.batch_size
        if self.data.mixture is not None:  # whose batches are all full
            return batch_size
        return min(batch_size, len(self.data.train) - step * batch_size)

    def _save_within_epoch(self, step: int, totals: Tensor, bad_step: Tensor) -> None:
        self._check_finite(bad_step, self.progress.epoch + 1)
        self.progress.step = step
        self.progress.totals = self.ranks.sum(totals.clone()).tolist()
        self._save_checkpoint()

    def _check_finite(self, bad_step: Tensor, epoch: int) -> None:
        first = int(bad_step)
        if first >= 0:
            reason = f"the loss is not finite from step {first + 1} of epoch {epoch} on"
        elif not all(bool(p.isfinite().all()) for p in self.network.parameters()):
            reason = f"a weight is not finite in epoch {epoch}"
        else:
            return
        raise FloatingPointError(
            f"{reason}; the last good state is kept in {str(self.folder.path)!r}; try a smaller "
            "--lr"
        )

    def _validate(self) -> tuple[float, float]:
        """Returns natural and robust accuracy on the held-out images, of all ranks."""
        network = self.training_step.evaluated
        counts = torch.zeros(2, dtype=torch.int64, device=self.device)
        batches = self.data.validation.batches(self.config.batch_size)
        for i, (x, y) in enumerate(batches):
            if i % self.ranks.world_size == self.ranks.rank:
                noise = make_generator(self.config.seed, "validation", i, device=self.device)
                x_adv = self.validation_attack(network, x, y, generator=noise)
                counts += torch.stack(
                    (count_correct(network, x, y), count_correct(network, x_adv, y))
                )
        natural, robust = self.ranks.sum(counts).tolist()
        return natural / len(self.data.validation), robust / len(self.data.validation)

    def _compare_gradients(self) -> dict[str, float]:
        """Says what the precision does to the attack, on the first held-out batch.

        All ranks compute the same, and one warns, once a run.
        """
        precision = self.training_step.precision
        if precision.name == "fp32" or self.config.method == "st":
            return {}
        x, y = next(iter(self.data.validation.batches(self.config.batch_size)))
        found = compare_gradients(self.network, x, y, precision)
        limit_was_passed = any(
            row["gradients_lost"] + row["gradients_flipped"] > MISLED_LIMIT
            for row in self.progress.history
        )
        if found.misled > MISLED_LIMIT and not limit_was_passed and self.ranks.is_main:
            warnings.warn(
                f"precision {precision.name!r} misleads the attack in epoch "
                f"{self.progress.epoch + 1}: of the images' gradients {found.lost:.1%} are lost "
                f"and {found.flipped:.1%} have another sign than in fp32; a network that is "
                "trained so may be less robust than it seems to be while training",
                stacklevel=2,
            )
        return {"gradients_lost": found.lost, "gradients_flipped": found.flipped}

    def _catastrophe(self, row: dict[str, Any]) -> str | None:
        """Says whether Fast AT has lost its robustness from one epoch to the next.

        The official code compares accuracies on a training batch; here it is the held-out images.
        """
        history = self.progress.history
        if self.config.method != "fast_at" or not history:
            return None
        drop = history[-1]["validation_robust"] - row["validation_robust"]
        if drop <= CATASTROPHIC_DROP:
            return None
        return (
            f"catastrophic overfitting: robust accuracy fell by {drop:.1%} in epoch {row['epoch']}"
        )

    def _keep_best(self, row: dict[str, Any]) -> None:
        first, second = "validation_robust", "validation_natural"
        if self.config.method == "st":
            first, second = second, first
        best = self.progress.best
        is_better = not best or (row[first], row[second]) > (best[first], best[second])
        if not is_better and self.config.select_on != "last":
            return
        self.progress.best = {key: row[key] for key in ("epoch", first, second)}
        if self.ranks.is_main:
            metadata = {"config": self.config.to_dict(), "epoch": row["epoch"]}
            save_weights(self.folder.best, self.training_step.evaluated, metadata)

    def _save_checkpoint(self) -> None:
        now = time.monotonic()
        self.progress.seconds += now - self._counted
        self._counted = now
        if self.ranks.is_main:
            state = {
                "training_step": self.training_step.state_dict(),
                "progress": vars(self.progress),
                "data_fingerprint": self.data.fingerprint,
            }
            save_checkpoint(self.folder.checkpoint, state)

    def _write_record(self) -> Record:
        progress, begun, mixture = self.progress, self.begun, self.data.mixture
        record = replace(
            begun,
            provenance={**begun.provenance, "train_seconds": progress.seconds},
            training={
                "epochs": progress.epoch,
                "stopped": progress.stopped,
                "num_train": len(self.data.train),
                **({} if mixture is None else {"num_extra": mixture.num_extra}),
                "selected": {
                    **progress.best,
                    "num_samples": len(self.data.validation),
                    "attack": self.validation_attack.settings(),
                },
            },
        )
        if self.ranks.is_main:
            write_atomically(self.folder.record, record.to_json().encode())
        self.ranks.barrier()
        return record


def validation_attack(config: ResolvedConfig) -> GradientAttack:
    """Returns the attack that measures robustness while training: PGD on the cross entropy.

    Under the run's norm, with the training attack's steps, but at least ten: a one-step attack
    would not notice that a network has learned to fool it.
    """
    pgd = PGD_BY_NORM[config.norm]
    if config.attack_steps >= 10:
        return pgd(config.eps, step_size=config.step_size, steps=config.attack_steps)
    return pgd(config.eps, steps=10)


def count_correct(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Returns how many images a model in eval mode classifies correctly, on the device."""
    with attack_mode(model), torch.no_grad():
        num_correct: Tensor = (model(x).argmax(dim=1) == y).sum()
    return num_correct


def _cuda_devices(device: torch.device) -> list[torch.device]:
    """The GPU whose generator a run uses; those of others are not its own."""
    return [device] if device.type == "cuda" else []


def _attention_of(network: nn.Module) -> dict[str, Any]:
    attention = getattr(network, "attention", None)
    return {} if attention is None else {"attention": attention.weights().tolist()}
