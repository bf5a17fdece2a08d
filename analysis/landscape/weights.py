"""A model whose weights move in a plane, as fast as that goes, and come back bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from analysis.landscape.directions import Direction
from nasbench_at.attacks.folding import folded_norms

__all__ = ["Move", "moving_weights"]

Move = Callable[[Sequence[float]], None]
"""Puts the weights at W* plus the directions times these coordinates."""


class _Slot(NamedTuple):
    """A place in the model where a moved parameter stands."""

    module: str
    attribute: str


@contextmanager
def moving_weights(
    model: nn.Module,
    directions: Sequence[Direction],
    *,
    images: Tensor,
) -> Iterator[Move]:
    """Lets a model's weights move along directions; afterwards they are what they were.

    All moved weights lie in one buffer, which two additions set for a point. The parameters' own
    memory is never written: they only look elsewhere meanwhile.

    BatchNorm layers and the convolutions before them are computed as one. As the norms stay, a
    folded convolution is linear in its weight, so that weights and directions are folded once and
    not at each point.

    Args:
        model: In eval mode.
        directions: What is added to the weights, all of the same parameters.
        images: What the model takes, shape ``(N, ...)``.
    """
    parameters = {name: model.get_parameter(name) for name in directions[0]}
    originals = {name: parameter.data for name, parameter in parameters.items()}
    slots = _find_slots(model, parameters)
    try:
        buffers = []
        for values in (originals, *directions):
            for name, parameter in parameters.items():
                parameter.data = values[name].to(originals[name].device)
            with folded_norms(model, images), torch.no_grad():
                buffers.append(torch.cat([_flatten(_tensor_at(model, slot)) for slot in slots]))
        base, *steps = buffers
        current = base.clone()

        @torch.no_grad()
        def move(coordinates: Sequence[float]) -> None:
            current.copy_(base)
            for coordinate, step in zip(coordinates, steps, strict=True):
                current.add_(step, alpha=coordinate)

        with folded_norms(model, images):
            _look_into(model, slots, current)
            yield move
    finally:
        for name, parameter in parameters.items():
            parameter.data = originals[name]


def _find_slots(model: nn.Module, parameters: Mapping[str, nn.Parameter]) -> list[_Slot]:
    """Finds all places of the parameters; one that modules share has several."""
    moved = set(map(id, parameters.values()))
    return [
        _Slot(path, attribute)
        for path, module in model.named_modules()
        for attribute, parameter in module.named_parameters(recurse=False, remove_duplicate=False)
        if id(parameter) in moved
    ]


def _tensor_at(model: nn.Module, slot: _Slot) -> Tensor:
    """The parameter itself, or the tensor that stands in its place in a folded convolution."""
    tensor: Tensor = getattr(model.get_submodule(slot.module), slot.attribute)
    return tensor


def _look_into(model: nn.Module, slots: Sequence[_Slot], buffer: Tensor) -> None:
    """Makes every slot a view of its part of the buffer."""
    start = 0
    for slot in slots:
        tensor = _tensor_at(model, slot)
        view = _unflatten(buffer[start : start + tensor.numel()], tensor.shape)
        start += tensor.numel()
        if isinstance(tensor, nn.Parameter):
            tensor.data = view
        else:
            setattr(model.get_submodule(slot.module), slot.attribute, view)


# Convolutions are fastest with the channels of filters and images next to each other.
def _flatten(weight: Tensor) -> Tensor:
    return (weight.permute(0, 2, 3, 1) if weight.ndim == 4 else weight).reshape(-1)


def _unflatten(values: Tensor, shape: torch.Size) -> Tensor:
    if len(shape) != 4:
        return values.view(shape)
    filters, channels, height, width = shape
    return values.view(filters, height, width, channels).permute(0, 3, 1, 2)
