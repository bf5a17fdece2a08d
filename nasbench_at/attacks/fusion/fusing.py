"""Turns a recording into a program that does the same in fewer passes over memory."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, NoReturn

import torch
from torch import fx
from torch.utils._pytree import tree_map_only

from . import weights
from .evaluating import Evaluator
from .program import Program, Stage
from .recording import (
    Argument,
    BatchSize,
    Call,
    CannotRecordError,
    Recording,
    Value,
    values_in,
)
from .sums import (
    Coefficient,
    Coefficients,
    Computed,
    Convolution,
    Geometry,
    Product,
    Rectified,
    Sum,
)

__all__ = ["fuse"]

_aten = torch.ops.aten
# These keep every entry, or copy it: a factor may be applied before or after.
_MOVES = frozenset(
    {
        _aten.expand.default,
        _aten.permute.default,
        _aten.slice.Tensor,
        _aten.squeeze.dim,
        _aten.t.default,
        _aten.transpose.int,
        _aten.unsqueeze.default,
        _aten.view.default,
    }
)


def fuse(recording: Recording) -> Program:
    """Returns a program for a network's logits and the gradient of its input.

    What depends on weights alone becomes a stage of its own. Of the rest, sums stay unevaluated as
    long as they are used once: products with numbers and with tensors of one entry a channel, as
    norms in eval mode, only change coefficients. A convolution that is used once takes its
    coefficient and constant into its weight and bias, adds to what is there already, and applies
    the ReLU behind it, if any. The gradient of a convolution's input is a convolution, too, and so
    that of a ReLU's input takes factors behind it before it.

    Args:
        recording: What a network does, on the CPU.
    """
    return _Fuser(recording).run()


class _Constant(NamedTuple):
    """A tensor that depends on weights alone, and what it was before it was rounded."""

    node: fx.Node
    exact: fx.Node


class _Fuser:
    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._weights = Stage(is_pure=True)
        self._forward, self._backward = Stage(), Stage()
        self._coefficients = Coefficients(self._weights)
        self._constants: dict[Value, _Constant] = {}
        self._names: list[str] = []
        self._num_uses = _count_uses(recording)
        num_images = self._weights.add_input("num_images")
        self._evaluator = Evaluator(self._weights, num_images, self._forward)
        x, seed = self._forward.add_input("x"), self._backward.add_input("seed")
        self._sums: dict[Value, Sum] = {
            recording.x: Sum({Computed(x): 1.0}),
            recording.seed: Sum({Computed(seed): 1.0}),
        }
        self._inputs = {self._forward: x, self._backward: seed}
        self._handlers: Mapping[Any, Callable[[Call], Sum | None]] = {
            _aten.add.Tensor: self._add,
            _aten.sub.Tensor: self._subtract,
            _aten.mul.Tensor: self._multiply,
            _aten.mul.Scalar: self._multiply,
            _aten.div.Tensor: self._divide,
            _aten.div.Scalar: self._divide,
            _aten.addcmul.default: self._addcmul,
            _aten.relu.default: self._relu,
            _aten.threshold_backward.default: self._relu_backward,
            _aten.convolution.default: self._convolution,
            _aten.convolution_backward.default: self._convolution_backward,
            **dict.fromkeys(_MOVES, self._move),
        }

    @property
    def _stage(self) -> Stage:
        return self._evaluator.stage

    def run(self) -> Program:
        recording = self._recording
        for position, call in enumerate(recording.calls):
            if position == recording.num_forward:
                logits = self._compute(recording.logits)
                self._evaluator.stage = self._backward
            outputs = [output for output in call.outputs if output is not None]
            if not outputs:
                continue
            if not outputs[0].depends_on_images:
                self._precompute(call)
                continue
            handler = self._handlers.get(call.function)
            total = handler(call) if handler is not None else None
            if total is None:
                self._copy(call)
            else:
                self._sums[outputs[0]] = total
                if self._num_uses[outputs[0]] > 1 and total.scaled is None:
                    self._compute(outputs[0])
        gradient = self._compute(recording.gradient)
        stages = self._weights, self._forward, self._backward
        return Program.build(self._names, stages, logits, gradient)

    # What depends on weights alone.

    def _precompute(self, call: Call) -> None:
        args, kwargs = _map((call.args, call.kwargs), self._constant_node, _refuse)
        node = self._weights.call(call.function, *args, **kwargs)
        for output, entry in _entries(self._weights, node, call):
            self._constants[output] = _Constant(entry, self._exact(call, entry))

    def _exact(self, call: Call, node: fx.Node) -> fx.Node:
        """Returns what a tensor was before it was rounded; the tensor itself where it was not."""
        output, source = call.outputs[0], call.args[0] if call.args else None
        if not isinstance(source, Value) or output is None:
            return node
        is_rounding = call.function is _aten._to_copy.default
        is_same = call.function is _aten.mul.Scalar and call.args[1] == 1
        is_narrower = output.dtype.itemsize < source.dtype.itemsize
        if is_same or (is_rounding and is_narrower and output.dtype.is_floating_point):
            return self._constant(source).exact
        return node

    def _constant(self, value: Value) -> _Constant:
        if value not in self._constants:
            assert value.name is not None
            node = self._weights.add_input(f"held{len(self._names)}")
            self._names.append(value.name)
            self._constants[value] = _Constant(node, node)
        return self._constants[value]

    def _constant_node(self, value: Value) -> fx.Node:
        return self._constant(value).node

    # Operations that stay as they are.

    def _copy(self, call: Call) -> None:
        args, kwargs = _map((call.args, call.kwargs), self._node, self._size)
        node = self._stage.call(call.function, *args, **kwargs)
        for output, entry in _entries(self._stage, node, call):
            self._sums[output] = Sum({Computed(entry): 1.0})

    def _node(self, value: Value) -> fx.Node:
        return self._compute(value) if value.depends_on_images else self._constant(value).node

    def _size(self, size: BatchSize) -> fx.Node:
        images = self._stage.call(_aten.sym_size.int, self._inputs[self._stage], 0)
        return self._stage.call(operator.mul, images, size.factor)

    # Operations that only change coefficients. They return None where they do more than that.

    def _add(self, call: Call) -> Sum | None:
        return self._add_scaled(call, call.kwargs.get("alpha", 1))

    def _subtract(self, call: Call) -> Sum | None:
        return self._add_scaled(call, -call.kwargs.get("alpha", 1))

    def _add_scaled(self, call: Call, factor: float) -> Sum | None:
        a, b = (self._sum(argument, call) for argument in call.args)
        if a is None or b is None:
            return None
        return self._coefficients.combine(a, b, float(factor))

    def _multiply(self, call: Call) -> Sum | None:
        a, b = call.args
        for one, other in ((a, b), (b, a)):
            total, factor = self._sum(one, call), self._coefficient(other, call)
            if total is not None and factor is not None:
                return self._coefficients.scale(total, factor)
            if _is_like(one, call.outputs[0]) and _is_of_type(other, one.dtype):
                return Sum({Product(self._node(one), self._node(other)): 1.0})
        return None

    def _divide(self, call: Call) -> Sum | None:
        a, b = call.args
        total, divisor = self._sum(a, call), self._coefficient(b, call)
        if total is None or divisor is None or call.kwargs:
            return None
        if isinstance(divisor, float):
            return self._coefficients.scale(total, 1 / divisor)
        return self._coefficients.scale(total, self._weights.call(weights.reciprocal, divisor))

    def _addcmul(self, call: Call) -> Sum | None:
        start, a, b = call.args
        total = self._sum(start, call)
        value = float(call.kwargs.get("value", 1))
        for one, other in ((a, b), (b, a)):
            addend, factor = self._sum(one, call), self._coefficient(other, call)
            if total is not None and addend is not None and factor is not None:
                scaled = self._coefficients.multiply(factor, value)
                return self._coefficients.combine(total, addend, scaled)
        return None

    def _move(self, call: Call) -> Sum | None:
        if (scaled := self._sums[call.args[0]].scaled) is None:
            return None
        node, factor = scaled
        if not isinstance(factor, float):
            return None
        where = _map(call.args[1:], self._node, self._size)
        moved = self._stage.call(call.function, node, *where)
        return Sum({Computed(moved): factor})

    def _sum(self, argument: Argument, call: Call) -> Sum | None:
        """Returns a summand of a call; None if it is not of the result's type and shape."""
        if _is_like(argument, call.outputs[0]):
            return self._sums[argument]
        constant = self._coefficient(argument, call)
        return None if constant is None else Sum(constant=constant)

    def _coefficient(self, argument: Argument, call: Call) -> Coefficient | None:
        """Returns a factor of all channels or of each; None if it is something else."""
        output = call.outputs[0]
        assert output is not None
        if isinstance(argument, int | float):
            return float(argument)
        if not isinstance(argument, Value) or argument.depends_on_images:
            return None
        if not argument.dtype.is_floating_point:
            return None
        shape = tuple(argument.shape)
        a_channel = len(output.shape) == 4 and shape == (1, output.shape[1], 1, 1)
        return self._constant(argument).exact if a_channel or shape == () else None

    # Convolutions and ReLUs.

    def _convolution(self, call: Call) -> Sum | None:
        x, weight, bias, stride, padding, dilation, transposed, _, groups = call.args
        (output,) = call.outputs
        assert output is not None
        if transposed or len(output.shape) != 4 or weight.depends_on_images:
            return None
        geometry = Geometry(tuple(stride), tuple(padding), tuple(dilation), groups)
        node, scale = self._scaled(x)
        atom = Convolution(
            node,
            tuple(x.shape[1:]),
            scale,
            self._constant(weight).exact,
            geometry,
            False,
            tuple(weight.shape[2:]),
            (0, 0),
        )
        constant: Coefficient = 0.0
        if bias is not None:
            constant = self._weights.call(
                _aten.view.default, self._constant(bias).exact, [1, -1, 1, 1]
            )
        return Sum({atom: 1.0}, constant)

    def _convolution_backward(self, call: Call) -> Sum | None:
        gradient, _x, weight, _, stride, padding, dilation, transposed, _, groups, mask = call.args
        output = call.outputs[0]
        if transposed or list(mask) != [True, False, False] or weight.depends_on_images:
            return None
        assert output is not None
        if len(output.shape) != 4:
            return None
        node, scale = self._scaled(gradient)
        kernel = weight.shape[2:]
        ends = [
            (size - 1) * step - 2 * pad + spread * (extent - 1) + 1
            for size, step, pad, spread, extent in zip(
                gradient.shape[2:], stride, padding, dilation, kernel, strict=True
            )
        ]
        beyond = tuple(size - end for size, end in zip(output.shape[2:], ends, strict=True))
        atom = Convolution(
            node,
            tuple(gradient.shape[1:]),
            scale,
            self._constant(weight).exact,
            Geometry(tuple(stride), tuple(padding), tuple(dilation), groups),
            True,
            tuple(kernel),
            beyond,
        )
        return Sum({atom: 1.0})

    def _scaled(self, value: Value) -> tuple[fx.Node, Coefficient]:
        """Returns a tensor and its factor."""
        return self._sums[value].scaled or (self._compute(value), 1.0)

    def _relu(self, call: Call) -> Sum:
        (x,) = call.args
        tensor = self._evaluator.evaluate(self._sums[x], x, relu=True)
        return Sum({Computed(tensor.node): 1.0})

    def _relu_backward(self, call: Call) -> Sum | None:
        gradient, mask, threshold = call.args
        if threshold != 0 or not _is_like(gradient, call.outputs[0]):
            return None
        total, mask_node = self._sums[gradient], self._node(mask)
        if total.scaled is None:
            return Sum({Rectified(total, mask_node): 1.0})
        node, factor = total.scaled
        return Sum({Rectified(Sum({Computed(node): 1.0}), mask_node): factor})

    def _compute(self, value: Value) -> fx.Node:
        """Returns a tensor, computed once."""
        node = self._evaluator.evaluate(self._sums[value], value).node
        self._sums[value] = Sum({Computed(node): 1.0})
        return node


def _map(
    argument: Argument,
    node_of: Callable[[Value], fx.Node],
    size_of: Callable[[BatchSize], fx.Node],
) -> Any:
    """Returns an argument with nodes in the places of values and sizes."""
    values_mapped = tree_map_only(Value, node_of, argument)
    return tree_map_only(BatchSize, size_of, values_mapped)


def _entries(stage: Stage, node: fx.Node, call: Call) -> Iterator[tuple[Value, fx.Node]]:
    """Yields the results of a call, and the nodes that they are, if `node` is what it returns."""
    returns = call.function._schema.returns
    is_tensor = len(returns) == 1 and isinstance(returns[0].type, torch.TensorType)
    for i, output in enumerate(call.outputs):
        if output is not None:
            yield output, node if is_tensor else stage.call(operator.getitem, node, i)


def _refuse(size: BatchSize) -> NoReturn:
    raise CannotRecordError("a tensor of its own depends on the number of images")


def _is_like(argument: Argument, output: Value | None) -> bool:
    assert output is not None
    return (
        isinstance(argument, Value)
        and argument.depends_on_images
        and argument.shape == output.shape
        and argument.dtype == output.dtype
    )


def _is_of_type(argument: Argument, dtype: torch.dtype) -> bool:
    return isinstance(argument, Value) and argument.dtype == dtype


def _count_uses(recording: Recording) -> Counter[Value]:
    """Returns how many operations take each value, or end with it."""
    uses = Counter([recording.logits, recording.gradient])
    for call in recording.calls:
        uses.update(values_in((call.args, call.kwargs)))
    return uses
