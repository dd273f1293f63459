"""Measure a generator on validation photographs, with each of the seven masks, and choose the run's criteria."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from glama_deploy.errors import GlamaError
from glama_deploy.evaluation.metrics import backbones
from glama_deploy.evaluation.metrics.pairs import REGIONS
from glama_deploy.evaluation.metrics.registry import METRICS, ImageMetric, SetMetric, find_set_metrics
from glama_deploy.evaluation.metrics.scores import Judge
from glama_deploy.masks import TYPES
from glama_deploy.reference.generator import inpaint
from glama_deploy.runtime.base import require
from glama_deploy.training.config import Config
from glama_deploy.training.criteria import ALL_MASKS, COMBINATIONS, Criterion, list_metrics, parse_criterion
from glama_deploy.training.data import Positions, Squares, read_batches

#: Values by mask and score. The mask `ALL_MASKS` has the values over all masks.
Scores = dict[str, dict[str, float]]

#: Criteria of adversarial runs without `saving.best`. The first one whose files are in the folder is used.
_ADVERSARIAL = ("lpips_fid100_f1", "ssim_fid100_f1", "lpips-vgg", "lpips-alex", "ssim_spectrum_f1")


def choose_criteria(config: Config, photographs: int) -> tuple[Criterion, ...]:
    """Choose the criteria of a run, and check that the run can compute them.

    Args:
        config: The run's config.
        photographs: Number of validation photographs. Without photographs, files are not checked.

    Returns:
        The criteria of `saving.best`. Without them, PSNR for a run without a discriminator. For an adversarial run, a
        combination of the metrics whose files are in `saving.metric_weights`, or else of SSIM and the spectrum's error.

    Raises:
        GlamaError: A metric's file or package is missing, the images are too small or too few for a metric, or there
            are no validation photographs for `saving.best`.
    """
    if config.saving.best is not None:
        if not photographs:
            raise GlamaError(
                "saving.best is set, but there are no validation photographs; set data.valid=[folder], or leave "
                "saving.best out"
            )
        chosen = tuple(parse_criterion(text) for text in config.saving.best)
    elif not config.weights.adversarial:
        chosen = (Criterion("psnr"),)
    else:
        chosen = (next(c for c in map(Criterion, _ADVERSARIAL) if _is_default(c, config, photographs)),)
    for name in list_metrics(chosen) if photographs else ():
        _find_file(name, config)
        problem = _find_problem(name, config, photographs)
        if problem:
            raise GlamaError(problem)
    return chosen


def _is_default(criterion: Criterion, config: Config, photographs: int) -> bool:
    """Tell whether the folder of weights has the criterion's files, and its metrics suit the run's images."""
    folder, files = config.saving.metric_weights, [METRICS[name].weights for name in criterion.metrics]
    has_files = all(
        file is None or (folder is not None and any((folder / name).is_file() for name in file.names)) for file in files
    )
    return has_files and not any(_find_problem(name, config, photographs) for name in criterion.metrics)


def _find_problem(name: str, config: Config, photographs: int) -> str:
    """Return why the run's images do not suit a metric; empty where they do."""
    metric, side, count = METRICS[name], config.data.side, min(photographs, config.saving.validate_images)
    if isinstance(metric, ImageMetric) and side < metric.min_side:
        return f"data.side is {side}; {name} needs images of {metric.min_side} pixels or more; set data.side"
    if isinstance(metric, SetMetric) and count < 2:
        return f"a validation has {count} photograph; {name} compares sets of 2 or more; give more in data.valid"
    return ""


def _find_file(name: str, config: Config) -> Path | None:
    """Return the file of weights that a metric needs. Raises GlamaError where the file is missing."""
    folder, needed = config.saving.metric_weights, METRICS[name].weights
    if folder is not None and not folder.is_dir():
        raise GlamaError(f"saving.metric_weights is {folder}, which is not a folder; give the folder of the files")
    if needed is None:
        return None
    path = backbones.find_file(needed, folder)
    if path is None and needed.package:
        raise GlamaError(f"{name} is not computed: {backbones.describe_absence(needed)}")
    if path is None:
        raise GlamaError(
            f"{name} needs {needed.names[0]}, which is neither in saving.metric_weights nor in "
            f"{backbones.find_cache()}; set saving.metric_weights to a folder with the file from {needed.url}"
        )
    return path


@dataclass(frozen=True)
class _Result:
    """Values of one image by `metric/region`, and by metric the features of result and photograph, float32 [D] each."""

    values: dict[str, float]
    features: dict[SetMetric, tuple[np.ndarray, np.ndarray]]


class Validator:
    """Scores generators on the validation photographs of a run.

    Args:
        config: The run's config.
        criteria: The run's criteria. All that they need is measured.
        device: Device of the generators and of the metrics' networks.

    Raises:
        GlamaError: A file of weights is missing or damaged, or torch-fidelity is not installed.
    """

    def __init__(self, config: Config, criteria: Sequence[Criterion], device: torch.device) -> None:
        self._config, self._device = config, device
        self._metrics = list_metrics(criteria)
        self._combinations = {c.score: COMBINATIONS[c.score] for c in criteria if c.score in COMBINATIONS}
        files = {name: path for name in self._metrics if (path := _find_file(name, config)) is not None}
        of_sets = find_set_metrics(self._metrics)
        if of_sets:
            require("torch_fidelity", "torch-fidelity", "pip install 'glama-deploy[eval]'")
        names = {metric.name for metric in of_sets}
        self._judge = Judge([name for name in self._metrics if name not in names], files, str(device))
        self._extracts = {each: each.open(files.get(each.name), str(device)) for each in of_sets}

    @torch.inference_mode()
    def validate(self, generator: nn.Module) -> tuple[Scores, Tensor]:
        """Score a generator with each mask on the same images.

        Args:
            generator: The generator, in eval mode.

        Returns:
            The values of all metrics and combinations. Metrics have their usual region, as in the evaluation. FID over
            all masks compares all results with all photographs. Other values over all masks are means. Then pictures
            of the first photograph, uint8 [7, 3, S, 3S], one for each mask: the image with gray missing pixels, the
            result, and the original image side by side.

        Raises:
            GlamaError: A result has values that are not finite.
        """
        results: dict[str, list[_Result]] = {name: [] for name in TYPES}
        strips = []
        data = self._config.data.model_copy(update={"flip": False, "recolour": False, "distort": False, "keep": 0})
        squares = [Squares(data.valid, data.model_copy(update={"masks": name}), seed=0) for name in TYPES]
        samples = [read_batches(each, Positions(1), workers=0, device=self._device) for each in squares]
        for number in range(min(len(squares[0]), self._config.saving.validate_images)):
            batches = [next(each) for each in samples]  # all masks of a photograph, whose features are computed once
            image = batches[0].image
            truth = _to_array(image)
            masks = [batch.mask[0, 0].bool().cpu().numpy() for batch in batches]
            of_truth = {metric: extract(truth, masks) for metric, extract in self._extracts.items()}
            for index, (name, batch) in enumerate(zip(TYPES, batches, strict=True)):
                filled = inpaint(generator, image, batch.mask)
                if not filled.isfinite().all():
                    raise GlamaError(
                        "the generator's result has values that are not finite; start a new run with lower rates or "
                        "with optimization.clip=1"
                    )
                seen = {metric: features[index] for metric, features in of_truth.items()}
                results[name].append(self._judge_image(_to_array(filled), truth, masks[index], seen))
                if number == 0:
                    holes = image * (1 - batch.mask) + 0.5 * batch.mask
                    strips.append(_to_bytes(torch.cat([holes, filled, image], dim=3)))
        scores = {name: self._summarize(found) for name, found in results.items()}
        scores[ALL_MASKS] = self._summarize([one for found in results.values() for one in found])
        return scores, torch.cat(strips).cpu()

    def _judge_image(
        self, found: np.ndarray, truth: np.ndarray, missing: np.ndarray, of_truth: dict[SetMetric, np.ndarray]
    ) -> _Result:
        """Score a result, with the features [2, D] of the photograph with this mask."""
        features = {}
        for metric, extract in self._extracts.items():
            region = REGIONS.index(metric.region)
            features[metric] = extract(found, [missing])[0, region], of_truth[metric][region]
        return _Result(self._judge.score(found, truth, missing).values, features)

    def _summarize(self, results: Sequence[_Result]) -> dict[str, float]:
        """Return the values of results, by the names of metrics and combinations."""
        values = {key: statistics.fmean(one.values[key] for one in results) for key in results[0].values}
        for metric in self._extracts:
            pairs = (one.features[metric] for one in results)
            found, truth = (np.stack(each) for each in zip(*pairs, strict=True))
            values[f"{metric.name}/{metric.region}"] = metric.compare(found, truth)
        scores = {name: values[f"{name}/{METRICS[name].region}"] for name in self._metrics}
        return scores | {
            name: each.compute(*(values[part] for part in each.parts)) for name, each in self._combinations.items()
        }


def _to_array(image: Tensor) -> np.ndarray:
    """Return an image [1, 3, H, W] of 0…1 as a user gets it, uint8 H×W×3."""
    return _to_bytes(image)[0].permute(1, 2, 0).cpu().numpy()


def _to_bytes(image: Tensor) -> Tensor:
    """Round an image of 0…1 to 8 bits."""
    return (image.clamp(0, 1) * 255).round().byte()
