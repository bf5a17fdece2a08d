"""Upper bounds of Lipschitz constants, from the layers up to whole atomic blocks.

Everything is in the Euclidean norm and in eval mode. Layers one after the other multiply, summed
paths add, and the norm of a concatenation is the root of the sum of squares. Affine layers that
follow one another are taken as one operator, which is never worse than their product.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import singledispatch
from types import MappingProxyType
from typing import TypeAlias

import torch
from torch import Tensor, nn

from analysis.operator_norms import compute_operator_norm, compute_output_shape, is_affine
from blocks.ada_rk import AdaRK
from blocks.bottleneck import Bottleneck
from blocks.convnext import ConvNeXt
from blocks.dense import DenseBlock, DenseLayer
from blocks.dla_tree import BasicBlock, DLATree, Root
from blocks.implicit_euler import ImplicitEuler
from blocks.layers import ChannelLayerNorm, PreActivation, SmoothReLU
from blocks.mbconv import MBConv, SqueezeExcite
from blocks.plain_conv import PlainConv
from blocks.residual import ReductionBlock, ResidualBlock
from blocks.resnext import ResNeXtBottleneck
from blocks.runge_kutta import SSP2, SSP3, MidpointRK2
from blocks.separable_conv import SeparableConv

__all__ = ["NO_RADII", "Radii", "compute_block_bound", "compute_chain_bound", "layer_bound"]

Shape: TypeAlias = tuple[int, ...]
Radii: TypeAlias = Mapping[nn.Module, float]
"""For squeeze-and-excitation layers: the largest norm of a channel of their input."""
NO_RADII: Radii = MappingProxyType({})

_SILU = 1.09984
"""Largest slope of the SiLU, at x = 2.3994, rounded up."""
_GELU = 0.5 * (1 + math.erf(1)) + math.exp(-1) / math.sqrt(math.pi)
"""Largest slope of the GELU, at x = √2."""
_GELU_TANH = 1.1290
"""Largest slope of its tanh approximation, rounded up."""
_CHANNEL_LAYER_NORM_EPS = 1e-6
_SLOPES: Mapping[type[nn.Module], float] = {
    nn.ReLU: 1.0,
    nn.ReLU6: 1.0,
    nn.Hardtanh: 1.0,
    nn.Tanh: 1.0,
    nn.Softplus: 1.0,
    SmoothReLU: 1.0,
    nn.Sigmoid: 0.25,
    nn.SiLU: _SILU,
    # diag(p) − ppᵀ, whose norm is largest where two classes have a half each.
    nn.Softmax: 0.5,
}


def layer_bound(layer: nn.Module) -> float:
    """Returns a Lipschitz constant of a layer that is not affine: an activation or a norm.

    A layer norm's Jacobian is a projection divided by the standard deviation, which is at least
    √eps; its only global bound is therefore very large.

    Raises:
        ValueError: If none is known.
    """
    slope = _SLOPES.get(type(layer))
    if slope is not None:
        return slope
    if isinstance(layer, nn.GELU):
        return _GELU if layer.approximate == "none" else _GELU_TANH
    if isinstance(layer, nn.ELU):
        return max(1.0, abs(layer.alpha))
    if isinstance(layer, nn.LeakyReLU):
        return max(1.0, abs(layer.negative_slope))
    if isinstance(layer, nn.GroupNorm):
        return _largest(layer.weight) / math.sqrt(layer.eps)
    if isinstance(layer, ChannelLayerNorm):
        return _largest(layer.weight) / math.sqrt(_CHANNEL_LAYER_NORM_EPS)
    raise ValueError(f"no Lipschitz constant is known of layer {layer!r}")


def _largest(weight: Tensor | None) -> float:
    return 1.0 if weight is None else float(weight.detach().abs().max())


def compute_chain_bound(
    layers: Iterable[nn.Module], shape: Shape, radii: Radii = NO_RADII
) -> float:
    """Bounds layers, or whole blocks, one after the other.

    Args:
        layers: In the order in which they are applied.
        shape: Of the first one's input, without the batch.
        radii: See :data:`Radii`.

    Raises:
        ValueError: If no bound of one of them is known.
    """
    bound = 1.0
    affine: list[nn.Module] = []
    affine_shape = shape
    for layer in layers:
        if is_affine(layer):
            affine.append(layer)
            shape = compute_output_shape(layer, shape)
            continue
        bound *= compute_operator_norm(affine, affine_shape) if affine else 1.0
        bound *= compute_block_bound(layer, shape, radii)
        affine, affine_shape = [], shape
    return bound * (compute_operator_norm(affine, affine_shape) if affine else 1.0)


@singledispatch
def compute_block_bound(block: nn.Module, shape: Shape, radii: Radii = NO_RADII) -> float:
    """Bounds a block's Lipschitz constant in eval mode.

    A block of your own gets its rule by ``@compute_block_bound.register``, with the block's type
    as annotation of the first parameter.

    Args:
        block: A layer, an atomic block or a reduction; those that keep no shape must be affine or
            come last.
        shape: Of its input, without the batch.
        radii: See :data:`Radii`.

    Raises:
        ValueError: If no rule for this block is known.
    """
    if is_affine(block):
        return compute_operator_norm(block, shape)
    if not list(block.children()):
        return layer_bound(block)
    raise ValueError(
        f"no Lipschitz bound is known of block {type(block).__name__}; register a rule with "
        "compute_block_bound, or measure its local constants"
    )


@compute_block_bound.register
def _sequential(block: nn.Sequential, shape: Shape, radii: Radii = NO_RADII) -> float:
    return compute_chain_bound(block, shape, radii)


def _residual_layers(residual: PreActivation) -> list[nn.Module]:
    f = residual
    return [f.norm1, f.activation, f.conv1, f.norm2, f.activation, f.conv2]


@compute_block_bound.register
def _pre_activation(block: PreActivation, shape: Shape, radii: Radii = NO_RADII) -> float:
    return compute_chain_bound(_residual_layers(block), shape, radii)


@compute_block_bound.register
def _residual(block: ResidualBlock, shape: Shape, radii: Radii = NO_RADII) -> float:
    branch = compute_chain_bound([*_residual_layers(block.residual), block.norm], shape, radii)
    return branch + compute_block_bound(block.norm, shape, radii)


@compute_block_bound.register
def _reduction(block: ReductionBlock, shape: Shape, radii: Radii = NO_RADII) -> float:
    f = block.residual
    shared = compute_chain_bound([f.norm1, f.activation], shape, radii)
    branch = [f.conv1, f.norm2, f.activation, f.conv2, block.norm]
    shortcut = [*block.shortcut, block.norm]
    return shared * sum(compute_chain_bound(path, shape, radii) for path in (branch, shortcut))


@compute_block_bound.register
def _mbconv(block: MBConv, shape: Shape, radii: Radii = NO_RADII) -> float:
    hidden = [block.expand, block.norm1, block.activation]
    hidden += [block.depthwise, block.norm2, block.activation]
    path = [*hidden, block.squeeze_excite, block.project, block.norm3, block.norm]
    return compute_chain_bound(path, shape, radii) + compute_block_bound(block.norm, shape, radii)


@compute_block_bound.register
def _squeeze_excite(block: SqueezeExcite, shape: Shape, radii: Radii = NO_RADII) -> float:
    """Bounds x·g(x) where no channel of x is longer than a radius R; everywhere there is no bound.

    The gates change by dg = ¼·‖expand‖·slope·‖reduce‖/√(HW) at most, since the mean over H×W
    pixels has the norm 1/√(HW), and each multiplies a channel no longer than R. The gates
    themselves are below 1. So the constant is at most 1 + R·dg, on a convex set.
    """
    if block not in radii:
        raise ValueError(
            "squeeze-and-excitation multiplies its input by a function of it, so that it has no "
            "finite Lipschitz constant; give the largest norm of its input's channels in radii"
        )
    context = (shape[0], 1, 1)
    path = [block.reduce, block.activation, block.expand, nn.Sigmoid()]
    gates = compute_chain_bound(path, context, radii) / math.sqrt(math.prod(shape[1:]))
    return 1 + radii[block] * gates


@compute_block_bound.register
def _dense_layer(block: DenseLayer, shape: Shape, radii: Radii = NO_RADII) -> float:
    layers = [block.norm1, block.activation, block.conv1]
    layers += [block.norm2, block.activation, block.conv2]
    return compute_chain_bound(layers, shape, radii)


@compute_block_bound.register
def _dense(block: DenseBlock, shape: Shape, radii: Radii = NO_RADII) -> float:
    channels, *size = shape
    features = [1.0]
    for layer in block.layers:
        assert isinstance(layer, DenseLayer)
        own = compute_block_bound(layer, (channels, *size), radii)
        features.append(own * math.hypot(*features))
        channels += layer.conv2.out_channels
    if block.project is None:
        return compute_block_bound(block.norm, shape, radii) * sum(features) / len(features)
    merge = compute_chain_bound([block.project, block.norm], (channels, *size), radii)
    return merge * math.hypot(*features)


@compute_block_bound.register
def _ada_rk(block: AdaRK, shape: Shape, radii: Radii = NO_RADII) -> float:
    f, last = block.residual, block.norm
    second = _residual_layers(f)
    if block.second_norm1 is not None and block.second_norm2 is not None:
        second[0], second[3] = block.second_norm1, block.second_norm2
    beta = float(torch.sigmoid(block.b10.detach()))
    b21 = 0.5 / beta
    inner = compute_block_bound(f, shape, radii)
    first = compute_chain_bound([*_residual_layers(f), last], shape, radii)
    outer = compute_chain_bound([*second, last], shape, radii)
    kept = compute_block_bound(last, shape, radii)
    return kept + abs(1 - b21) * first + b21 * outer * (1 + beta * inner)


@compute_block_bound.register
def _ssp2(block: SSP2, shape: Shape, radii: Radii = NO_RADII) -> float:
    return (1 + compute_block_bound(block.block, shape, radii) ** 2) / 2


@compute_block_bound.register
def _ssp3(block: SSP3, shape: Shape, radii: Radii = NO_RADII) -> float:
    inner = compute_block_bound(block.block, shape, radii)
    return (1 + 2 * inner * (3 + inner**2) / 4) / 3


@compute_block_bound.register
def _midpoint(block: MidpointRK2, shape: Shape, radii: Radii = NO_RADII) -> float:
    inner = compute_block_bound(block.residual, shape, radii)
    return (1 + inner / 2) * (1 + inner)


@compute_block_bound.register
def _plain_conv(block: PlainConv, shape: Shape, radii: Radii = NO_RADII) -> float:
    return compute_chain_bound([block.conv, block.norm, block.activation], shape, radii)


@compute_block_bound.register
def _separable(block: SeparableConv, shape: Shape, radii: Radii = NO_RADII) -> float:
    # Its layers are declared in the order in which they are applied.
    return compute_chain_bound(block.children(), shape, radii)


@compute_block_bound.register(ResNeXtBottleneck)
@compute_block_bound.register(Bottleneck)
def _bottleneck(
    block: Bottleneck | ResNeXtBottleneck, shape: Shape, radii: Radii = NO_RADII
) -> float:
    middle = block.conv if isinstance(block, Bottleneck) else block.grouped
    layers = [block.reduce, block.norm1, block.activation, middle, block.norm2, block.activation]
    branch = compute_chain_bound([*layers, block.expand, block.norm3], shape, radii)
    behind = compute_chain_bound([block.activation, block.norm], shape, radii)
    return (1 + branch) * behind


@compute_block_bound.register
def _basic(block: BasicBlock, shape: Shape, radii: Radii = NO_RADII) -> float:
    layers = [block.conv1, block.norm1, block.activation, block.conv2, block.norm2]
    branch = compute_chain_bound(layers, shape, radii)
    return (1 + branch) * compute_block_bound(block.activation, shape, radii)


@compute_block_bound.register
def _root(block: Root, shape: Shape, radii: Radii = NO_RADII) -> float:
    """Bounds the root as a function of the concatenation, whose shape is to be given."""
    return compute_chain_bound([block.conv, block.norm, block.activation], shape, radii)


@compute_block_bound.register
def _dla_tree(block: DLATree, shape: Shape, radii: Radii = NO_RADII) -> float:
    def bound(part: nn.Module) -> float:
        return compute_block_bound(part, shape, radii)

    def merge(root: Root, *features: float) -> float:
        merged = (len(features) * shape[0], *shape[1:])
        return compute_block_bound(root, merged, radii) * math.hypot(*features)

    level1_left = bound(block.level1_left)
    tree = merge(block.level1_root, level1_left, bound(block.level1_right) * level1_left)
    left = bound(block.left) * tree
    return merge(block.root, bound(block.previous), tree, left, bound(block.right) * left)


@compute_block_bound.register
def _convnext(block: ConvNeXt, shape: Shape, radii: Radii = NO_RADII) -> float:
    layers = [block.depthwise, block.norm, block.expand, block.activation, block.project]
    return 1 + _largest(block.layer_scale) * compute_chain_bound(layers, shape, radii)


@compute_block_bound.register
def _implicit_euler(block: ImplicitEuler, shape: Shape, radii: Radii = NO_RADII) -> float:
    raise ValueError(
        "no Lipschitz bound is known of implicit Euler's block: its descent multiplies by the "
        "Jacobian of its residual, which jumps at the kinks of a ReLU; measure its local constants"
    )
