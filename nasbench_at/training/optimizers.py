"""The two optimizers of Algorithm 1: SGD for the blocks, Adam for the attention logits."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import nn

from nasbench_at.config import OptimizerImpl, ResolvedConfig

__all__ = ["Optimizers", "check_optimizer_impl", "find_apex"]

APEX_HINT = (
    "NVIDIA apex is not on PyPI: build it from its repository (github.com/NVIDIA/apex) with "
    "APEX_CUDA_EXT=1, or use --optimizer-impl fused"
)


@dataclass(frozen=True)
class Optimizers:
    """Optimizers that step together on the same loss (Eq. 7 of the paper: joint, not bilevel).

    The schedule moves the blocks' rate alone; the logits' is constant, as in the authors' code.

    Attributes:
        blocks: SGD on every parameter that learns but the logits.
        attention: Adam on the logits; None if they are fixed or the network has none.
    """

    blocks: torch.optim.Optimizer
    attention: torch.optim.Optimizer | None

    @classmethod
    def create(cls, network: nn.Module, config: ResolvedConfig) -> Optimizers:
        """Builds the optimizers of a network.

        Args:
            network: One with ``block_parameters`` and ``attention_parameters`` if it has attention
                weights.
            config: Rates, decays, and whose implementation: torch's own, its fused kernels, apex's.

        Raises:
            ValueError: If apex is asked for and not there.
        """
        sgd, adam = _classes(config.optimizer_impl)
        logits = [p for p in _parameters(network, "attention_parameters", ()) if p.requires_grad]
        attention = None
        if logits:
            attention = adam(
                logits,
                lr=config.attention_lr,
                betas=config.attention_betas,
                weight_decay=config.attention_weight_decay,
            )
        rest = _parameters(network, "block_parameters", network.parameters())
        blocks = sgd(
            [p for p in rest if p.requires_grad],
            lr=config.lr,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
        )
        if config.optimizer_impl == "fused" and config.momentum:
            # torch leaves them uninitialised if the first loss overflows in fp16.
            for parameter in blocks.param_groups[0]["params"]:
                blocks.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        return cls(blocks, attention)

    def set_rate(self, rate: float) -> None:
        """Sets the blocks' learning rate."""
        for group in self.blocks.param_groups:
            group["lr"] = rate

    def zero_grad(self) -> None:
        """Drops all gradients."""
        for optimizer in self:
            optimizer.zero_grad(set_to_none=True)

    def step(self, scaler: torch.amp.GradScaler) -> None:
        """Takes one step of every optimizer, down gradients of a loss scaled by ``scaler``."""
        for optimizer in self:
            scaler.step(optimizer)
        scaler.update()

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


def find_apex() -> Any:
    """Returns NVIDIA's ``apex.optimizers``.

    Raises:
        ValueError: If apex is absent, is the unrelated package of that name on PyPI, or lacks the
            fused optimizers; the message says what to install.
    """
    if importlib.util.find_spec("apex") is None:
        raise ValueError(f"apex is not installed. {APEX_HINT}")
    try:
        optimizers = importlib.import_module("apex.optimizers")
    except ImportError:
        optimizers = None
    if not (hasattr(optimizers, "FusedSGD") and hasattr(optimizers, "FusedAdam")):
        try:
            found = f"apex {version('apex')}"
        except PackageNotFoundError:
            found = "a module named apex"
        raise ValueError(
            f"{found} is installed, which is not NVIDIA's (PyPI's apex is an unrelated web "
            f"toolkit). {APEX_HINT}"
        )
    return optimizers


def check_optimizer_impl(impl: OptimizerImpl, device: torch.device) -> None:
    """Checks that an implementation is there and works on a device.

    Raises:
        ValueError: If not.
    """
    if impl == "apex":
        find_apex()
        if device.type != "cuda":
            raise ValueError(f"optimizer_impl 'apex' needs a GPU, got device {device.type!r}")


def _classes(impl: OptimizerImpl) -> tuple[Any, Any]:
    if impl == "apex":
        apex = find_apex()
        # Plain Adam adds the decay to the gradient; FusedAdam does so with adam_w_mode off.
        return apex.FusedSGD, _with(apex.FusedAdam, adam_w_mode=False)
    if impl == "fused":
        return _with(torch.optim.SGD, fused=True), _with(torch.optim.Adam, fused=True)
    return torch.optim.SGD, torch.optim.Adam


def _with(optimizer: Any, **options: Any) -> Any:
    def build(parameters: list[nn.Parameter], **values: Any) -> Any:
        return optimizer(parameters, **values, **options)

    return build


def _parameters(
    network: nn.Module, method: str, default: Iterable[nn.Parameter]
) -> Iterable[nn.Parameter]:
    group = getattr(network, method, None)
    parameters: Iterable[nn.Parameter] = default if group is None else group()
    return parameters
