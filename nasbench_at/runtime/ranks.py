"""Many processes, one run: who takes part, what is shared, and when."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from nasbench_at.runtime.sync_norm import share_batch_norm

__all__ = ["Ranks", "distributed"]


@dataclass(frozen=True)
class Ranks:
    """This process's place among the ranks of a run; a single process is rank 0 of 1.

    Attributes:
        rank: This process, 0 to ``world_size - 1``; rank 0 alone writes.
        world_size: Number of processes.
        local_rank: This process among those of its machine: the GPU it takes.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0

    @property
    def is_main(self) -> bool:
        """Whether this rank writes."""
        return self.rank == 0

    @property
    def shard(self) -> tuple[int, int]:
        """Which part of every batch this rank computes."""
        return self.rank, self.world_size

    def wrap(self, network: nn.Module, *, sync_batch_norm: bool) -> nn.Module:
        """Returns the network to compute the loss with: its gradients are averaged over ranks.

        The attack runs on the bare network and so never waits for other ranks.

        Args:
            network: The bare network; with ``sync_batch_norm`` its norms are replaced in place.
            sync_batch_norm: Share BatchNorm statistics. Without it, ranks normalise by their own
                share of the batch, and rank 0's running statistics count.
        """
        if self.world_size == 1:
            return network
        if sync_batch_norm:
            share_batch_norm(network)
        with warnings.catch_warnings():
            # Newer torch has another name for the option, which older torch does not know.
            warnings.simplefilter("ignore", FutureWarning)
            # Its own way to share buffers writes into them before every forward pass: the first
            # of two in a step, as in TRADES, could not be differentiated any more with cuDNN.
            return DistributedDataParallel(network, broadcast_buffers=False)

    def share_buffers(self, network: nn.Module) -> None:
        """Gives all ranks rank 0's buffers, the norms' running statistics."""
        buffers = [buffer for buffer in network.buffers() if buffer.is_floating_point()]
        if self.world_size == 1 or not buffers:
            return
        flat = torch.cat([buffer.flatten() for buffer in buffers])
        dist.broadcast(flat, src=0)
        parts = torch.split(flat, [buffer.numel() for buffer in buffers])
        for buffer, values in zip(buffers, parts, strict=True):
            buffer.copy_(values.view_as(buffer))

    def sum(self, tensor: Tensor) -> Tensor:
        """Returns a tensor's sum over ranks."""
        if self.world_size > 1:
            dist.all_reduce(tensor)
        return tensor

    def true_on_all(self, flags: Tensor) -> Tensor:
        """Returns which entries of a boolean tensor are true on all ranks."""
        return self.sum((~flags).long()) == 0

    def place(self, device: torch.device) -> torch.device:
        """Returns this rank's own GPU if ranks compute on GPUs, else the device as it is."""
        if device.type == "cuda" and self.world_size > 1:
            return torch.device("cuda", self.local_rank)
        return device

    def agree(self, *flags: bool) -> tuple[bool, ...]:
        """Returns for each flag whether any rank raised it: the same answer on all ranks.

        On the CPU, so that no rank waits for its device.
        """
        counts = self.sum(torch.tensor(flags, dtype=torch.int64))
        return tuple(count > 0 for count in counts.tolist())

    def barrier(self) -> None:
        """Waits for all ranks."""
        if self.world_size > 1:
            dist.barrier()


@contextmanager
def distributed(device: torch.device) -> Iterator[Ranks]:
    """Joins the ranks that ``torchrun`` started, if it did, for the length of the block.

    Args:
        device: Where to compute; decides between NCCL and gloo.

    Raises:
        ValueError: If there are more ranks on this machine than GPUs.
    """
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size == 1:
        yield Ranks()
        return
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    if device.type == "cuda":
        if local_rank >= torch.cuda.device_count():
            raise ValueError(
                f"rank {local_rank} of this machine has no GPU: there are "
                f"{torch.cuda.device_count()}; start at most so many ranks"
            )
        torch.cuda.set_device(local_rank)
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    try:
        yield Ranks(dist.get_rank(), world_size, local_rank)
    finally:
        dist.destroy_process_group()
