"""Residual networks whose skip connections are implicit Euler steps.

Li et al., "Implicit Euler Skip Connections: Enhancing Adversarial Robustness via Numerical
Stability", ICML 2020. Norms are GroupNorms of one group; blocks that change the width take no step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

from torch import Tensor, nn

from blocks.implicit_euler import check_solver, implicit_euler
from blocks.layers import PreActivation, conv1x1, conv3x3, make_activation, make_norm, spatial_mean
from nasbench_at.networks.zoo.registry import InputShape, register_model

__all__ = ["ImplicitBlock", "ImplicitEulerNet"]

_REFERENCE = "Li et al., ICML 2020"


class BottleneckResidual(nn.Module):
    """norm, ReLU, convolution, three times: 1×1 to the hidden width, 3×3, 1×1.

    Args:
        in_channels: Input channels.
        hidden: Channels between the convolutions.
        out_channels: Output channels.
        stride: Stride of the 3×3 convolution.
    """

    def __init__(
        self, in_channels: int, hidden: int, out_channels: int, *, stride: int = 1
    ) -> None:
        super().__init__()
        self.norm1 = make_norm("layer", in_channels)
        self.conv1 = conv1x1(in_channels, hidden)
        self.norm2 = make_norm("layer", hidden)
        self.conv2 = conv3x3(hidden, hidden, stride=stride)
        self.norm3 = make_norm("layer", hidden)
        self.conv3 = conv1x1(hidden, out_channels)
        self.activation = make_activation("relu", norm="layer")

    def squeeze(self, x: Tensor) -> Tensor:
        """Maps ``(N, C_in, H, W)`` to ``(N, hidden, H/s, W/s)``: all but the third part."""
        hidden = self.conv1(self.activation(self.norm1(x)))
        squeezed: Tensor = self.conv2(self.activation(self.norm2(hidden)))
        return squeezed

    def expand(self, squeezed: Tensor) -> Tensor:
        """Maps ``(N, hidden, H, W)`` to ``(N, C_out, H, W)``: the third part."""
        output: Tensor = self.conv3(self.activation(self.norm3(squeezed)))
        return output

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(N, C_in, H, W)`` to ``(N, C_out, H/s, W/s)``."""
        return self.expand(self.squeeze(x))


class ImplicitBlock(nn.Module):
    """An implicit Euler step on a residual, see :func:`blocks.implicit_euler.implicit_euler`.

    The released ResNet-50 holds a copy of the residual for each descent step. Before a forward pass
    the copy takes over all but the third norm and convolution, which no gradient reaches either:
    these stay as they were drawn. In the last stage the residual's sign is wrong in the descent.

    Args:
        residual: Keeps the shape.
        copies: One for each descent step, never trained; without any, the residual itself.
        iterations: Number of descent steps.
        step: Length of a descent step.
        sign: Factor of the residual in the descent.
    """

    def __init__(
        self,
        residual: nn.Module,
        copies: Sequence[BottleneckResidual] = (),
        *,
        iterations: int,
        step: float,
        sign: float = 1.0,
    ) -> None:
        super().__init__()
        self.residual = residual
        self.copies = nn.ModuleList(copies).requires_grad_(False)
        self.iterations = iterations
        self.step = step
        self.sign = sign

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(N, C, H, W)`` to the same shape."""
        solvers: list[Callable[[Tensor], Tensor]] = [self.residual] * self.iterations
        if len(self.copies):
            solvers = [partial(self._solve_with, copy) for copy in self.copies]
        return implicit_euler(x, self.residual, solvers, step=self.step, sign=self.sign)

    def _solve_with(self, copy: nn.Module, y: Tensor) -> Tensor:
        assert isinstance(copy, BottleneckResidual)
        assert isinstance(self.residual, BottleneckResidual)
        return copy.expand(self.residual.squeeze(y))


class Transition(nn.Module):
    """f(x) + d(x), d norm, ReLU and a 3×3 convolution: changes the width, takes no step.

    Args:
        residual: f.
        in_channels: Input channels.
        out_channels: Output channels.
        stride: Stride of both branches.
        bias: Whether d's convolution has one.
    """

    def __init__(
        self, residual: nn.Module, in_channels: int, out_channels: int, *, stride: int, bias: bool
    ) -> None:
        super().__init__()
        self.residual = residual
        self.norm = make_norm("layer", in_channels)
        self.activation = make_activation("relu", norm="layer")
        self.conv = conv3x3(in_channels, out_channels, stride=stride, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(N, C_in, H, W)`` to ``(N, C_out, H/s, W/s)``."""
        output: Tensor = self.residual(x) + self.conv(self.activation(self.norm(x)))
        return output


class ImplicitEulerNet(nn.Module):
    """Stem, transitions and implicit steps, pool and head: images in [0, 1] to logits.

    Weights have PyTorch's default initialisation.

    Args:
        stem: First convolution.
        blocks: Transitions and implicit blocks in order.
        channels: Output channels of the last.
        num_classes: Number of classes.
    """

    def __init__(
        self,
        stem: nn.Conv2d,
        blocks: Sequence[nn.Module],
        channels: int,
        num_classes: int,
    ) -> None:
        super().__init__()
        self.stem = stem
        self.stem_norm = make_norm("layer", stem.out_channels)
        self.blocks = nn.Sequential(*blocks)
        self.norm = make_norm("layer", channels)
        self.activation = make_activation("relu", norm="layer")
        self.fc = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Maps images ``(N, C, H, W)`` in [0, 1] to logits ``(N, num_classes)``."""
        features = self.blocks(self.activation(self.stem_norm(self.stem(x))))
        features = self.activation(self.norm(features))
        logits: Tensor = self.fc(spatial_mean(features, training=self.training))
        return logits


class _Stage(NamedTuple):
    """A transition by bottlenecks, then implicit blocks."""

    transition_hidden: int
    channels: int
    num_implicit: int
    hidden: int
    stride: int


_STAGES_50 = (
    _Stage(32, 128, 2, 32, 1),
    _Stage(64, 256, 3, 64, 2),
    _Stage(128, 512, 5, 128, 2),
    _Stage(256, 2048, 2, 256, 2),
)
_STAGES_TINY = (
    _Stage(32, 32, 1, 32, 1),
    _Stage(32, 64, 1, 32, 2),
    _Stage(64, 128, 1, 64, 2),
)


def _register_bottlenecks(
    name: str, stages: Sequence[_Stage], stem_channels: int, summary: str, reference: str
) -> None:
    @register_model(name, summary=summary, reference=reference)
    def build(
        num_classes: int,
        input_shape: InputShape,
        *,
        iterations: int = 1,
        step: float = 0.1,
        authors: bool = False,
    ) -> ImplicitEulerNet:
        """Builds it with shared weights, or as the released class computes, see above."""
        check_solver(iterations, step)
        blocks = list(_bottleneck_blocks(stages, stem_channels, iterations, step, authors))
        stem = conv3x3(input_shape[0], stem_channels)
        return ImplicitEulerNet(stem, blocks, stages[-1].channels, num_classes)


def _bottleneck_blocks(
    stages: Sequence[_Stage], channels: int, iterations: int, step: float, authors: bool
) -> Iterator[nn.Module]:
    for stage in stages:
        width, stride = stage.channels, stage.stride
        residual = BottleneckResidual(channels, stage.transition_hidden, width, stride=stride)
        yield Transition(residual, channels, width, stride=stride, bias=False)
        channels = width
        for _ in range(stage.num_implicit):
            residual, *copies = (
                BottleneckResidual(channels, stage.hidden, channels)
                for _ in range(1 + iterations * authors)
            )
            sign = -1.0 if authors and stage is stages[-1] else 1.0
            yield ImplicitBlock(residual, copies, iterations=iterations, step=step, sign=sign)


_register_bottlenecks(
    "ie_resnet50", _STAGES_50, 32, "ResNet-50 with implicit Euler steps", _REFERENCE
)
_register_bottlenecks(
    "tiny_ie_resnet",
    _STAGES_TINY,
    16,
    "three stages of bottlenecks with implicit Euler steps",
    "ours",
)


@register_model(
    "ie_wrn_34_10",
    summary="WRN-34-10 with implicit Euler steps, laid out to have the published size",
    reference=_REFERENCE,
)
def _ie_wrn_34_10(
    num_classes: int, input_shape: InputShape, *, iterations: int = 1, step: float = 0.1
) -> ImplicitEulerNet:
    """Builds WRN-34-10 by the rules of IE-ResNet.

    The network was not released. Biased convolutions and weights shared between f and the descent
    are the reading that has the published number of parameters.
    """
    check_solver(iterations, step)
    stem = conv3x3(input_shape[0], 16, bias=True)
    blocks = list(_wide_blocks(iterations, step))
    return ImplicitEulerNet(stem, blocks, 640, num_classes)


def _wide_blocks(iterations: int, step: float) -> Iterator[nn.Module]:
    channels = 16
    for width, stride in ((160, 1), (320, 2), (640, 2)):
        residual = PreActivation(channels, width, stride=stride, activation="relu", norm="layer")
        yield Transition(residual, channels, width, stride=stride, bias=True)
        channels = width
        for _ in range(4):
            residual = PreActivation(width, width, activation="relu", norm="layer")
            yield ImplicitBlock(residual, iterations=iterations, step=step)
