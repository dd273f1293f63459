"""LPIPS and Inception's features, of a whole image as their packages compute them, and of its missing pixels.

Both end in a mean over positions. Of the whole image it is theirs; of the missing pixels each position counts as far as
its pixels are missing. What is around a hole is seen, as always, but not counted.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from glama_deploy.evaluation.metrics import backbones
from glama_deploy.evaluation.metrics.backbones import Backbone


class Lpips:
    """The distance of two images (Zhang et al., CVPR 2018, equation 1)."""

    def __init__(self, backbone: Backbone, path: Path, device: torch.device) -> None:
        """path: the backbone's file. Raises GlamaError for one that is damaged or of another network."""
        self._metric = backbones.lpips(backbone, path).to(device)
        self._maps = _Outputs(self._metric.net.lins)  # type: ignore[arg-type, union-attr]

    def distances(self, found: Tensor, truth: Tensor, missing: Tensor) -> tuple[float, float]:
        """Of the missing pixels and of the whole; images [1, 3, H, W], 0…1, missing bool [H, W]."""
        self._maps.clear()
        whole = float(self._metric(found, truth))
        self._metric.reset()  # type: ignore[operator]
        # as the authors' `spatial=True`: each layer's map is brought to the image's size
        maps = [functional.interpolate(m, missing.shape, mode="bilinear", align_corners=False) for m in self._maps]
        within = sum(float(m[0, 0][missing].mean()) for m in maps)
        return within, whole


class Inception:
    """What the Inception network of the original FID sees in an image: the mean of the 8×8 positions of its last maps,
    2048 features."""

    def __init__(self, path: Path, device: torch.device) -> None:
        """path: its file. Raises GlamaError for one that is damaged or of another network."""
        self._network, self._device = backbones.inception(path).to(device), device
        self._maps = _Outputs([self._network.Mixed_7c])  # type: ignore[list-item]

    def features(self, image: np.ndarray, masks: list[np.ndarray]) -> np.ndarray:
        """Of an image uint8 H×W×3, for each mask (bool H×W): float32 [masks, 2, 2048], of the missing pixels (NaN where
        there are none) and of the whole."""
        self._maps.clear()
        pixels = torch.from_numpy(image.transpose(2, 0, 1).copy())
        whole = self._network(pixels[None].to(self._device))[0][0]
        (maps,) = self._maps
        missing = torch.from_numpy(np.stack(masks)).to(self._device, torch.float32)
        # the share of missing pixels in each position's part of the image, about a sixty-fourth
        weights = functional.adaptive_avg_pool2d(missing, (maps.shape[2], maps.shape[3]))
        weights = weights / weights.sum(dim=(1, 2), keepdim=True)
        within = torch.einsum("chw,mhw->mc", maps[0].to(torch.float32), weights)
        return torch.stack([within, whole.expand_as(within)], dim=1).cpu().numpy()


class _Outputs(list[Tensor]):
    """What modules put out, in order, since the list was cleared."""

    def __init__(self, modules: nn.ModuleList | list[nn.Module]) -> None:
        super().__init__()
        for module in modules:
            module.register_forward_hook(lambda module, inputs, output: self.append(output))
