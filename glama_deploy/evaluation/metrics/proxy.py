"""A proxy of LPIPS whose weights need no download: the same distance, in the features of another network.

LPIPS (Zhang et al., CVPR 2018) compares unit vectors of features of AlexNet or VGG-16, with weights of channels that
were fitted to people's judgements. The proxy compares unit vectors of features of EfficientNet-Lite0, and all channels
have the weight 1. The values are not those of LPIPS. They compare methods within this project.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from glama_deploy.errors import GlamaError
from glama_deploy.evaluation.metrics import backbones
from glama_deploy.evaluation.metrics.pairs import Measurement, Pair
from glama_deploy.evaluation.metrics.registry import METRICS
from glama_deploy.reference import efficientnet_lite


class LpipsProxy:
    """The distance of two images in features of EfficientNet-Lite0."""

    def __init__(self, path: Path, device: str) -> None:
        """Open the network.

        Args:
            path: the file of weights.
            device: where the network runs, as PyTorch names it.

        Raises:
            GlamaError: the file is not the published file.
        """
        self._see = efficientnet_lite.load(path).to(device)
        self._see_truth = backbones.LastFeatures(self._see)

    def measure(self, pair: Pair) -> Measurement:
        """Measure the distance of two images.

        Args:
            pair: the inpainted image beside the photograph.

        Returns:
            The distances of the missing pixels and of the whole image, 0…2.
        """
        found, truth, missing = pair.tensors
        whole = within = 0.0
        for one, other in zip(self._see_truth(truth), self._see(found), strict=True):
            squares = (one - other).square().mean(1, keepdim=True)
            whole += float(squares.mean())
            within += backbones.average_missing(squares, missing)
        return Measurement(within, whole)


@torch.inference_mode()
def measure_lpips_proxy(found: np.ndarray, truth: np.ndarray, missing: np.ndarray, device: str = "cpu") -> Measurement:
    """Measure the distance of two images with the network in the installed package.

    Args:
        found: the inpainted image with the known pixels in place, uint8 H×W×3.
        truth: the photograph, uint8 H×W×3.
        missing: bool H×W with at least one pixel.
        device: where the network runs, as PyTorch names it.

    Returns:
        The distances of the missing pixels and of the whole image, 0…2.

    Raises:
        GlamaError: the package is not installed.
    """
    return _open_packaged(device).measure(Pair(found, truth, missing, device))


@lru_cache(maxsize=1)
def _open_packaged(device: str) -> LpipsProxy:
    """Return the metric with the network in the installed package. Raises GlamaError where there is none."""
    weights = METRICS["lpips-proxy"].weights
    assert weights is not None
    path = backbones.find_file(weights, None)
    if path is None:
        raise GlamaError(backbones.describe_absence(weights))
    return LpipsProxy(path, device)
