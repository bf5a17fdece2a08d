"""Which loss, of which parameters: the choices behind every gradient of the analysis."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn

from nasbench_at.attacks import attack_mode
from nasbench_at.config import ResolvedConfig
from nasbench_at.config.suggestions import near_names
from nasbench_at.training.methods import (
    AdversarialTraining,
    Method,
    StandardTraining,
    create_method,
    training_attack,
)

__all__ = ["Loss", "choose_method", "flatten", "gradients_of", "select_parameters"]

Loss: TypeAlias = Literal["natural", "adversarial", "training"]


def choose_method(config: ResolvedConfig, loss: Loss) -> Method:
    """Returns how a run's batches become a loss.

    Args:
        config: The run's configuration, its plugins loaded.
        loss: ``natural`` is the cross entropy of the clean images, ``adversarial`` that of the
            training attack's images, ``training`` what the run minimised, in its last epoch.

    Raises:
        ValueError: If ``loss`` is none of these.
    """
    if loss not in get_args(Loss):
        raise ValueError(f"loss must be one of {', '.join(get_args(Loss))}, got {loss!r}")
    if loss == "natural":
        return StandardTraining()
    if loss == "adversarial":
        return AdversarialTraining(training_attack(config))
    return create_method(config.method, config).start_epoch(config.epochs)


def select_parameters(model: nn.Module, layer: str) -> tuple[str, ...]:
    """Returns the names of the parameters that a layer's name stands for.

    Args:
        model: The network.
        layer: ``last`` for the last linear layer, ``all`` for every parameter that is trained, or
            the first words of parameters' names, such as ``stages.0.blocks.1``.

    Raises:
        ValueError: If there is no such parameter; the message lists near matches.
    """
    if layer == "all":
        names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    elif layer == "last":
        linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
        names = _parameters_below(model, linear[-1]) if linear else []
    else:
        names = _parameters_below(model, layer)
    if not names:
        raise ValueError(f"layer {layer!r} has no parameters; {_suggest(model, layer)}")
    return tuple(names)


def _parameters_below(model: nn.Module, prefix: str) -> list[str]:
    return [
        name
        for name, _ in model.named_parameters()
        if not prefix or name == prefix or name.startswith(f"{prefix}.")
    ]


def _suggest(model: nn.Module, layer: str) -> str:
    modules = [name for name, _ in model.named_modules() if name]
    near = near_names(layer, modules)
    hint = f"did you mean {near}? " if near else ""
    children = ", ".join(name for name, _ in model.named_children())
    return f"{hint}it must be last, all, or lie below {children or 'the model itself'}"


@contextmanager
def gradients_of(model: nn.Module, names: Sequence[str]) -> Iterator[list[nn.Parameter]]:
    """Puts a model in eval mode with these parameters alone requiring a gradient.

    What comes before them is then computed without a graph, and a backward pass ends at them.
    Afterwards the model is as before, see :func:`nasbench_at.attacks.attack_mode`.
    """
    with attack_mode(model), torch.enable_grad():
        parameters = [model.get_parameter(name) for name in names]
        try:
            for parameter in parameters:
                parameter.requires_grad_(True)
            yield parameters
        finally:
            for parameter in parameters:
                parameter.requires_grad_(False)


def flatten(tensors: Sequence[Tensor]) -> Tensor:
    """Returns all entries in one float64 vector, detached."""
    return torch.cat([tensor.detach().double().reshape(-1) for tensor in tensors])
