"""Lends a model to an attack and gets it back unchanged."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn

# SyncBatchNorm and all BatchNorm*d; the base class has no public name.
from torch.nn.modules.batchnorm import _BatchNorm

from .inputs import check_choice

Mode: TypeAlias = Literal["eval", "train", "keep"]


@contextmanager
def attack_mode(model: nn.Module, mode: Mode = "eval") -> Iterator[None]:
    """Prepares `model` for an attack; restores it afterwards, also after an exception.

    Inside, no parameter requires a gradient, so a backward pass computes the gradient of the
    images alone and leaves nothing in `.grad`. BatchNorm layers in training mode normalise with
    the statistics of the batch but do not update their running ones; what other modules in
    training mode write into their buffers is undone afterwards.

    Afterwards each submodule's training flag, each parameter's `requires_grad`, all buffers and the
    global random state (of the CPU and of the model's GPUs) are as before.

    Args:
        model: The model to attack.
        mode: `eval` or `train` puts the whole model in that mode, `keep` leaves its flags alone.

    Raises:
        ValueError: If `mode` is none of these.
    """
    check_choice("mode", mode, get_args(Mode))
    was_training = [(module, module.training) for module in model.modules()]
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    tracking = [
        module
        for module in model.modules()
        if isinstance(module, _BatchNorm) and module.track_running_stats
    ]
    with torch.random.fork_rng(devices=cuda_devices(model)):
        kept: list[tuple[Tensor, Tensor]] = []
        try:
            if mode != "keep":
                model.train(mode == "train")
            kept += _copy_buffers(module for module in model.modules() if module.training)
            for parameter in trainable:
                parameter.requires_grad_(False)
            for norm in tracking:
                norm.track_running_stats = not norm.training
            yield
        finally:
            with torch.no_grad():
                for buffer, content in kept:
                    buffer.copy_(content)
            for norm in tracking:
                norm.track_running_stats = True
            for parameter in trainable:
                parameter.requires_grad_(True)
            for module, training in was_training:
                module.training = training


def _copy_buffers(modules: Iterable[nn.Module]) -> list[tuple[Tensor, Tensor]]:
    """Returns what modules may write into, beside copies of it; BatchNorm layers do not now."""
    return [
        (buffer, buffer.clone())
        for module in modules
        if not isinstance(module, _BatchNorm)
        for buffer in module.buffers(recurse=False)
    ]


def cuda_devices(model: nn.Module) -> list[int]:
    """Returns the numbers of the GPUs whose random state work on the model may change."""
    tensors = chain(model.parameters(), model.buffers())
    devices = {tensor.get_device() for tensor in tensors if tensor.is_cuda}
    # `torch.cuda.manual_seed` seeds the current device, which need not be the model's.
    return sorted(devices | {torch.cuda.current_device()}) if devices else []
