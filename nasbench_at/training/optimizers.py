"""The two optimizers of Algorithm 1: SGD for the blocks, Adam for the attention logits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from nasbench_at.config import Hyperparameters
from nasbench_at.training.schedules import milestone_rate

__all__ = ["Optimizers"]


@dataclass(frozen=True)
class Optimizers:
    """Optimizers that step together on the same loss (Eq. 7 of the paper: joint, not bilevel).

    The schedule moves the blocks' rate alone; the logits' is constant, as in the authors' code.

    Attributes:
        blocks: SGD on every parameter but the logits.
        attention: Adam on the logits; None if they are fixed or the network has none.
        hyperparameters: Rates, decays and schedule.
    """

    blocks: torch.optim.SGD
    attention: torch.optim.Adam | None
    hyperparameters: Hyperparameters

    @classmethod
    def create(cls, network: nn.Module, hyperparameters: Hyperparameters) -> Optimizers:
        """Builds the optimizers of a network.

        Args:
            network: One with ``block_parameters`` and ``attention_parameters`` if it has attention
                weights.
            hyperparameters: Rates, decays and schedule.
        """
        logits = [p for p in _parameters(network, "attention_parameters", ()) if p.requires_grad]
        attention = None
        if logits:
            attention = torch.optim.Adam(
                logits,
                lr=hyperparameters.attention_lr,
                betas=hyperparameters.attention_betas,
                weight_decay=hyperparameters.attention_weight_decay,
            )
        blocks = torch.optim.SGD(
            list(_parameters(network, "block_parameters", network.parameters())),
            lr=hyperparameters.lr,
            momentum=hyperparameters.momentum,
            weight_decay=hyperparameters.weight_decay,
        )
        return cls(blocks, attention, hyperparameters)

    def set_epoch(self, epoch: int) -> float:
        """Sets and returns the blocks' learning rate of an epoch, counted from 1."""
        values = self.hyperparameters
        rate = milestone_rate(epoch, values.lr, values.milestones, values.milestone_factors)
        for group in self.blocks.param_groups:
            group["lr"] = rate
        return rate

    def step(self, loss: torch.Tensor) -> None:
        """Takes one step of every optimizer down the gradient of a loss."""
        for optimizer in self:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        for optimizer in self:
            optimizer.step()

    def __iter__(self) -> Iterator[torch.optim.Optimizer]:
        yield self.blocks
        if self.attention is not None:
            yield self.attention

    def state_dict(self) -> list[dict[str, Any]]:
        """Returns the optimizers' states."""
        return [optimizer.state_dict() for optimizer in self]

    def load_state_dict(self, states: Iterable[dict[str, Any]]) -> None:
        """Restores the states that :meth:`state_dict` returned."""
        for optimizer, state in zip(self, states, strict=True):
            optimizer.load_state_dict(state)


def _parameters(
    network: nn.Module, method: str, default: Iterable[nn.Parameter]
) -> Iterable[nn.Parameter]:
    group = getattr(network, method, None)
    parameters: Iterable[nn.Parameter] = default if group is None else group()
    return parameters
