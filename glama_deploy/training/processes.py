"""What several processes share in a step: batch norm's statistics, and the gradients.

With these a step of N processes is the step of one with N times the batch, to a rounding. Gradients are averaged here
and not by DistributedDataParallel, which does not know of a penalty on gradients (equation 5) or of two passes through
the discriminator before one backward.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, distributed, nn
from torch.distributed.nn.functional import all_reduce


class SharedBatchNorm2d(nn.BatchNorm2d):
    """Batch norm over the batches of all processes; the same parameters and names as the plain one.

    (torch's SyncBatchNorm is for CUDA alone.)
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        wide = x if x.dtype == torch.float64 else x.float()
        count = wide.numel() / wide.shape[1] * distributed.get_world_size()
        sums = all_reduce(torch.stack([wide.sum((0, 2, 3)), wide.square().sum((0, 2, 3))]))
        mean = sums[0] / count
        variance = (sums[1] / count - mean.square()).clamp_min(0)
        self._remember(mean.detach(), variance.detach() * count / max(count - 1, 1))
        scale = self.weight * torch.rsqrt(variance + self.eps)
        shift = self.bias - mean * scale
        return (wide * scale[:, None, None] + shift[:, None, None]).to(x.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, unbiased: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(unbiased, self.momentum)
        self.num_batches_tracked += 1


def share_statistics(module: nn.Module) -> None:
    """Let all batch norms of the module see the batches of all processes."""
    for child in module.modules():
        if type(child) is nn.BatchNorm2d:
            child.__class__ = SharedBatchNorm2d


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Every process's gradients, averaged, in one message."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not gradients:  # of a discriminator that weighs nothing
        return
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    distributed.all_reduce(flat)
    flat /= distributed.get_world_size()
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))
