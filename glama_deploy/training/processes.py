"""Share batch norm's statistics and gradients between the processes of a run.

Except for rounding, a step of N processes then gives the result of one process with N times the batch. Gradients are
averaged here and not by DistributedDataParallel, which supports neither a penalty on gradients (equation 5) nor two
passes through the discriminator before one backward pass.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, distributed, nn
from torch.distributed.nn.functional import all_reduce


class SharedBatchNorm2d(nn.BatchNorm2d):
    """Batch norm over the batches of all processes, with the parameters and names of plain batch norm.

    torch's SyncBatchNorm supports only CUDA.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalize a batch, and update the running statistics in training mode.

        Args:
            x: float [B, C, H, W].

        Returns:
            A tensor of the same shape and dtype.
        """
        if not self.training:
            return super().forward(x)
        wide = x if x.dtype == torch.float64 else x.float()
        count = wide.numel() / wide.shape[1] * distributed.get_world_size()
        sums = all_reduce(torch.stack([wide.sum((0, 2, 3)), wide.square().sum((0, 2, 3))]))
        mean = sums[0] / count
        variance = (sums[1] / count - mean.square()).clamp_min(0)
        self._update_running_statistics(mean.detach(), variance.detach() * count / max(count - 1, 1))
        scale = self.weight * torch.rsqrt(variance + self.eps)
        shift = self.bias - mean * scale
        return (wide * scale[:, None, None] + shift[:, None, None]).to(x.dtype)

    @torch.no_grad()
    def _update_running_statistics(self, mean: Tensor, unbiased: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(unbiased, self.momentum)
        self.num_batches_tracked += 1


def share_statistics(module: nn.Module) -> None:
    """Make all batch norms of a module use the batches of all processes.

    Args:
        module: The module, changed in place.
    """
    for child in module.modules():
        if type(child) is nn.BatchNorm2d:
            child.__class__ = SharedBatchNorm2d


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Average gradients over all processes, in one message.

    Args:
        parameters: Parameters whose gradients are replaced by the mean.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not gradients:  # the discriminator's loss has a weight of 0
        return
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    distributed.all_reduce(flat)
    flat /= distributed.get_world_size()
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))
