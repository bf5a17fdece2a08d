"""A model that attacks may call in the place of another one, computed by a fused program."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from nasbench_at.attacks.folding import (
    attempt,
    describe_structure,
    is_foldable,
    is_replayable,
    logits_and_gradient,
)
from nasbench_at.attacks.protocol import Network
from nasbench_at.runtime.devices import uncompiled

from .fusing import fuse
from .program import Program
from .recording import held_tensors, record

__all__ = ["fused"]

# Entries of all tensors. Smaller networks would win a quarter of an attack, too, but runs that were
# recorded with them, as those of the shipped tables, could no longer be trained again to the bit.
_MIN_SIZE = 500_000
_NUM_RECORDED = 3
_LOGIT_TOLERANCE = 0.01
_GRADIENT_TOLERANCE = 0.1  # rounding turns the sign of a few ReLUs' inputs


def fused(model: nn.Module, x: Tensor) -> Network:
    """Returns what computes a model's logits and the gradient of its images faster.

    A DS-Net in an attack spends as much time on passes over memory as on convolutions: on sums of
    blocks, norms, attention weights, ReLUs and the casts of mixed precision. What it does is
    recorded once and turned into a program with less of them, see :func:`fuse <.fusing.fuse>`.
    Results differ by rounding. They are compared with the model's own, for the first batch of each
    size.

    The model itself is returned where that cannot or shall not be done: if the images are not
    float32 on the CPU, or the model is not in eval mode, does not say by ``is_replayable`` that it
    is the same operations each time, has hooks, computes what cannot be recorded, or is small; or
    if the processor has no convolutions in the precision of autocast.

    Args:
        model: The model, within :func:`attack_mode` and :func:`folded_norms`, whose weights are not
            changed as long as the result is used.
        x: Images that will be attacked, (N, C, H, W).
    """
    if not _can_fuse(model, x):
        return model
    known = _KNOWN.get(model)
    structure = describe_structure(dict(model.named_modules()))
    if known is None or known.structure != structure:
        _KNOWN[model] = known = _Known(structure)
    key = _Key.of(x)
    with uncompiled():
        if key not in known.programs:
            known.programs[key] = attempt(lambda: _make_program(model, x))
        if (program := known.programs[key]) is None:
            return model
        if (key, len(x)) in known.confirmed:
            return _Fused(program, model, len(x))
        network = attempt(lambda: _try_out(program, model, x))
    if network is None:
        known.programs[key] = None
        return model
    known.confirmed.add((key, len(x)))
    return network


class _Key(NamedTuple):
    """What a program depends on besides the model."""

    shape: torch.Size
    is_channels_last: bool
    low_precision: torch.dtype | None

    @classmethod
    def of(cls, x: Tensor) -> _Key:
        in_autocast = torch.is_autocast_enabled(x.device.type)
        return cls(
            x.shape[1:],
            x.stride(1) == 1,
            torch.get_autocast_dtype(x.device.type) if in_autocast else None,
        )


@dataclass
class _Known:
    """Programs of a model of some structure, and the sizes of batches for which they agree."""

    structure: Any
    programs: dict[_Key, Program | None] = field(default_factory=dict)
    confirmed: set[tuple[_Key, int]] = field(default_factory=set)


_KNOWN: WeakKeyDictionary[nn.Module, _Known] = WeakKeyDictionary()


def _can_fuse(model: nn.Module, x: Tensor) -> bool:
    return (
        x.is_cpu
        and x.ndim == 4
        and len(x) > 0
        and x.dtype == torch.float32
        and _has_convolutions(_Key.of(x).low_precision)
        and is_replayable(model)
        and is_foldable(model)
        and not any(module.training for module in model.modules())
        and sum(tensor.numel() for tensor in held_tensors(model).values()) >= _MIN_SIZE
    )


def _has_convolutions(low_precision: torch.dtype | None) -> bool:
    """Whether oneDNN has packed convolutions of a precision on this processor."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    match low_precision:
        case torch.bfloat16:
            return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
        case torch.float16:
            return bool(torch.ops.mkldnn._is_mkldnn_fp16_supported())
        case _:
            return True


def _make_program(model: nn.Module, x: Tensor) -> Program:
    examples = x.detach()[torch.arange(_NUM_RECORDED) % len(x)]
    return fuse(record(model, examples))


def _try_out(program: Program, model: nn.Module, x: Tensor) -> Network | None:
    """Returns a model's program with its weights; None if it computes something else."""
    network = _Fused(program, model, len(x))
    return network if _agree(network, model, x) else None


class _Fused:
    """A model's program with what its weights are now."""

    def __init__(self, program: Program, model: nn.Module, num_images: int) -> None:
        self._program = program
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            self._prepared = program.prepare(held_tensors(model), num_images)

    def __call__(self, x: Tensor) -> Tensor:
        return cast(Tensor, _Pass.apply(x, self._program, self._prepared))


class _Pass(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, program: Program, prepared: list[Tensor]) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            logits, taken = program.forward(prepared, x)
        ctx.program, ctx.taken = program, taken
        return logits

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, seed: Tensor) -> tuple[Tensor, None, None]:
        with torch.autocast("cpu", enabled=False):
            return ctx.program.backward(ctx.taken, seed), None, None


def _agree(network: Network, model: nn.Module, x: Tensor) -> bool:
    """Whether a network is as close to a model in full precision as the model itself is."""
    with torch.autocast("cpu", enabled=False):
        exact = logits_and_gradient(model, x)
    plain = logits_and_gradient(model, x)
    found = logits_and_gradient(network, x)
    tolerances = (_LOGIT_TOLERANCE, _GRADIENT_TOLERANCE)
    return all(
        bool((own - best).norm() <= 2 * (usual - best).norm() + tolerance * best.norm())
        for own, usual, best, tolerance in zip(found, plain, exact, tolerances, strict=True)
    )
