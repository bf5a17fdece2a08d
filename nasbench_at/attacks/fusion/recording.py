"""A network's forward pass and the gradient of its input, as a list of operations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

__all__ = [
    "BatchSize",
    "Call",
    "CannotRecordError",
    "Recording",
    "Value",
    "held_tensors",
    "record",
    "values_in",
]

# Values, numbers, sizes of the batch and lists of them.
Argument: TypeAlias = Any

_aten = torch.ops.aten
# Of operations that write into their argument, what computes the same into a new tensor.
_OUT_OF_PLACE: Mapping[Any, Any] = {_aten.relu_.default: _aten.relu.default}
_ALIASES = frozenset({_aten.detach.default, _aten.alias.default})
_REFUSED_TAGS = (
    torch.Tag.nondeterministic_seeded,
    torch.Tag.data_dependent_output,
    torch.Tag.dynamic_output_shape,
)


class CannotRecordError(Exception):
    """Says what keeps a model from being a fixed list of operations."""


@dataclass(frozen=True)
class BatchSize:
    """An integer that is so many times the number of images."""

    factor: int


@dataclass(eq=False)
class Value:
    """A tensor of a recorded pass.

    Attributes:
        shape: Its shape, with the number of images that was recorded.
        dtype: Its type.
        is_channels_last: Whether a pixel's channels lie side by side.
        name: Name of a tensor that the model holds; None of one that was computed.
        depends_on_images: Whether it is another one for other images or output gradients.
    """

    shape: torch.Size
    dtype: torch.dtype
    is_channels_last: bool = False
    name: str | None = None
    depends_on_images: bool = True

    @property
    def width(self) -> int | None:
        """Width of images in channels_last, else None."""
        return self.shape[3] if self.is_channels_last else None


@dataclass
class Call:
    """An operation: its ATen overload, arguments, and what it returned."""

    function: Any
    args: tuple[Argument, ...]
    kwargs: dict[str, Argument]
    outputs: tuple[Value | None, ...]


@dataclass
class Recording:
    """What was computed, in order.

    Attributes:
        calls: The operations; none writes into its arguments, or is random.
        num_forward: How many of them are the forward pass.
        x: The images.
        logits: What the forward pass returned.
        seed: The gradient of the logits that the backward pass began with.
        gradient: The gradient of the images.
    """

    calls: list[Call] = field(default_factory=list)
    num_forward: int = 0
    x: Value = field(init=False)
    logits: Value = field(init=False)
    seed: Value = field(init=False)
    gradient: Value = field(init=False)


def held_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Returns the tensors that a model's modules hold: parameters, buffers, plain attributes."""
    return {
        f"{prefix}.{name}": tensor
        for prefix, module in model.named_modules()
        for held in (module._parameters, module._buffers, vars(module))
        for name, tensor in held.items()
        if isinstance(tensor, Tensor)
    }


def record(model: nn.Module, x: Tensor) -> Recording:
    """Runs a model forward and backward and returns what it computed.

    It runs on two and on three of the images, which tells the integers that are the size of the
    batch, or so many times it, from the others.

    Args:
        model: Maps images to logits; not compiled, in eval mode, without hooks.
        x: At least three images, shape ``(N, C, H, W)``.

    Raises:
        CannotRecordError: If the model is random, or what it does depends on values, or on the
            number of images in another way, or it uses tensors that none of its modules holds.
    """
    two, three = _record(model, x[:2]), _record(model, x[:3])
    if len(two.calls) != len(three.calls) or two.num_forward != three.num_forward:
        raise CannotRecordError("the number of operations depends on the number of images")
    same = {two.x: three.x, two.seed: three.seed}
    for call, other in zip(two.calls, three.calls, strict=True):
        if call.function is not other.function:
            raise CannotRecordError("the operations depend on the number of images")
        call.args = _unify(call.args, other.args, same)
        call.kwargs = {
            name: _unify(value, other.kwargs.get(name), same) for name, value in call.kwargs.items()
        }
        for output, other_output in zip(call.outputs, other.outputs, strict=True):
            if output is not None and other_output is not None:
                same[output] = other_output
    return two


def _record(model: nn.Module, x: Tensor) -> Recording:
    recorder = _Recorder(held_tensors(model))
    recording = recorder.recording
    leaf = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    recording.x = recorder.add(leaf)
    with torch.enable_grad():
        with recorder:
            logits = model(leaf)
        recording.num_forward = len(recording.calls)
        recording.logits = recorder.look_up(logits)
        seed = torch.ones_like(logits)
        recording.seed = recorder.add(seed)
        with recorder:
            (gradient,) = torch.autograd.grad(logits, leaf, seed)
    recording.gradient = recorder.look_up(gradient)
    return recording


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees all operations below autograd and autocast, and knows tensors by their identity."""

    def __init__(self, held: Mapping[str, Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.recording = Recording()
        self._values: dict[int, Value] = {}
        self._alive: list[Tensor] = []  # so that no other tensor gets the same id
        self._views: dict[int, list[int]] = {}  # ids of the tensors in a memory
        self._outdated: set[int] = set()
        for name, tensor in held.items():
            if id(tensor) not in self._values:
                self.add(tensor, name=name, depends_on_images=False)

    def add(
        self, tensor: Tensor, *, name: str | None = None, depends_on_images: bool = True
    ) -> Value:
        is_channels_last = tensor.ndim == 4 and tensor.stride(1) == 1
        value = Value(tensor.shape, tensor.dtype, is_channels_last, name, depends_on_images)
        self._remember(tensor, value)
        return value

    def _remember(self, tensor: Tensor, value: Value) -> None:
        self._values[id(tensor)] = value
        self._alive.append(tensor)
        self._views.setdefault(tensor.untyped_storage()._cdata, []).append(id(tensor))

    def look_up(self, tensor: Tensor) -> Value:
        if id(tensor) not in self._values:
            raise CannotRecordError(f"a tensor of shape {tuple(tensor.shape)} is held by no module")
        if id(tensor) in self._outdated:
            raise CannotRecordError("a tensor is used after another view of it was overwritten")
        return self._values[id(tensor)]

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if any(tag in func.tags for tag in _REFUSED_TAGS):
            raise CannotRecordError(f"{func} is random or depends on values")
        recorded_args = tree_map_only(Tensor, self.look_up, args)
        recorded_kwargs = tree_map_only(Tensor, self.look_up, kwargs)
        result = func(*args, **kwargs)
        if func in _ALIASES:
            self._remember(result, recorded_args[0])
            return result
        if func._schema.is_mutable:
            func = self._replace(func, args[0])
        results = result if isinstance(result, list | tuple) else (result,)
        taken = values_in((recorded_args, recorded_kwargs))
        depends = any(value.depends_on_images for value in taken)
        outputs = tuple(
            self.add(tensor, depends_on_images=depends) if isinstance(tensor, Tensor) else None
            for tensor in results
        )
        self.recording.calls.append(Call(func, recorded_args, recorded_kwargs, outputs))
        return result

    def _replace(self, func: Any, written: Tensor) -> Any:
        """Returns what computes into a new tensor; nobody may look at the old one any more."""
        if func not in _OUT_OF_PLACE:
            raise CannotRecordError(f"{func} writes into its argument")
        if not self._values[id(written)].depends_on_images:
            raise CannotRecordError(f"{func} writes into a tensor that the model holds")
        views = self._views[written.untyped_storage()._cdata]
        self._outdated.update(view for view in views if view != id(written))
        return _OUT_OF_PLACE[func]


def values_in(argument: Argument) -> list[Value]:
    """Returns the values in an argument, each as often as it is there."""
    return [leaf for leaf in tree_leaves(argument) if isinstance(leaf, Value)]


def _unify(two: Argument, three: Argument, same: Mapping[Value, Value]) -> Argument:
    """Returns an argument for two and three images as one for any number of them."""
    if isinstance(two, Value):
        held_alike = isinstance(three, Value) and two.name is not None and two.name == three.name
        if held_alike or same.get(two) is three:
            return two
    elif isinstance(two, Sequence) and not isinstance(two, str):
        if isinstance(three, Sequence) and len(two) == len(three):
            return type(two)(_unify(a, b, same) for a, b in zip(two, three, strict=True))  # type: ignore[call-arg]
    elif type(two) is type(three):
        if two == three:
            return two
        if type(two) is int and two % 2 == 0 and three % 3 == 0 and two // 2 == three // 3:
            return BatchSize(two // 2)
    raise CannotRecordError("what is computed depends on the number of images")
