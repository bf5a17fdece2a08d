"""``torch.compile``, block by block, with one way back to eager mode."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

from blocks import ReductionBlock
from nasbench_at.attacks.guard import cuda_devices
from nasbench_at.networks.ds_net import RobustModule

__all__ = ["compile_blocks"]


def compile_blocks(network: nn.Module, example: Tensor) -> bool:
    """Compiles each block on its own, in place; keys of the state_dict do not change.

    Compiling a whole DS-Net takes minutes; equal blocks share their compiled code. If the first
    compiled pass fails, everything goes back to eager mode, with a warning. That pass leaves
    BatchNorm statistics and the global random state as they were.

    Args:
        network: The network.
        example: Images to try it with, shape ``(N, C, H, W)``.

    Returns:
        Whether the network is compiled now.
    """
    # A block's forward is compiled for every width and mode that it is called in.
    torch._dynamo.config.cache_size_limit = max(torch._dynamo.config.cache_size_limit, 64)
    parts = compilable_parts(network)
    for part in parts:
        part.compile()
    buffers = [(buffer, buffer.clone()) for buffer in network.buffers()]
    try:
        with torch.random.fork_rng(devices=cuda_devices(network)):
            network(example.detach().requires_grad_()).sum().backward()
    except Exception as error:  # noqa: BLE001 - a compiler's failure can be anything
        for part in parts:
            part._compiled_call_impl = None
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        warnings.warn(f"compilation failed, going on in eager mode: {reason}", stacklevel=2)
        return False
    finally:
        network.zero_grad(set_to_none=True)
        for buffer, before in buffers:
            buffer.copy_(before)
    return True


def compilable_parts(network: nn.Module) -> list[nn.Module]:
    """Returns the blocks and reductions of a DS-Net, or another network as a whole."""
    parts: list[nn.Module] = []
    for module in network.modules():
        if isinstance(module, RobustModule):
            parts.extend(module.blocks)
        elif isinstance(module, ReductionBlock):
            parts.append(module)
    return parts or [network]
