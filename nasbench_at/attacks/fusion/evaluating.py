"""Computes sums in as few passes over memory as their terms allow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import fx

from . import weights
from .program import Stage
from .recording import Value
from .sums import Atom, Coefficient, Coefficients, Computed, Convolution, Product, Rectified, Sum

__all__ = ["Evaluator", "Tensor"]

_aten = torch.ops.aten
_mkldnn = torch.ops.mkldnn


class Tensor(NamedTuple):
    """A tensor of a program, and whether nothing else needs it, so that it may be overwritten."""

    node: fx.Node
    is_own: bool


class _Term(NamedTuple):
    tensor: Tensor
    factor: Coefficient


class Evaluator:
    """Writes down how stages compute sums.

    Args:
        weights_stage: The stage of what depends on weights alone.
        num_images: Its input, the number of images.

    Attributes:
        stage: The stage that computes.
    """

    def __init__(self, weights_stage: Stage, num_images: fx.Node, stage: Stage) -> None:
        self.stage = stage
        self._weights = weights_stage
        self._num_images = num_images
        self._coefficients = Coefficients(weights_stage)

    def evaluate(self, total: Sum, like: Value, *, relu: bool = False) -> Tensor:
        """Returns the tensor that a sum is, or the sum's ReLU.

        Convolutions come last: each adds what is there already, the first one the constant, and the
        last one applies the ReLU, as their results are written.

        Args:
            total: The sum, not empty.
            like: A value of the tensor's shape and type.
            relu: Whether to return the ReLU.
        """
        last = [atom for atom in total.terms if isinstance(atom, Convolution) and _can_add(atom)]
        others = {atom: factor for atom, factor in total.terms.items() if atom not in last}
        constant = total.constant
        result = self._add_up(others, 0.0 if last else constant, like)
        for i, atom in enumerate(last):
            is_end = i == len(last) - 1
            node = self._convolve(
                atom, total.terms[atom], constant, result, like, relu=relu and is_end
            )
            result, constant = Tensor(node, True), 0.0
        assert result is not None
        if relu and not last:
            operation = _aten.relu_.default if result.is_own else _aten.relu.default
            result = Tensor(self.stage.call(operation, result.node), True)
        return result

    def _add_up(
        self, terms: Mapping[Atom, Coefficient], constant: Coefficient, like: Value
    ) -> Tensor | None:
        """Returns the sum of terms, added one by one; None if there are none."""
        products = {a: factor for a, factor in terms.items() if isinstance(a, Product)}
        addends = [self._term(a, factor, like) for a, factor in terms.items() if a not in products]
        if products and not any(addend.tensor.is_own for addend in addends):
            product, factor = products.popitem()
            node = self.stage.call(_aten.mul.Tensor, product.a, product.b)
            addends.append(_Term(Tensor(node, True), factor))
        # First what may be overwritten, then what needs no factor.
        addends.sort(key=lambda addend: (not addend.tensor.is_own, addend.factor != 1.0))
        result = None
        if constant != 0.0:
            result = Tensor(self._row(constant, like), False)
            addends.reverse()  # constant + factor · tensor is one pass
        result = self._accumulate(result, addends, like)
        for product, factor in products.items():
            assert result is not None
            b = product.b
            if factor != 1.0:
                b = self.stage.call(_aten.mul.Tensor, b, self._row(factor, like))
            operation = _aten.addcmul_.default if result.is_own else _aten.addcmul.default
            result = Tensor(self.stage.call(operation, result.node, product.a, b), True)
        return result

    def _accumulate(
        self, result: Tensor | None, addends: Iterable[_Term], like: Value
    ) -> Tensor | None:
        for tensor, factor in addends:
            if result is None and factor == 1.0:
                result = tensor
            elif result is None:
                operation = _aten.mul_.Tensor if tensor.is_own else _aten.mul.Tensor
                node = self.stage.call(operation, tensor.node, self._row(factor, like))
                result = Tensor(node, True)
            elif isinstance(factor, float):
                operation = _aten.add_.Tensor if result.is_own else _aten.add.Tensor
                node = self.stage.call(operation, result.node, tensor.node, alpha=factor)
                result = Tensor(node, True)
            else:
                operation = _aten.addcmul_.default if result.is_own else _aten.addcmul.default
                row = self._row(factor, like)
                node = self.stage.call(operation, result.node, tensor.node, row)
                result = Tensor(node, True)
        return result

    def _term(self, atom: Atom, factor: Coefficient, like: Value) -> _Term:
        """Returns a term as a tensor and the factor that is still missing."""
        match atom:
            case Computed(node):
                return _Term(Tensor(node, False), factor)
            case Rectified(total, mask):
                if total.scaled is None:
                    total, factor = self._coefficients.scale(total, factor), 1.0
                gradient = self.evaluate(total, like)
                return _Term(self._rectify(gradient, mask), factor)
            case Convolution():
                return _Term(Tensor(self._transpose(atom, factor, like), True), 1.0)
            case Product():
                raise AssertionError("a product has no tensor of its own")

    def _rectify(self, gradient: Tensor, mask: fx.Node) -> Tensor:
        if gradient.is_own:
            operation = _aten.threshold_backward.grad_input
            node = self.stage.call(operation, gradient.node, mask, 0, grad_input=gradient.node)
        else:
            node = self.stage.call(_aten.threshold_backward.default, gradient.node, mask, 0)
        return Tensor(node, True)

    def _row(self, coefficient: Coefficient, like: Value) -> fx.Node:
        """Returns a coefficient as a tensor for values like one."""
        return self._weights.call(weights.make_row, coefficient, like.dtype, like.width)

    def _convolve(
        self,
        convolution: Convolution,
        factor: Coefficient,
        constant: Coefficient,
        start: Tensor | None,
        like: Value,
        *,
        relu: bool,
    ) -> fx.Node:
        """Returns factor · convolution + constant + start, or its ReLU."""
        stride, padding, dilation, groups = convolution.geometry
        weight = self._weight(convolution, factor, like)
        if convolution.transposed:
            weight = self._weights.call(weights.transpose_weight, weight, groups)
            padding = tuple(
                spread * (extent - 1) - pad
                for spread, extent, pad in zip(dilation, convolution.kernel, padding, strict=True)
            )
        bias = None
        if constant != 0.0:
            bias = self._weights.call(weights.make_bias, constant, like.shape[1], like.dtype)
        geometry = (padding, stride, dilation, groups)
        x_shape = (self._num_images, *convolution.x_shape)
        packed = self._weights.call(weights.pack, weight, *geometry, x_shape)
        how = (packed, bias, *geometry)
        x, unary = convolution.x, "relu" if relu else None
        if start is None:
            operation = _mkldnn._convolution_pointwise.default
            return self.stage.call(operation, x, *how, unary or "none", [], "")
        after: tuple[Any, ...] = ("add", None, unary, [], None)
        if start.is_own:
            operation = _mkldnn._convolution_pointwise_.binary
            return self.stage.call(operation, start.node, x, *how, *after)
        operation = _mkldnn._convolution_pointwise.binary
        return self.stage.call(operation, x, start.node, *how, *after)

    def _transpose(self, convolution: Convolution, factor: Coefficient, like: Value) -> fx.Node:
        """Returns factor · the transpose of a convolution with strides."""
        stride, padding, dilation, groups = convolution.geometry
        return self.stage.call(
            _aten.convolution.default,
            convolution.x,
            self._weight(convolution, factor, like),
            None,
            stride,
            padding,
            dilation,
            True,
            convolution.output_padding,
            groups,
        )

    def _weight(self, convolution: Convolution, factor: Coefficient, like: Value) -> fx.Node:
        """Returns a scaled weight; where a transpose reads, the convolution itself writes."""
        factors = (convolution.scale, factor)
        inputs, outputs = reversed(factors) if convolution.transposed else factors
        how = (inputs, outputs, convolution.geometry.groups, like.dtype)
        return self._weights.call(weights.scale_weight, convolution.weight, *how)


def _can_add(convolution: Convolution) -> bool:
    """Whether a convolution is computed by what can add to a tensor."""
    return not convolution.transposed or set(convolution.geometry.stride) == {1}
