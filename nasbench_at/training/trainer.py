"""The training loop: attack, loss, step; validate, keep the best, checkpoint."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from nasbench_at.attacks import attack_mode
from nasbench_at.data import DataSet
from nasbench_at.files import write_atomically
from nasbench_at.networks.ds_net import DSNet
from nasbench_at.provenance import collect_provenance
from nasbench_at.records import Record, read_record
from nasbench_at.runs import RunFolder
from nasbench_at.seeding import derive_seed, make_generator
from nasbench_at.training.checkpoints import load_checkpoint, save_checkpoint, save_weights
from nasbench_at.training.methods import create_method, training_attack
from nasbench_at.training.optimizers import Optimizers

__all__ = ["NoReport", "Trainer", "TrainingReporter"]


class TrainingReporter(Protocol):
    """Is told how training goes, to show it."""

    def start(self, num_epochs: int, num_steps: int, num_done: int) -> None:
        """Training begins with epoch ``num_done + 1`` of ``num_epochs``, of ``num_steps`` each."""

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
    """What has been reached; with weights and optimizers, all that a resumed run needs."""

    epoch: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0


class Trainer:
    """Trains one network in one run folder.

    Args:
        folder: Where everything is written; holds the resolved configuration.
        data: The data set on the device.
        network: The network on the device.
        device: Where to compute.

    Raises:
        ValueError: If the method is unknown or a hyper-parameter unset.
    """

    def __init__(
        self, folder: RunFolder, data: DataSet, network: DSNet, device: torch.device
    ) -> None:
        self.folder = folder
        self.config = folder.config
        self.hyperparameters = folder.config.hyperparameters()
        self.data = data
        self.network = network
        self.device = device
        self.method = create_method(self.config.method, self.hyperparameters)
        self.optimizers = Optimizers.create(network, self.hyperparameters)
        self.validation_attack = training_attack(self.hyperparameters)
        self.progress = _Progress()

    def resume(self) -> None:
        """Restores the state at the end of the last finished epoch, if there is one.

        Raises:
            ValueError: If the checkpoint is damaged or of another network.
        """
        if not self.folder.checkpoint.exists():
            return
        state = load_checkpoint(self.folder.checkpoint)
        try:
            self.network.load_state_dict(state["network"])
            self.optimizers.load_state_dict(state["optimizers"])
            self.progress = _Progress(**state["progress"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:300]
            raise ValueError(
                f"checkpoint {str(self.folder.checkpoint)!r} is of another network: {reason}"
            ) from None

    def run(self, reporter: TrainingReporter | None = None) -> Record:
        """Trains the epochs that are left and writes the record.

        Args:
            reporter: Is told how it goes.

        Raises:
            ValueError: If another process works in the folder.
            FloatingPointError: If the loss is no longer finite.
        """
        reporter = reporter or NoReport()
        num_epochs = self.hyperparameters.epochs
        with self.folder.locked(), torch.random.fork_rng():
            if self.progress.epoch == num_epochs and self.folder.record.exists():
                return read_record(self.folder.record)
            self.folder.write_metrics(self.progress.history)
            num_steps = self.data.train.num_batches(self.hyperparameters.batch_size)
            reporter.start(num_epochs, num_steps, self.progress.epoch)
            for epoch in range(self.progress.epoch + 1, num_epochs + 1):
                self._run_epoch(epoch, reporter)
            return self._write_record()

    def _run_epoch(self, epoch: int, reporter: TrainingReporter) -> None:
        start = time.perf_counter()
        rate = self.optimizers.set_epoch(epoch)
        loss, accuracy = self._train_epoch(epoch, reporter)
        if not torch.isfinite(torch.tensor(loss)):
            raise FloatingPointError(
                f"the loss of epoch {epoch} is {loss}; the state at the end of epoch {epoch - 1} "
                f"is kept in {str(self.folder.path)!r}; try a smaller --lr"
            )
        natural, robust = self._validate()
        row = {
            "epoch": epoch,
            "lr": rate,
            "train_loss": loss,
            "train_accuracy": accuracy,
            "validation_natural": natural,
            "validation_robust": robust,
            "attention": self.network.attention.weights().tolist(),
        }
        self.progress.epoch = epoch
        self.progress.history.append(row)
        self._keep_best(row)
        self.progress.seconds += time.perf_counter() - start
        # The checkpoint comes last but one: what it does not know yet is done again after a kill.
        self._save_checkpoint()
        self.folder.write_metrics(self.progress.history)
        reporter.epoch(row)

    def _train_epoch(self, epoch: int, reporter: TrainingReporter) -> tuple[float, float]:
        """Returns mean loss and training accuracy; the host waits for the device only here."""
        seed = self.config.seed
        order = make_generator(seed, "order", epoch)
        totals = torch.zeros(3, device=self.device)
        batches = self.data.train.shuffled_batches(self.hyperparameters.batch_size, order)
        for step, (x, y) in enumerate(batches):
            # Drop-connect draws from the global generator; the attack from one of its own.
            torch.manual_seed(derive_seed(seed, "step", epoch, step))
            noise = make_generator(seed, "attack", epoch, step, device=self.device)
            totals += self._step(x, y, noise)
            reporter.step()
        loss, num_correct, num_seen = totals.tolist()
        return loss / num_seen, num_correct / num_seen

    def _step(self, x: Tensor, y: Tensor, noise: torch.Generator) -> Tensor:
        """Takes one step; returns summed loss, correct predictions and images, on the device."""
        x_adv = self.method.perturb(self.network, x, y, noise)
        self.network.train()
        loss, logits = self.method.loss(self.network, x, x_adv, y)
        self.optimizers.step(loss)
        num_correct = (logits.detach().argmax(dim=1) == y).sum()
        return torch.stack((loss.detach() * len(y), num_correct, torch.full_like(loss, len(y))))

    def _validate(self) -> tuple[float, float]:
        """Returns natural and robust accuracy on the held-out images."""
        noise = make_generator(self.config.seed, "validation", device=self.device)
        num_natural = torch.zeros((), device=self.device, dtype=torch.int64)
        num_robust = torch.zeros_like(num_natural)
        for x, y in self.data.validation.batches(self.hyperparameters.batch_size):
            num_natural += count_correct(self.network, x, y)
            x_adv = self.validation_attack(self.network, x, y, generator=noise)
            num_robust += count_correct(self.network, x_adv, y)
        num_images = len(self.data.validation)
        return int(num_natural) / num_images, int(num_robust) / num_images

    def _keep_best(self, row: dict[str, Any]) -> None:
        best = self.progress.best
        score = (row["validation_robust"], row["validation_natural"])
        if best and score <= (best["validation_robust"], best["validation_natural"]):
            return
        self.progress.best = {
            key: row[key] for key in ("epoch", "validation_natural", "validation_robust")
        }
        metadata = {"config": self.config.to_dict(), "epoch": row["epoch"]}
        save_weights(self.folder.best, self.network, metadata)

    def _save_checkpoint(self) -> None:
        save_checkpoint(
            self.folder.checkpoint,
            {
                "network": self.network.state_dict(),
                "optimizers": self.optimizers.state_dict(),
                "progress": vars(self.progress),
            },
        )

    def _write_record(self) -> Record:
        record = Record(
            run_id=self.config.run_id,
            config=self.config.to_dict(),
            architecture=self.config.architecture(
                self.data.image_shape, self.data.num_classes
            ).hash,
            num_params=self.network.graph.graph["num_params"],
            provenance={
                **collect_provenance(self.device, self.config.plugins),
                "data_fingerprint": self.data.fingerprint,
                "train_seconds": self.progress.seconds,
            },
            training={
                "epochs": self.progress.epoch,
                "num_train": len(self.data.train),
                "selected": {
                    **self.progress.best,
                    "num_samples": len(self.data.validation),
                    "attack": self.validation_attack.settings(),
                },
            },
        )
        write_atomically(self.folder.record, record.to_json().encode())
        return record


def count_correct(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Returns how many images a model in eval mode classifies correctly, on the device."""
    with attack_mode(model), torch.no_grad():
        num_correct: Tensor = (model(x).argmax(dim=1) == y).sum()
    return num_correct
