"""One training step: attack on the bare network, loss through the wrapped one, optimizers."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from itertools import chain
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from nasbench_at.config import ResolvedConfig
from nasbench_at.runtime.ranks import Ranks
from nasbench_at.training.methods import Method, create_method
from nasbench_at.training.optimizers import Optimizers
from nasbench_at.training.precision import MixedPrecision
from nasbench_at.training.weight_perturbation import perturbed_weights

__all__ = ["TrainingStep"]


class TrainingStep:
    """A network with all that changes it.

    Args:
        network: The bare network on its device.
        config: How to train.
        ranks: This process's place among ranks.

    Attributes:
        network: The bare network; attacks and evaluation use it.
        optimizers: What moves its parameters.
        average: Exponential average of the network; None without ``ema_decay``.

    Raises:
        ValueError: If the method is unknown or lacks an option.
    """

    def __init__(
        self, network: nn.Module, config: ResolvedConfig, ranks: Ranks | None = None
    ) -> None:
        device = next(network.parameters()).device
        self.network = network
        self.config = config
        self.ranks = ranks or Ranks()
        self.wrapped = self.ranks.wrap(network, sync_batch_norm=config.sync_batch_norm)
        self.method: Method = create_method(config.method, config)
        self.optimizers = Optimizers.create(network, config)
        self.precision = MixedPrecision.create(config.precision, device)
        self.average = AveragedModel(network) if config.ema_decay else None

    @property
    def evaluated(self) -> nn.Module:
        """The network that is validated and kept: the average if there is one."""
        return self.network if self.average is None else self.average.module

    def __call__(self, x: Tensor, y: Tensor, noise: Generator, *, num_images: int) -> Tensor:
        """Takes one step; the host does not wait for the device.

        Args:
            x: This rank's clean images, shape ``(N, C, H, W)``.
            y: Their classes, shape ``(N,)``.
            noise: Source of the attack's randomness.
            num_images: Images of all ranks in this step.

        Returns:
            Summed loss, correct predictions and images of this rank, float64, shape ``(3,)``.
        """
        self.optimizers.zero_grad()
        totals = torch.zeros(3, dtype=torch.float64, device=x.device)
        num_parts = max(1, min(self.config.accumulation_steps, len(x) // 2))
        # Parts of equal sizes, give or take one: none is left with an image alone.
        parts = list(zip(x.tensor_split(num_parts), y.tensor_split(num_parts), strict=True))
        for i, (images, labels) in enumerate(parts):
            with self._gradient_sync(is_last=i + 1 == len(parts)):
                totals += self._backward(images, labels, noise, num_images)
        self.optimizers.step(self.precision.scaler)
        if not self.config.sync_batch_norm:  # with it, ranks have equal statistics already
            self.ranks.share_buffers(self.network)
        if self.average is not None:
            update_average(self.average, self.network, self.config.ema_decay)
        return totals

    def _backward(self, x: Tensor, y: Tensor, noise: Generator, num_images: int) -> Tensor:
        with self.precision.autocast():
            x_adv = self.method.perturb(self.network, x, y, noise)
            self.network.train()

        def loss_of(network: nn.Module) -> tuple[Tensor, Tensor]:
            with self.precision.autocast():
                loss, logits = self.method.loss(network, x, x_adv, y)
            return loss, logits

        gamma = self.config.awp_gamma
        with perturbed_weights(self.network, lambda: loss_of(self.network)[0], gamma):
            loss, logits = loss_of(self.wrapped)
            # Ranks' gradients are averaged: so weighted, the average is that of the whole batch,
            # whatever each rank's share of it.
            share = len(y) * self.ranks.world_size / num_images
            torch.autograd.backward(self.precision.scaler.scale(loss * share))
        num_correct = (logits.detach().argmax(dim=1) == y).sum()
        summed = loss.detach().double() * len(y)
        return torch.stack((summed, num_correct.double(), torch.full_like(summed, len(y))))

    def _gradient_sync(self, *, is_last: bool) -> AbstractContextManager[Any]:
        """Lets ranks exchange gradients in the last part of a batch only."""
        if isinstance(self.wrapped, DistributedDataParallel) and not is_last:
            return self.wrapped.no_sync()
        return nullcontext()

    def state_dict(self) -> dict[str, Any]:
        """Returns weights, optimizers, loss scale and average."""
        return {
            "network": self.network.state_dict(),
            "optimizers": self.optimizers.state_dict(),
            "scaler": self.precision.scaler.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what :meth:`state_dict` returned."""
        self.network.load_state_dict(state["network"])
        self.optimizers.load_state_dict(state["optimizers"])
        self.precision.scaler.load_state_dict(state["scaler"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])


@torch.no_grad()
def update_average(average: AveragedModel, network: nn.Module, decay: float) -> None:
    """Moves an exponential average towards a network; the first time it becomes the network.

    ``AveragedModel.update_parameters`` copies its counter from the CPU each time, for which the
    host waits.
    """
    averaged = chain(average.module.parameters(), average.module.buffers())
    present = chain(network.parameters(), network.buffers())
    pairs = list(zip(averaged, present, strict=True))
    floats = [pair for pair in pairs if pair[0].is_floating_point()]
    others = [pair for pair in pairs if not pair[0].is_floating_point()]
    is_first = bool(average.n_averaged == 0)  # on the CPU
    torch._foreach_lerp_(
        [old for old, _ in floats], [new for _, new in floats], 1.0 if is_first else 1 - decay
    )
    for old, new in others:
        old.copy_(new if is_first else old * decay + new * (1 - decay))
    average.n_averaged += 1
