"""Wide residual networks.

Zagoruyko and Komodakis, "Wide Residual Networks", BMVC 2016, as in the code of TRADES and MART.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from blocks.layers import PreActivation, conv1x1, conv3x3, make_activation, spatial_mean
from nasbench_at.networks.zoo.registry import InputShape, register_model, register_model_pattern

__all__ = ["PreActBlock", "WideResNet", "load_trades_state_dict", "stack_blocks"]

_REFERENCE = "Zagoruyko and Komodakis, BMVC 2016; yaodongyu/TRADES"


class PreActBlock(nn.Module):
    """y = f(a) + shortcut, a = act(norm₁(x)), f: conv3×3, norm, activation, conv3×3.

    The shortcut is x, or conv1×1(a) where width or resolution change.

    Args:
        in_channels: Input channels i.
        out_channels: Output channels o.
        stride: Stride s of the first convolution.
        activation: Name of the activation.
        raw_shortcut: Whether a convolved shortcut takes x in place of a.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        stride: int = 1,
        activation: str = "relu",
        raw_shortcut: bool = False,
    ) -> None:
        super().__init__()
        self.residual = PreActivation(
            in_channels,
            out_channels,
            stride=stride,
            activation=activation,
            norm="batch",
            bias=False,
        )
        self.shortcut: nn.Module | None = None
        if stride > 1 or in_channels != out_channels:
            self.shortcut = conv1x1(in_channels, out_channels, stride=stride)
        self.raw_shortcut = raw_shortcut

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(N, i, H, W)`` to ``(N, o, ceil(H/s), ceil(W/s))``."""
        activated = self.residual.activate_input(x)
        output = self.residual.convolve(activated)
        if self.shortcut is None:
            return output + x
        shortcut: Tensor = self.shortcut(x if self.raw_shortcut else activated)
        return output + shortcut


def stack_blocks(
    channels: int, widths: Sequence[int], depths: Sequence[int], **options: Any
) -> nn.Sequential:
    """Builds stages of :class:`PreActBlock`; each after the first begins by halving resolution.

    Args:
        channels: Input channels of the first block.
        widths: Channels of each stage.
        depths: Number of blocks of each stage.
        **options: Of every block.
    """
    blocks = nn.Sequential()
    for stage, (width, depth) in enumerate(zip(widths, depths, strict=True)):
        for i in range(depth):
            stride = 2 if stage > 0 and i == 0 else 1
            blocks.append(PreActBlock(channels, width, stride=stride, **options))
            channels = width
    return blocks


class WideResNet(nn.Module):
    """A wide residual network: images in [0, 1] to logits.

    Convolutions start from N(0, 2/(k²·C_out)), the linear layer's bias from zero.

    Args:
        depth: Number of convolutions D; 6n + 4.
        widen_factor: By how much the three groups are wider than 16, 32 and 64.
        num_classes: Number of classes.
        in_channels: Channels of the images.
        activation: A name of :func:`blocks.layers.make_activation`.

    Raises:
        ValueError: If depth is not 6n + 4 or a number is too small.
    """

    def __init__(
        self,
        depth: int,
        widen_factor: int,
        *,
        num_classes: int,
        in_channels: int,
        activation: str = "relu",
    ) -> None:
        super().__init__()
        _check_size(depth, widen_factor)
        self.conv = conv3x3(in_channels, 16)
        self.blocks_per_group = (depth - 4) // 6
        widths = [16 * 2**group * widen_factor for group in range(3)]
        self.blocks = stack_blocks(16, widths, [self.blocks_per_group] * 3, activation=activation)
        self.norm = nn.BatchNorm2d(widths[-1])
        self.activation = make_activation(activation, norm="batch")
        self.fc = nn.Linear(widths[-1], num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.fc.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Maps images ``(N, C, H, W)`` in [0, 1] to logits ``(N, num_classes)``."""
        features = self.activation(self.norm(self.blocks(self.conv(x))))
        logits: Tensor = self.fc(spatial_mean(features, training=self.training))
        return logits


def _check_size(depth: int, widen_factor: int) -> None:
    if depth < 10 or depth % 6 != 4:
        raise ValueError(f"the depth of a wide ResNet must be 10, 16, 22, ..., got {depth}")
    if widen_factor < 1:
        raise ValueError(f"the widening factor must be at least 1, got {widen_factor}")


_TRADES_OUTSIDE = {"conv1": "conv", "bn1": "norm", "fc": "fc"}
_TRADES_BLOCK = {
    "bn1": "residual.norm1",
    "conv1": "residual.conv1",
    "bn2": "residual.norm2",
    "conv2": "residual.conv2",
    "convShortcut": "shortcut",
}


def load_trades_state_dict(network: WideResNet, state_dict: Mapping[str, Tensor]) -> None:
    """Loads the weights of a WideResNet of TRADES or MART.

    Their ``sub_block1``, which no forward pass uses, is dropped.

    Args:
        network: A network of the same size; it is changed only if everything fits.
        state_dict: Theirs; all keys may start with ``module.``, as DataParallel writes them.

    Raises:
        ValueError: If a key or a shape is not that of the network; the message names it.
    """
    prefix = "module." if all(key.startswith("module.") for key in state_dict) else ""
    theirs = {
        key.removeprefix(prefix): value
        for key, value in state_dict.items()
        if not key.startswith(f"{prefix}sub_block1.")
    }
    own = network.state_dict()
    renamed = {}
    for key, value in theirs.items():
        ours = _rename_trades_key(key, network.blocks_per_group)
        if ours not in own:
            raise ValueError(f"{key!r} has no place in this wide ResNet; is its depth another?")
        if value.shape != own[ours].shape:
            raise ValueError(
                f"{key!r} has shape {tuple(value.shape)}, this wide ResNet needs "
                f"{tuple(own[ours].shape)}"
            )
        renamed[ours] = value
    for ours in own:
        if ours not in renamed:
            raise ValueError(f"the state_dict has nothing for {ours!r} of this wide ResNet")
    network.load_state_dict(renamed)


def _rename_trades_key(key: str, blocks_per_group: int) -> str | None:
    if match := re.fullmatch(r"block([123])\.layer\.(\d+)\.(\w+)\.(\w+)", key):
        group, index, part, leaf = match.groups()
        if part not in _TRADES_BLOCK or int(index) >= blocks_per_group:
            return None
        place = (int(group) - 1) * blocks_per_group + int(index)
        return f"blocks.{place}.{_TRADES_BLOCK[part]}.{leaf}"
    part, _, leaf = key.partition(".")
    return f"{_TRADES_OUTSIDE[part]}.{leaf}" if part in _TRADES_OUTSIDE else None


@register_model_pattern(
    "wrn_D_W", r"wrn_(\d+)_(\d+)", summary="wide ResNet, depth D, width W", reference=_REFERENCE
)
def _wrn(depth: int, widen_factor: int) -> Callable[..., WideResNet]:
    _check_size(depth, widen_factor)

    def build(num_classes: int, input_shape: InputShape) -> WideResNet:
        return WideResNet(depth, widen_factor, num_classes=num_classes, in_channels=input_shape[0])

    return build


for _name, _depth, _widen_factor, _reference in (
    ("wrn_34_10", 34, 10, _REFERENCE),
    ("wrn_28_10", 28, 10, _REFERENCE),
    ("tiny_wrn", 10, 1, "ours"),
):
    register_model(
        _name,
        summary=f"wide ResNet, depth {_depth}, width {_widen_factor}",
        reference=_reference,
    )(_wrn(_depth, _widen_factor))


@register_model(
    "sat_wrn_34_10",
    summary="WRN-34-10 with a smooth activation in place of every ReLU",
    reference="Xie et al., 2020",
)
def _sat_wrn_34_10(
    num_classes: int, input_shape: InputShape, *, activation: str = "silu"
) -> WideResNet:
    return WideResNet(
        34, 10, num_classes=num_classes, in_channels=input_shape[0], activation=activation
    )
