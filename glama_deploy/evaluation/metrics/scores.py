"""Scores of one inpainted image: every metric of a run, measured by the records' functions.

Metrics see 8-bit images, as a user gets them, with the known pixels in place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from glama_deploy.evaluation.metrics.pairs import Pair, Region
from glama_deploy.evaluation.metrics.registry import METRICS, ImageMetric, find_set_metrics


@dataclass(frozen=True)
class Score:
    """All that is measured of one image.

    Attributes:
        values: by `metric/region`. A metric that the image is too small for is absent.
        rings: the spectrum's error by region and ring.
        features: of the metrics of a set, float32 [2, D] by region; None where no such metric is asked for.
    """

    values: dict[str, float]
    rings: dict[Region, tuple[float | None, ...]] = field(default_factory=dict)
    features: np.ndarray | None = None


class Judge:
    """Scores images by the metrics that it was made with."""

    def __init__(self, names: Sequence[str], weights: Mapping[str, Path], device: str = "cpu") -> None:
        """Open the metrics.

        Args:
            names: the metrics.
            weights: the file of each metric that needs one, by the metric's name.
            device: where networks run, as PyTorch names it.

        Raises:
            GlamaError: a file of weights is damaged or holds another network.
        """
        self._device = device
        of_images = (metric for name in names if isinstance(metric := METRICS[name], ImageMetric))
        self._measures = [(metric, metric.open(weights.get(metric.name), device)) for metric in of_images]
        self._extracts = [metric.open(weights.get(metric.name), device) for metric in find_set_metrics(names)]

    @torch.inference_mode()
    def score(self, found: np.ndarray, truth: np.ndarray, missing: np.ndarray) -> Score:
        """Score an image.

        Args:
            found: the inpainted image with the known pixels in place, uint8 H×W×3.
            truth: the photograph, uint8 H×W×3.
            missing: bool H×W with at least one pixel.

        Returns:
            All values, and features where a metric of a set is asked for.
        """
        pair = Pair(found, truth, missing, self._device)
        values: dict[str, float] = {}
        rings: dict[Region, tuple[float | None, ...]] = {}
        for metric, measure in self._measures:
            if min(missing.shape) >= metric.min_side:
                measured = measure(pair)
                values[f"{metric.name}/missing"], values[f"{metric.name}/whole"] = measured.missing, measured.whole
                rings |= measured.rings
        features = self.extract_features(found, [missing])
        return Score(values, rings, None if features is None else features[0])

    @torch.inference_mode()
    def extract_features(self, image: np.ndarray, masks: Sequence[np.ndarray]) -> np.ndarray | None:
        """Return what the metrics of a set see in an image.

        Args:
            image: uint8 H×W×3.
            masks: the missing pixels, bool H×W each.

        Returns:
            float32 [masks, 2, D], of each mask's missing pixels and of the whole. D are the features of all such
            metrics in their order. None without such a metric.
        """
        seen = [extract(image, masks) for extract in self._extracts]
        return np.concatenate(seen, axis=2) if seen else None
