"""Lend a model to an attack and get it back unchanged."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import chain
from typing import Literal, TypeAlias, TypeGuard, get_args

import torch
from torch import Tensor, nn

# SyncBatchNorm and all BatchNorm*d; the base class has no public name.
from torch.nn.modules.batchnorm import _BatchNorm

Mode: TypeAlias = Literal["eval", "train", "keep"]


@contextmanager
def attack_mode(
    model: nn.Module, mode: Mode = "eval", *, fix_norms: bool = False
) -> Iterator[None]:
    """Prepare `model` for an attack; restore it afterwards, also after an exception.

    Inside, no parameter requires a gradient, so a backward pass computes the gradient of the
    images alone and leaves nothing in `.grad`. BatchNorm layers in training mode normalise with
    the statistics of the batch but do not update their running ones.

    Afterwards each submodule's training flag, each parameter's `requires_grad`, the BatchNorm
    statistics and the global random state (of the CPU and of the model's GPUs) are as before.

    Args:
        model: the model to attack.
        mode: `eval` or `train` puts the whole model in that mode, `keep` leaves its flags alone.
        fix_norms: let BatchNorm layers in eval mode compute what they are, one affine map a
            channel, whose coefficients are worked out here once for all steps of an attack. The
            backward pass is then a multiplication; results differ by rounding.

    Raises:
        ValueError: if `mode` is none of these.
    """
    if mode not in get_args(Mode):
        raise ValueError(f"mode must be one of {', '.join(get_args(Mode))}, got {mode!r}")
    was_training = [(module, module.training) for module in model.modules()]
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    tracking = [
        module
        for module in model.modules()
        if isinstance(module, _BatchNorm) and module.track_running_stats
    ]
    fixed: list[nn.Module] = []
    with torch.random.fork_rng(devices=_cuda_devices(model)):
        try:
            if mode != "keep":
                model.train(mode == "train")
            for parameter in trainable:
                parameter.requires_grad_(False)
            for norm in tracking:
                norm.track_running_stats = not norm.training
            if fix_norms:
                fixed.extend(_fix_norms(model))
            yield
        finally:
            for module in fixed:
                del vars(module)["forward"]
            for norm in tracking:
                norm.track_running_stats = True
            for parameter in trainable:
                parameter.requires_grad_(True)
            for module, training in was_training:
                module.training = training


def _fix_norms(model: nn.Module) -> Iterator[nn.Module]:
    """Give BatchNorm layers in eval mode a forward pass of their own; yield what was changed.

    A layer behind a convolution of its own, named by `conv_norm_pairs` of the module that holds
    both, becomes part of that convolution. The changes go with the instances' `forward`.
    """
    for parent in model.modules():
        for conv_name, norm_name in getattr(parent, "conv_norm_pairs", ()):
            conv, norm = parent.get_submodule(conv_name), parent.get_submodule(norm_name)
            if isinstance(conv, nn.Conv2d) and _is_fixable(norm):
                folded = partial(_folded_convolution, conv, *_fold(conv, norm))
                vars(conv)["forward"], vars(norm)["forward"] = folded, _identity
                yield from (conv, norm)
    for norm in model.modules():
        if _is_fixable(norm):
            vars(norm)["forward"] = partial(_affine_map, *_coefficients(norm))
            yield norm


def _is_fixable(norm: nn.Module) -> TypeGuard[_BatchNorm]:
    return (
        isinstance(norm, _BatchNorm)
        and not norm.training
        and norm.running_var is not None
        and "forward" not in vars(norm)
    )


def _coefficients(norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    """Return scale and shift of the affine map that a BatchNorm layer is in eval mode, (C,)."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = (norm.running_var + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.detach()
    shift = -norm.running_mean * scale
    return scale, shift if norm.bias is None else shift + norm.bias.detach()


def _fold(conv: nn.Conv2d, norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    """Return the weight and bias of convolution and norm in one."""
    scale, shift = _coefficients(norm)
    weight = conv.weight.detach() * scale.view(-1, 1, 1, 1)
    return weight, shift if conv.bias is None else shift + conv.bias.detach() * scale


def _folded_convolution(conv: nn.Conv2d, weight: Tensor, bias: Tensor, x: Tensor) -> Tensor:
    output: Tensor = conv._conv_forward(x, weight, bias)
    return output


def _affine_map(scale: Tensor, shift: Tensor, x: Tensor) -> Tensor:
    shape = (1, -1, *[1] * (x.ndim - 2))
    return torch.addcmul(shift.view(shape).to(x.dtype), x, scale.view(shape).to(x.dtype))


def _identity(x: Tensor) -> Tensor:
    return x


def _cuda_devices(model: nn.Module) -> list[int]:
    tensors = chain(model.parameters(), model.buffers())
    devices = {tensor.get_device() for tensor in tensors if tensor.is_cuda}
    # `torch.cuda.manual_seed` seeds the current device, which need not be the model's.
    return sorted(devices | {torch.cuda.current_device()}) if devices else []
