"""What an inpainted image is worth: the metrics, computed by torchmetrics and torch-fidelity; the spectrum's is ours.

All are of 8-bit images, as a user gets them, with the known pixels in place. `whole` is the image, `missing` its
missing pixels alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor
from torchmetrics.functional import mean_absolute_error
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from glama_deploy.errors import GlamaError
from glama_deploy.evaluation.metrics import spectrum
from glama_deploy.evaluation.metrics.backbones import Backbone
from glama_deploy.evaluation.metrics.perceptual import Inception, Lpips

Metric = Literal["l1", "psnr", "ssim", "lpips-alex", "lpips-vgg", "fid", "spectrum"]
Region = Literal["missing", "whole"]

#: What needs no file.
PLAIN: tuple[Metric, ...] = ("l1", "psnr", "ssim", "spectrum")

REGIONS: tuple[Region, ...] = get_args(Region)

#: Of the metrics' definitions: results by others are not added to.
DEFINITIONS = 2

#: The region that each metric is commonly told of.
COMMON: dict[Metric, Region] = {
    "l1": "missing",
    "psnr": "missing",
    "ssim": "missing",
    "lpips-alex": "whole",
    "lpips-vgg": "whole",
    "fid": "whole",
    "spectrum": "whole",
}

#: Whether more is better.
UPWARD: frozenset[Metric] = frozenset(("psnr", "ssim"))

#: For people: a title, and the decimals that are worth reading.
TITLES: dict[Metric, tuple[str, int]] = {
    "l1": ("L1 (0…1)", 4),
    "psnr": ("PSNR (dB)", 2),
    "ssim": ("SSIM", 4),
    "lpips-alex": ("LPIPS (AlexNet)", 4),
    "lpips-vgg": ("LPIPS (VGG)", 4),
    "fid": ("FID", 3),
    "spectrum": ("spectrum error", 4),
}

#: Of an identical image, in place of infinity.
MOST_PSNR = 100.0

#: Sides below which LPIPS's networks have nothing left to pool.
_LEAST_SIDE: dict[Metric, int] = {"lpips-alex": 31, "lpips-vgg": 16}


def known(names: tuple[str, ...]) -> tuple[Metric, ...]:
    """The metrics of these names, in the order of the tables. Raises GlamaError for one that does not exist."""
    unknown = [name for name in names if name not in get_args(Metric)]
    if unknown:
        raise GlamaError(f"unknown metric {unknown[0]!r}; expected {', '.join(get_args(Metric))}")
    return tuple(metric for metric in get_args(Metric) if metric in names)


@dataclass(frozen=True)
class Score:
    """Of one image: values by `metric/region` (a metric that this image is too small for is absent), the spectrum's
    error by region and ring, and what Inception sees in it (float32 [2, 2048] by region, for FID)."""

    values: dict[str, float]
    rings: dict[Region, tuple[float | None, ...]] = field(default_factory=dict)
    features: np.ndarray | None = None


class Judge:
    """Scores images by the metrics that it was made with."""

    def __init__(self, metrics: tuple[Metric, ...], weights: dict[Backbone, Path], device: str = "cpu") -> None:
        """weights: the file of each backbone among the metrics. Raises GlamaError for one that is damaged or of another
        network."""
        self._metrics, self._device = metrics, torch.device(device)
        self._lpips: dict[Metric, Lpips] = {
            name: Lpips(name, weights[name], self._device) for name in metrics if name in ("lpips-alex", "lpips-vgg")
        }
        self._inception = Inception(weights["fid"], self._device) if "fid" in metrics else None

    @torch.inference_mode()
    def score(self, found: np.ndarray, truth: np.ndarray, missing: np.ndarray) -> Score:
        """Images uint8 H×W×3, missing bool H×W with at least one pixel."""
        values = self._pixelwise(found, truth, missing)
        one, other = (_tensor(image).to(self._device) for image in (found, truth))
        within = torch.from_numpy(missing).to(self._device)
        if "ssim" in self._metrics:
            whole, of_each = structural_similarity_index_measure(one, other, data_range=1.0, return_full_image=True)
            values |= {"ssim/missing": float(of_each[0].mean(0)[within].mean()), "ssim/whole": float(whole)}
        for name, network in self._lpips.items():
            if min(missing.shape) >= _LEAST_SIDE[name]:
                values[f"{name}/missing"], values[f"{name}/whole"] = network.distances(one, other, within)
        rings: dict[Region, tuple[float | None, ...]] = {}
        if "spectrum" in self._metrics:
            errors: tuple[tuple[Region, np.ndarray], ...] = (
                ("missing", spectrum.errors_within(found, truth, missing)),
                ("whole", spectrum.errors(found, truth)),
            )
            for of, error in errors:
                values[f"spectrum/{of}"] = float(error.mean())
                rings[of] = spectrum.by_ring(error)
        seen = self.features(found, [missing])
        return Score(values, rings, None if seen is None else seen[0])

    def _pixelwise(self, found: np.ndarray, truth: np.ndarray, missing: np.ndarray) -> dict[str, float]:
        """L1 and PSNR."""
        values: dict[str, float] = {}
        for region, pixels in (("missing", missing), ("whole", slice(None))):
            pair = [torch.from_numpy(image[pixels] / 255) for image in (found, truth)]  # in float64
            if "l1" in self._metrics:
                values[f"l1/{region}"] = float(mean_absolute_error(*pair))
            if "psnr" in self._metrics:
                values[f"psnr/{region}"] = min(MOST_PSNR, float(peak_signal_noise_ratio(*pair, data_range=1.0)))
        return values

    @torch.inference_mode()
    def features(self, image: np.ndarray, masks: list[np.ndarray]) -> np.ndarray | None:
        """What Inception sees in an image, float32 [masks, 2, 2048], of each mask's missing pixels and of the whole;
        None without FID."""
        return None if self._inception is None else self._inception.features(image, masks)


def _tensor(image: np.ndarray) -> Tensor:
    return torch.from_numpy(image / np.float32(255)).permute(2, 0, 1)[None]


def compute_fid(found: np.ndarray, truth: np.ndarray) -> float:
    """Return the Fréchet distance of two sets of features (Heusel et al., NeurIPS 2017, equation 6).

    torch-fidelity computes the distance from two D×D covariances. A basis of the space that both sets span leaves the
    distance as it is, and for few images the space is much smaller than D.

    Args:
        found: features of the results, float [N, D], N ≥ 2.
        truth: features of the photographs, float [M, D], M ≥ 2.
    """
    from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric

    sets = [features.astype(np.float64) for features in (found, truth)]
    if len(found) + len(truth) < found.shape[1]:
        basis, _ = np.linalg.qr(np.concatenate(sets).T)
        sets = [features @ basis for features in sets]
    statistics = (fid_features_to_statistics(torch.from_numpy(features)) for features in sets)
    return float(fid_statistics_to_metric(*statistics, verbose=False)[KEY_METRIC_FID])
