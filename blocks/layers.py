"""Pieces that several blocks share: activations, norms, convolutions."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = [
    "PreActivation",
    "check_kernel_size",
    "conv1x1",
    "conv3x3",
    "make_activation",
    "make_norm",
    "norm_with_updates",
    "spatial_mean",
]


class SmoothReLU(nn.Module):
    """x − log(βx + 1)/β for positive x, else 0: a ReLU whose gradient is continuous.

    Xie et al., "Smooth Adversarial Training", 2020. β = beta_raw², learned, starts at 400.
    """

    def __init__(self) -> None:
        super().__init__()
        self.beta_raw = nn.Parameter(torch.tensor(20.0))

    def forward(self, x: Tensor) -> Tensor:
        """Maps any shape to the same shape."""
        beta = self.beta_raw.square()
        positive = x.relu()
        return positive - (beta * positive).log1p() / beta


class ChannelLayerNorm(nn.Module):
    """Normalises the channels of each pixel, as ConvNeXt does (Liu et al., CVPR 2022)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(N, C, H, W)`` to the same shape."""
        channels_last = x.permute(0, 2, 3, 1)
        normalised = F.layer_norm(channels_last, self.weight.shape, self.weight, self.bias, 1e-6)
        return normalised.permute(0, 3, 1, 2)


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "softplus": nn.Softplus,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "smooth_relu": SmoothReLU,
}

NORMS: dict[str, Callable[[int], nn.Module]] = {
    "batch": nn.BatchNorm2d,
    "layer": lambda channels: nn.GroupNorm(1, channels),
    "channel_layer": ChannelLayerNorm,
    "none": lambda channels: nn.Identity(),
}


def make_activation(name: str, *, norm: str = "none") -> nn.Module:
    """Builds an activation.

    Args:
        name: Which one.
        norm: Name of the norm whose output it takes. Behind a real norm a ReLU works in place: its
            input is a tensor of its own, which no backward pass looks at.

    Raises:
        ValueError: If the name is not one of ``relu``, ``silu``, ``softplus``, ``elu``, ``gelu``,
            ``smooth_relu``.
    """
    if name not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {name!r}")
    if name == "relu" and norm != "none":
        return nn.ReLU(inplace=True)
    return ACTIVATIONS[name]()


def make_norm(name: str, channels: int) -> nn.Module:
    """Builds a norm over ``channels`` channels.

    ``"layer"`` normalises over channels and space together, as GroupNorm with one group does;
    ``"channel_layer"`` over the channels of each pixel.

    Raises:
        ValueError: If the name is not one of ``batch``, ``layer``, ``channel_layer``, ``none``.
    """
    if name not in NORMS:
        raise ValueError(f"norm must be one of {', '.join(NORMS)}, got {name!r}")
    return NORMS[name](channels)


def norm_with_updates(norm: nn.Module, x: Tensor, updates: int) -> Tensor:
    """Applies a norm once and moves its running statistics as ``updates`` calls would.

    Calling a BatchNorm n times on one input yields one output and n equal updates of its running
    statistics, which is a single update with momentum 1 − (1 − m)ⁿ. So code that applies a norm
    repeatedly can be matched without computing anything twice.

    Args:
        norm: The norm; those without running statistics are simply called.
        x: Shape ``(N, C, H, W)``.
        updates: How many calls to stand for, at least 1.

    Returns:
        The normalised input, shape ``(N, C, H, W)``.
    """
    if updates == 1 or not (
        isinstance(norm, _BatchNorm) and norm.training and norm.track_running_stats
    ):
        output: Tensor = norm(x)
        return output
    momentum = norm.momentum
    assert momentum is not None
    assert norm.num_batches_tracked is not None
    norm.momentum = 1 - (1 - momentum) ** updates
    try:
        output = norm(x)
    finally:
        norm.momentum = momentum
    norm.num_batches_tracked.add_(updates - 1)
    return output


def check_kernel_size(kernel_size: int) -> None:
    """Raises a ValueError if a kernel has no middle, so that no padding keeps the resolution."""
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(f"kernel_size must be odd and positive, got {kernel_size}")


def spatial_mean(x: Tensor, *, training: bool) -> Tensor:
    """Returns each channel's mean over space; outside training, with a gradient in x's layout.

    The gradient of ``x.mean(dim=(2, 3))`` is written channels first, and so is all that is computed
    from it. Adding that to a tensor in channels_last takes several times as long. An attack's
    gradients have the same bits without it. The gradients of a training step have not, since
    BatchNorm adds up in the order of the layout: there it stays, so that recorded runs can be
    trained again to the bit.

    Args:
        x: Shape ``(N, C, H, W)``.
        training: The mode of the module that calls.

    Returns:
        Shape ``(N, C)``.
    """
    is_channels_last = x.stride(1) == 1  # `is_contiguous` does not know that layout under vmap
    if training or not is_channels_last:
        return x.mean(dim=(2, 3))
    return x.permute(0, 2, 3, 1).mean(dim=(1, 2))


class PointwiseConv2d(nn.Conv2d):
    """A 1×1 convolution whose stride is taken before it where PyTorch's kernel is unsafe.

    torch 2.14.1 on the CPU corrupts the heap in the weight gradient of a strided 1×1 convolution
    in channels_last with fewer than 8 input channels. Dropping the skipped pixels first computes
    the same function and never reaches that kernel.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(N, C_in, H, W)`` to ``(N, C_out, ceil(H/s), ceil(W/s))`` for stride s."""
        if self.stride == (1, 1) or x.device.type != "cpu" or self.in_channels >= 8:
            return super().forward(x)
        rows, columns = self.stride
        return F.conv2d(x[:, :, ::rows, ::columns].contiguous(), self.weight, self.bias)


def conv1x1(
    in_channels: int, out_channels: int, *, stride: int = 1, bias: bool = False
) -> nn.Conv2d:
    """Builds a 1×1 convolution."""
    return PointwiseConv2d(in_channels, out_channels, 1, stride=stride, bias=bias)


def conv3x3(
    in_channels: int, out_channels: int, *, stride: int = 1, groups: int = 1, bias: bool = False
) -> nn.Conv2d:
    """Builds a 3×3 convolution that keeps the resolution at stride 1."""
    return nn.Conv2d(
        in_channels, out_channels, 3, stride=stride, padding=1, groups=groups, bias=bias
    )


class PreActivation(nn.Module):
    """norm, activation, 3×3 convolution, twice: the residual that several blocks share.

    Args:
        in_channels: Input channels.
        out_channels: Output channels.
        stride: Stride of the first convolution.
        activation: Name of the activation.
        norm: Name of the norm.
        bias: Whether the convolutions have one.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        stride: int = 1,
        activation: str,
        norm: str,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.norm1 = make_norm(norm, in_channels)
        self.conv1 = conv3x3(in_channels, out_channels, stride=stride, bias=bias)
        self.norm2 = make_norm(norm, out_channels)
        self.conv2 = conv3x3(out_channels, out_channels, bias=bias)
        self.activation = make_activation(activation, norm=norm)

    def activate_input(self, x: Tensor, *, updates: int = 1) -> Tensor:
        """First norm and activation; ``updates`` as in :func:`norm_with_updates`."""
        activated: Tensor = self.activation(norm_with_updates(self.norm1, x, updates))
        return activated

    def convolve(self, activated: Tensor, *, updates: int = 1) -> Tensor:
        """The rest: both convolutions with norm and activation between them."""
        hidden = norm_with_updates(self.norm2, self.conv1(activated), updates)
        output: Tensor = self.conv2(self.activation(hidden))
        return output

    def forward(self, x: Tensor, *, updates: int = 1) -> Tensor:
        """Maps ``(N, C_in, H, W)`` to ``(N, C_out, H/s, W/s)``."""
        return self.convolve(self.activate_input(x, updates=updates), updates=updates)
