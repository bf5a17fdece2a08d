"""Atomic blocks: modules from ``(N, C, H, W)`` to ``(N, C, H, W)``, each under a stable name."""

# The modules are imported so that their blocks are registered, in this order.
from blocks import residual, mbconv, dense, ada_rk, resnext, dla_tree  # noqa: F401, I001
from blocks import implicit_euler, runge_kutta, bottleneck, separable_conv, plain_conv, convnext  # noqa: F401
from blocks.plugins import load_entry_points, load_plugin
from blocks.registry import (
    BlockInfo,
    BlockKind,
    block_info,
    create_block,
    list_blocks,
    register_block,
)
from blocks.residual import ReductionBlock

__all__ = [
    "BlockInfo",
    "BlockKind",
    "ReductionBlock",
    "block_info",
    "create_block",
    "list_blocks",
    "load_entry_points",
    "load_plugin",
    "register_block",
]
