"""LPIPS and Inception's features, of a whole image as their packages compute them, and of its missing pixels.

Both end in a mean over positions. Of the whole image it is theirs; of the missing pixels each position counts as far as
its pixels are missing. What is around a hole is seen, as always, but not counted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from glama_deploy.evaluation.metrics import backbones
from glama_deploy.evaluation.metrics.pairs import Measurement, Pair
from glama_deploy.evaluation.metrics.registry import Scaling
from glama_deploy.evaluation.metrics.weight_file import WeightFile


class Lpips:
    """The distance of two images (Zhang et al., CVPR 2018, equation 1)."""

    def __init__(self, network: str, weights: WeightFile, path: Path, device: str) -> None:
        """Open the network.

        Args:
            network: "alex" or "vgg".
            weights: the record of the network's file.
            path: the file.
            device: where the network runs, as PyTorch names it.

        Raises:
            GlamaError: the file is damaged or holds another network.
        """
        self._network = backbones.open_lpips(network, weights, path).to(device)
        self._see_truth = backbones.LastFeatures(self._see)

    def measure(self, pair: Pair) -> Measurement:
        """Measure the distance of two images.

        Args:
            pair: the inpainted image beside the photograph.

        Returns:
            The distances of the missing pixels and of the whole image.
        """
        found, truth, missing = pair.tensors
        whole, within = torch.zeros((), device=found.device), 0.0
        layers: nn.ModuleList = self._network.lins  # type: ignore[assignment]
        for layer, one, other in zip(layers, self._see_truth(truth), self._see(found), strict=True):
            distances = layer((one - other).square())
            whole = whole + distances.mean()
            within += backbones.average_missing(distances, missing)
        return Measurement(within, float(whole))

    def _see(self, image: Tensor) -> list[Tensor]:
        """Return the unit vectors of the maps of an image [1, 3, H, W] of 0…1, as torchmetrics has them."""
        maps = self._network.net(self._network.scaling_layer(2 * image - 1))  # type: ignore[operator]
        return [each / (each.square().sum(1, keepdim=True) + 1e-8).sqrt() for each in maps]


class Inception:
    """The features that the Inception network of the original FID sees in an image.

    The 2048 features are the mean of the 8×8 positions of the network's last maps.
    """

    def __init__(self, path: Path, device: str, scaling: Scaling) -> None:
        """Open the network.

        Args:
            path: the file of weights.
            device: where the network runs, as PyTorch names it.
            scaling: how images are scaled to the network's size.

        Raises:
            GlamaError: the file is damaged or holds another network.
        """
        network = backbones.open_inception(path).to(device)
        self._layers = nn.Sequential(*(getattr(network, name) for name in _INCEPTION_LAYERS))
        self._scale, self._device = _SCALINGS[scaling], device

    def features(self, image: np.ndarray, masks: Sequence[np.ndarray]) -> np.ndarray:
        """Return the features of an image with masks.

        Args:
            image: uint8 H×W×3.
            masks: the missing pixels, bool H×W each.

        Returns:
            float32 [masks, 2, 2048], of the missing pixels (NaN where no pixel is missing) and of the whole image.
        """
        pixels = torch.from_numpy(image.transpose(2, 0, 1).copy())[None].to(self._device)
        maps = self._layers(self._scale(pixels))
        whole = functional.adaptive_avg_pool2d(maps, 1).flatten()
        missing = torch.from_numpy(np.stack(masks)).to(self._device, torch.float32)
        # the share of missing pixels in each position's part of the image, about a sixty-fourth
        weights = functional.adaptive_avg_pool2d(missing, (maps.shape[2], maps.shape[3]))
        weights = weights / weights.sum(dim=(1, 2), keepdim=True)
        within = torch.einsum("chw,mhw->mc", maps[0], weights)
        return torch.stack([within, whole.expand_as(within)], dim=1).cpu().numpy()


#: The layers of torch-fidelity's network up to its last maps, [B, 2048, 8, 8].
_INCEPTION_LAYERS = (
    *("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "MaxPool_1", "Conv2d_3b_1x1", "Conv2d_4a_3x3", "MaxPool_2"),
    *("Mixed_5b", "Mixed_5c", "Mixed_5d", "Mixed_6a", "Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"),
    *("Mixed_7a", "Mixed_7b", "Mixed_7c"),
)

#: Height and width of the images that Inception sees.
_INCEPTION_SIZE = (299, 299)


def _scale_as_tensorflow(pixels: Tensor) -> Tensor:
    """Scale as TensorFlow 1 did for the original FID: bilinear, the first pixels on each other."""
    from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

    return (
        interpolate_bilinear_2d_like_tensorflow1x(pixels.float(), size=_INCEPTION_SIZE, align_corners=False) - 128
    ) / 128


def _scale_as_pytorch(pixels: Tensor) -> Tensor:
    """Scale as pytorch-fid and LaMa's evaluator do: bilinear, the middles of pixels on each other."""
    return 2 * functional.interpolate(pixels.float() / 255, _INCEPTION_SIZE, mode="bilinear", align_corners=False) - 1


def _scale_clean(pixels: Tensor) -> Tensor:
    """Scale as clean-fid does: bicubic and antialiased, without rounding (Parmar et al., CVPR 2022)."""
    channels = [Image.fromarray(channel) for channel in pixels[0].cpu().float().numpy()]
    scaled = np.stack([np.asarray(channel.resize(_INCEPTION_SIZE, Image.Resampling.BICUBIC)) for channel in channels])
    return (torch.from_numpy(scaled.clip(0, 255))[None].to(pixels.device) - 128) / 128


#: The scalings. Each takes uint8 [1, 3, H, W] and returns float32 [1, 3, 299, 299] of −1…1.
_SCALINGS: dict[Scaling, Callable[[Tensor], Tensor]] = {
    "tensorflow": _scale_as_tensorflow,
    "pytorch": _scale_as_pytorch,
    "clean": _scale_clean,
}


def compute_fid(found: np.ndarray, truth: np.ndarray) -> float:
    """Return the Fréchet distance of two sets of features (Heusel et al., NeurIPS 2017, equation 6).

    torch-fidelity computes the distance from two D×D covariances. A basis of the space that both sets span leaves the
    distance as it is, and for few images the space is much smaller than D.

    Args:
        found: features of the results, float [N, D], N ≥ 2.
        truth: features of the photographs, float [M, D], M ≥ 2.

    Returns:
        The distance, 0 for equal sets.
    """
    from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric

    sets = [features.astype(np.float64) for features in (found, truth)]
    if len(found) + len(truth) < found.shape[1]:
        basis, _ = np.linalg.qr(np.concatenate(sets).T)
        sets = [features @ basis for features in sets]
    statistics = (fid_features_to_statistics(torch.from_numpy(features)) for features in sets)
    return float(fid_statistics_to_metric(*statistics, verbose=False)[KEY_METRIC_FID])
