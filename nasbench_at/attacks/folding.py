"""Convolution and norm, computed as one for the length of an attack."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias, TypeGuard, TypeVar
from weakref import WeakKeyDictionary, WeakSet

import torch
from torch import Tensor, nn

# SyncBatchNorm and all BatchNorm*d; the base class has no public name.
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.module import _has_any_global_hook
from torch.nn.utils import parametrize

from nasbench_at.runtime.devices import uncompiled, without_tf32

from .conv_norm_pairs import find_conv_norm_pairs
from .guard import cuda_devices
from .protocol import Network

T = TypeVar("T")
Coefficients: TypeAlias = tuple[Tensor, Tensor]
StandIns: TypeAlias = dict[nn.Module, nn.Module]

# With all norms in eval mode, these compute one affine map a channel. A class that overrides them,
# such as timm's BatchNormAct2d, computes something else.
_NORM_FORWARDS = (_BatchNorm.forward, nn.SyncBatchNorm.forward)
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
# What every module has and no forward pass depends on.
_ASIDE = vars(nn.Module()).keys() - {"training", "_parameters", "_buffers", "_modules", *_HOOKS}
_NUM_TRIED = 2
_PLAIN = frozenset({bool, int, float, str, type(None)})
# Rounding turns the sign of a few ReLUs' inputs, which the gradient sees; a convolution that was
# folded wrongly gives another function.
_GRADIENT_TOLERANCE = 0.1


class _Plan(NamedTuple):
    """What may be replaced, by the modules' names."""

    norms: frozenset[str]
    pairs: Mapping[str, str]


_KEEP_ALL = _Plan(frozenset(), {})


@contextmanager
def folded_norms(model: nn.Module, x: Tensor) -> Iterator[None]:
    """Lets BatchNorm layers in eval mode be what they compute: one affine map a channel.

    Its coefficients are worked out once, for all steps of an attack, and its backward pass is a
    multiplication. A layer behind a convolution of its own becomes part of that convolution.
    Results differ by rounding. A layer stays if it has hooks or parametrisations, or its class has
    a `forward` of its own.

    Which convolution stands before which norm is seen in a forward pass on two images, tried out,
    and remembered until the model's structure changes. As a forward pass may depend on how many
    images it is given, the logits of the first batch of each size are compared too. One that
    depends on what is in the images, too, is found by :func:`folding_agrees`, by which
    :func:`nasbench_at.evaluation.robustness.measure_robustness` compares the logits of all of its
    images.

    Inside, other modules stand in the place of these layers. They are of the same types and shapes
    in every attack, so that code compiled for one serves the next.

    Args:
        model: The model, in the mode in which it will be attacked.
        x: Images that it can be tried out with, (N, ...).
    """
    modules = dict(model.named_modules())
    chosen = {name: module for name, module in modules.items() if _is_exact(module)}
    if not chosen or not is_foldable(model):
        yield
        return
    plan = _remembered_plan(model, modules, x)
    maps = {
        norm: _coefficients(norm, norm.weight, norm.bias)
        for name, norm in chosen.items()
        if name in plan.norms
    }
    with _replaced(model, _stand_ins(maps, _planned_pairs(plan, modules, maps))):
        yield


def folding_agrees(model: nn.Module, x: Tensor) -> bool:
    """Returns whether :func:`folded_norms` leaves a model's logits for some images what they are.

    Args:
        model: The model, in the mode in which it will be attacked.
        x: The images, (N, ...).
    """
    with torch.random.fork_rng(devices=cuda_devices(model)), without_tf32():
        plain = _compute_logits(model, x, {})

        def compare() -> bool:
            with folded_norms(model, x):
                return _is_close(_compute_logits(model, x, {}), plain)

        return bool(attempt(compare))


def never_fold(model: nn.Module) -> None:
    """Makes :func:`folded_norms` leave a model as it is from now on, and attacks fuse nothing."""
    _UNFOLDED.add(model)


def is_foldable(model: nn.Module) -> bool:
    """Returns whether :func:`never_fold` was not called for a model."""
    return model not in _UNFOLDED


def is_replayable(model: nn.Module) -> bool:
    """Returns whether a model says that it is the same operations each time, and nobody looks on.

    A hook would be called no more. What stands in the place of a module's `forward` says nothing.
    """
    return (
        bool(getattr(model, "is_replayable", False))
        and not _has_any_global_hook()  # type: ignore[no-untyped-call]
        and not any(
            vars(module).get(name) for module in model.modules() for name in ("forward", *_HOOKS)
        )
    )


class AffineMap(nn.Module):
    """A BatchNorm layer in eval mode: scale times input plus shift, channel by channel."""

    def __init__(self, scale: Tensor, shift: Tensor) -> None:
        super().__init__()
        self.scale, self.shift = scale, shift

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, C, ...) to the same shape."""
        shape = (1, -1, *[1] * (x.ndim - 2))
        scale, shift = self.scale.view(shape).to(x.dtype), self.shift.view(shape).to(x.dtype)
        return torch.addcmul(shift, x, scale)


def _is_exact(module: nn.Module) -> TypeGuard[_BatchNorm]:
    """Whether a layer computes an affine map of fixed coefficients and nothing else."""
    return (
        isinstance(module, _BatchNorm)
        and not module.training
        and module.running_var is not None
        and (
            type(module).forward in _NORM_FORWARDS
            or getattr(type(module), "is_affine_in_eval_mode", False)
        )
        and _is_untouched(module)
    )


def _is_plain_convolution(module: nn.Module) -> TypeGuard[nn.Conv2d]:
    """A convolution whose weight is a parameter, not computed from others as spectral norm does."""
    return (
        isinstance(module, nn.Conv2d)
        and "weight" in module._parameters
        and "bias" in module._parameters
        and _is_untouched(module)
    )


def _is_untouched(module: nn.Module) -> bool:
    return (
        "forward" not in vars(module)
        and not parametrize.is_parametrized(module)
        and not any(vars(module).get(hooks) for hooks in _HOOKS)
    )


@torch.no_grad()
def _coefficients(norm: _BatchNorm, weight: Tensor | None, bias: Tensor | None) -> Coefficients:
    """Returns scale and shift of the affine map that a BatchNorm layer is in eval mode, (C,)."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = (norm.running_var + norm.eps).rsqrt()
    if weight is not None:
        scale = scale * weight
    shift = -norm.running_mean * scale
    return scale, shift if bias is None else shift + bias


def _fold(conv: nn.Conv2d, scale: Tensor, shift: Tensor) -> nn.Conv2d:
    """Returns convolution and affine map in one, with tensors for parameters."""
    bias = shift if conv.bias is None else shift + conv.bias.detach() * scale
    folded = copy.copy(conv)
    vars(folded)["_parameters"] = {}
    vars(folded).update(weight=conv.weight.detach() * scale.view(-1, 1, 1, 1), bias=bias)
    return folded


def _stand_ins(
    maps: Mapping[_BatchNorm, Coefficients], pairs: Mapping[nn.Conv2d, _BatchNorm]
) -> StandIns:
    """Returns what stands in the place of which module."""
    stand_ins: StandIns = {norm: AffineMap(*both).eval() for norm, both in maps.items()}
    for conv, norm in pairs.items():
        stand_ins[conv] = _fold(conv, *maps[norm])
        stand_ins[norm] = nn.Identity().eval()
    return stand_ins


@contextmanager
def _replaced(model: nn.Module, stand_ins: StandIns) -> Iterator[None]:
    """Puts other modules in the place of some, wherever in the model these are held."""
    places = [
        (parent._modules, name, child)
        for parent in list(model.modules())
        for name, child in parent._modules.items()
        if child in stand_ins
    ]
    try:
        for holder, name, child in places:
            holder[name] = stand_ins[child]
        yield
    finally:
        for holder, name, child in places:
            holder[name] = child


@dataclass
class _Known:
    """What was found out about a model of some structure, and which shapes of batches agree."""

    structure: Any
    plan: _Plan
    shapes: set[torch.Size] = field(default_factory=set)


_PLANS: WeakKeyDictionary[nn.Module, _Known] = WeakKeyDictionary()
_UNFOLDED: WeakSet[nn.Module] = WeakSet()


def _remembered_plan(model: nn.Module, modules: Mapping[str, nn.Module], x: Tensor) -> _Plan:
    structure = describe_structure(modules)
    known = _PLANS.get(model)
    if known is None or known.structure != structure:
        with _trial(model, x):
            plan = _make_plan(model, modules, x[:_NUM_TRIED].detach())
        _PLANS[model] = known = _Known(structure, plan)
    if x.shape not in known.shapes:
        with _trial(model, x):
            known.plan = _confirm_plan(model, modules, x, known.plan)
        known.shapes.add(x.shape)
    return known.plan


def describe_structure(modules: Mapping[str, nn.Module]) -> list[Any]:
    """Returns what decides what a model's forward pass does, besides the numbers in its tensors.

    These are its modules' names, classes and attributes, which tensors there are, of which shapes
    and types, and which of them, and of the modules, are the same one. A list to which each forward
    pass adds makes it another model each time. It keeps nothing alive.
    """
    seen: dict[int, int] = {}
    return [
        [
            name,
            type(module),
            *(_describe(item, seen) for item in vars(module).items() if item[0] not in _ASIDE),
        ]
        for name, module in modules.items()
    ]


def _describe(value: Any, seen: dict[int, int]) -> Any:
    """Returns what an attribute is; functions and other objects are known by their identity."""
    if type(value) in _PLAIN:
        return value
    if isinstance(value, dict):
        return [(_describe(key, seen), _describe(entry, seen)) for key, entry in value.items()]
    if isinstance(value, list | tuple):
        return [_describe(entry, seen) for entry in value]
    if isinstance(value, Tensor):
        return seen.setdefault(id(value), len(seen)), value.shape, value.dtype
    if isinstance(value, nn.Module):
        return seen.setdefault(id(value), len(seen))
    return sorted(map(repr, value)) if isinstance(value, set | frozenset) else id(value)


def _make_plan(model: nn.Module, modules: Mapping[str, nn.Module], x: Tensor) -> _Plan:
    """Finds out what can be replaced, by running the model with and without."""
    names = {module: name for name, module in modules.items()}
    maps = _draw_maps(m for m in modules.values() if _is_exact(m))
    convs = [m for m in modules.values() if _is_plain_convolution(m)]

    def search() -> dict[nn.Conv2d, _BatchNorm]:
        with torch.enable_grad():
            return find_conv_norm_pairs(model, x.clone().requires_grad_(), convs, maps)

    pairs = attempt(search)
    expected = attempt(lambda: _try_out(model, x, _stand_ins(maps, {})))
    if pairs is None or expected is None:
        return _KEEP_ALL
    agrees = attempt(lambda: _agree(_try_out(model, x, _stand_ins(maps, pairs)), expected))
    return _Plan(
        frozenset(names[norm] for norm in maps),
        {names[conv]: names[norm] for conv, norm in pairs.items()} if agrees else {},
    )


def _confirm_plan(
    model: nn.Module, modules: Mapping[str, nn.Module], x: Tensor, plan: _Plan
) -> _Plan:
    """Returns what of a plan holds for a whole batch, going by its logits."""
    maps = _draw_maps(m for name, m in modules.items() if name in plan.norms and _is_exact(m))
    pairs = _planned_pairs(plan, modules, maps)
    expected = attempt(lambda: _compute_logits(model, x, _stand_ins(maps, {})))
    if expected is None:
        return _KEEP_ALL
    agrees = attempt(
        lambda: _is_close(_compute_logits(model, x, _stand_ins(maps, pairs)), expected)
    )
    return plan if agrees else plan._replace(pairs={})


def attempt(compute: Callable[[], T]) -> T | None:
    """Returns what a function computes; None if the model's code fails in it."""
    try:
        return compute()
    except (torch.OutOfMemoryError, MemoryError):
        raise  # says nothing about the model
    except Exception:  # noqa: BLE001 - whatever a model's code raises
        return None


def _planned_pairs(
    plan: _Plan, modules: Mapping[str, nn.Module], maps: Mapping[_BatchNorm, Coefficients]
) -> dict[nn.Conv2d, _BatchNorm]:
    """Returns a plan's modules, as far as both can be folded as they are now."""
    return {
        conv: norm
        for conv_name, norm_name in plan.pairs.items()
        if _is_plain_convolution(conv := modules[conv_name])
        and isinstance(norm := modules[norm_name], _BatchNorm)
        and norm in maps
    }


@contextmanager
def _trial(model: nn.Module, x: Tensor) -> Iterator[None]:
    """Lets a model run as it was written, in full precision, with no trace in the random state."""
    # TF32 rounds more coarsely than what tells a convolution that was folded wrongly.
    with (
        without_tf32(),
        torch.random.fork_rng(devices=cuda_devices(model)),
        torch.autocast(x.device.type, enabled=False),
        uncompiled(),
    ):
        yield


def _draw_maps(norms: Iterable[_BatchNorm]) -> dict[_BatchNorm, Coefficients]:
    """Returns maps of norms whose weights and biases were drawn.

    Norms that were not trained yet are nearly the identity, with which every way of folding agrees.
    """
    generator = torch.Generator().manual_seed(0)
    maps = {}
    for norm in norms:
        weight, bias = torch.rand(2, norm.num_features, generator=generator).to(norm.running_var)
        maps[norm] = _coefficients(norm, 0.5 + weight, bias)
    return maps


def _try_out(model: nn.Module, x: Tensor, stand_ins: StandIns) -> tuple[Tensor, Tensor]:
    """Returns logits and gradient with other modules in the places of some."""
    torch.manual_seed(0)  # for a model that draws in eval mode
    with _replaced(model, stand_ins):
        return logits_and_gradient(model, x)


@torch.enable_grad()
def logits_and_gradient(network: Network, x: Tensor) -> tuple[Tensor, Tensor]:
    """Returns logits, and the gradient of a mixture of them, by which two networks are compared."""
    leaf = x.detach().clone().requires_grad_()
    logits = network(leaf)
    mixture = torch.rand(logits.shape, generator=torch.Generator().manual_seed(0)).to(logits)
    (gradient,) = torch.autograd.grad((logits * mixture).sum(), leaf)
    return logits.detach(), gradient


@torch.no_grad()
def _compute_logits(model: nn.Module, x: Tensor, stand_ins: StandIns) -> Tensor:
    torch.manual_seed(0)
    with _replaced(model, stand_ins):
        logits: Tensor = model(x)
    return logits


def _agree(found: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor]) -> bool:
    (logits, gradient), (expected_logits, expected_gradient) = found, expected
    return _is_close(logits, expected_logits) and _is_close(
        gradient, expected_gradient, _GRADIENT_TOLERANCE
    )


def _is_close(found: Tensor, expected: Tensor, tolerance: float | None = None) -> bool:
    """Whether tensors differ by rounding, or by a share of their length."""
    share = torch.finfo(expected.dtype).eps ** 0.5 if tolerance is None else tolerance
    return bool((found - expected).norm() <= share * expected.norm())
