"""Sums of tensors with a factor a channel, which are not computed before somebody needs them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from torch import fx

from . import weights
from .program import Stage

__all__ = [
    "Atom",
    "Coefficient",
    "Coefficients",
    "Computed",
    "Convolution",
    "Geometry",
    "Product",
    "Rectified",
    "Sum",
]

# A number, or a node of the first stage: a scalar or a tensor of shape (1, C, 1, 1).
Coefficient: TypeAlias = float | fx.Node


class Geometry(NamedTuple):
    """How a convolution's kernel moves over its input."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int


@dataclass(frozen=True)
class Computed:
    """A tensor that is computed as it is."""

    node: fx.Node


@dataclass(eq=False)
class Convolution:
    """A convolution that is used once, without its bias; or its transpose, the input's gradient.

    Attributes:
        x: What is convolved.
        x_shape: Its shape without the images, (C, H, W).
        scale: Factor of `x`.
        weight: Shape (O, I / groups, h, w), also of a transpose.
        geometry: That of the convolution, also of a transpose.
        transposed: Whether it maps O to I channels.
        kernel: Its size, (h, w).
        output_padding: How many lines of a transpose's result are beyond its last step.
    """

    x: fx.Node
    x_shape: tuple[int, ...]
    scale: Coefficient
    weight: fx.Node
    geometry: Geometry
    transposed: bool
    kernel: tuple[int, ...]
    output_padding: tuple[int, ...]


@dataclass(eq=False)
class Rectified:
    """A sum where another tensor is positive, else zero: a ReLU's gradient; used once."""

    total: Sum
    mask: fx.Node


@dataclass(eq=False)
class Product:
    """A product of two tensors, used once; the second one may have fewer entries."""

    a: fx.Node
    b: fx.Node


Atom: TypeAlias = Computed | Convolution | Rectified | Product


@dataclass
class Sum:
    """Σ coefficient · atom + constant."""

    terms: dict[Atom, Coefficient] = field(default_factory=dict)
    constant: Coefficient = 0.0

    @property
    def scaled(self) -> tuple[fx.Node, Coefficient] | None:
        """The tensor and its factor, if the sum is a computed tensor times a factor."""
        if len(self.terms) == 1 and self.constant == 0.0:
            ((atom, factor),) = self.terms.items()
            if isinstance(atom, Computed):
                return atom.node, factor
        return None


@dataclass
class Coefficients:
    """Computes with coefficients, in the first stage."""

    stage: Stage

    def multiply(self, a: Coefficient, b: Coefficient) -> Coefficient:
        """Returns a · b."""
        if isinstance(a, float) and isinstance(b, float):
            return a * b
        if a == 1.0 or b == 0.0:
            return b
        if b == 1.0 or a == 0.0:
            return a
        return self.stage.call(weights.multiply, a, b)

    def add(self, a: Coefficient, b: Coefficient) -> Coefficient:
        """Returns a + b."""
        if isinstance(a, float) and isinstance(b, float):
            return a + b
        if a == 0.0:
            return b
        if b == 0.0:
            return a
        return self.stage.call(weights.add, a, b)

    def scale(self, total: Sum, factor: Coefficient) -> Sum:
        """Returns factor · total."""
        return Sum(
            {atom: self.multiply(own, factor) for atom, own in total.terms.items()},
            self.multiply(total.constant, factor),
        )

    def combine(self, total: Sum, other: Sum, factor: Coefficient = 1.0) -> Sum:
        """Returns total + factor · other."""
        terms = dict(total.terms)
        scaled = self.scale(other, factor)
        for atom, coefficient in scaled.terms.items():
            terms[atom] = self.add(terms[atom], coefficient) if atom in terms else coefficient
        return Sum(terms, self.add(total.constant, scaled.constant))
