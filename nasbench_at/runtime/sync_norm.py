"""BatchNorm over the batches of all ranks, on any device.

``torch.nn.SyncBatchNorm`` needs a GPU. On the CPU, where many ranks are only ever tried out, the
same arithmetic is written with differentiable sums over ranks.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["CpuSyncBatchNorm2d", "GpuSyncBatchNorm2d", "share_batch_norm"]


def share_batch_norm(network: nn.Module) -> None:
    """Replaces every BatchNorm2d below a network by one that shares its statistics among ranks.

    Parameters and buffers stay the same objects, under the same names.
    """
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, _shared(child))


def _shared(norm: nn.BatchNorm2d) -> nn.Module:
    kind = GpuSyncBatchNorm2d if norm.weight.is_cuda else CpuSyncBatchNorm2d
    twin = kind(norm.num_features, eps=norm.eps, momentum=norm.momentum)
    twin.weight, twin.bias = norm.weight, norm.bias
    twin.running_mean, twin.running_var = norm.running_mean, norm.running_var
    twin.num_batches_tracked = norm.num_batches_tracked
    twin.training = norm.training
    return twin


class GpuSyncBatchNorm2d(nn.SyncBatchNorm):
    """torch's, which asks other ranks in an attack in training mode too; this one does not."""

    is_affine_in_eval_mode = True
    """Lets :func:`nasbench_at.attacks.folding.folded_norms` have it."""

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(N, C, H, W)`` to the same shape."""
        if self.training and not self.track_running_stats:
            return F.batch_norm(x, None, None, self.weight, self.bias, True, 0.0, self.eps)
        output: Tensor = super().forward(x)
        return output


class CpuSyncBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm2d whose training statistics are those of all ranks' batches together."""

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(N, C, H, W)`` to the same shape."""
        # An attack that normalises by batch statistics (track_running_stats off) stays local.
        if not self.training or not self.track_running_stats:
            return super().forward(x)
        count = x.new_tensor([x.numel() / x.shape[1]])
        sums = torch.cat((x.sum(dim=(0, 2, 3)), x.square().sum(dim=(0, 2, 3)), count))
        sums = all_reduce(sums)
        total = sums[-1]
        mean, square = (sums[:-1] / total).chunk(2)
        variance = square - mean.square()
        self._update(mean.detach(), variance.detach() * total.detach() / (total.detach() - 1))
        scale = self.weight * (variance + self.eps).rsqrt()
        shift = self.bias - mean * scale
        output: Tensor = x * scale[:, None, None] + shift[:, None, None]
        return output

    @torch.no_grad()
    def _update(self, mean: Tensor, variance: Tensor) -> None:
        assert self.momentum is not None
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)
        self.num_batches_tracked.add_(1)


def all_reduce(tensor: Tensor) -> Tensor:
    """Returns a tensor's sum over ranks, through which gradients flow to all of them."""
    total: Tensor = _SumOverRanks.apply(tensor)
    return total


class _SumOverRanks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        dist.all_reduce(total)
        return total
