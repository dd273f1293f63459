"""The criteria that choose a run's best checkpoints.

A criterion is a metric of the evaluation, or a combination of metrics. `ssim` is the score over all seven masks, and
`ssim@ThickStrokes` the score of one mask. This module does not import PyTorch.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from glama_deploy.errors import GlamaError
from glama_deploy.evaluation.metrics.registry import METRICS, sort_metrics
from glama_deploy.masks import TYPES
from glama_deploy.text.excerpts import excerpt, quoted

#: Name of the best checkpoint by the first criterion.
BEST = "best.pt"

#: Name that stands for all masks in scores.
ALL_MASKS = "all"

#: Metrics that every validation measures. They need no weights.
_ALWAYS = ("l1", "psnr", "ssim", "spectrum")


@dataclass(frozen=True)
class Combination:
    """A score that is computed from several metrics. A higher score is better.

    Attributes:
        parts: The metrics, as `metric/region`.
        compute: Takes the values of the parts in their order, and returns the score.
    """

    parts: tuple[str, ...]
    compute: Callable[..., float]


def compute_f1(one: float, other: float) -> float:
    """Compute the harmonic mean of two scores as LaMa does (advimman/lama: saicinpainting/evaluation/evaluator.py).

    Args:
        one: A score, at most 1. A negative score counts as 0.
        other: A score, at most 1. A negative score counts as 0.

    Returns:
        2·a·b / (a + b + 0.001).
    """
    a, b = max(0.0, one), max(0.0, other)
    return 2 * a * b / (a + b + 1e-3)


def _rate_fid(fid: float) -> float:
    """Map FID to 0…1. An FID from 100 on counts as 0."""
    return (100 - fid) / 100


#: The combinations by their names. The two with FID are LaMa's, with SSIM and FID as LaMa's evaluator computes them.
COMBINATIONS = {
    "ssim_fid100_f1": Combination(
        ("ssim-lama/whole", "fid-lama/whole"), lambda ssim, fid: compute_f1(ssim, _rate_fid(fid))
    ),
    "lpips_fid100_f1": Combination(
        ("lpips-vgg/whole", "fid-lama/whole"), lambda lpips, fid: compute_f1(1 - lpips, _rate_fid(fid))
    ),
    # exp(−spectrum error) is the geometric mean of the ratios of two amplitudes, 0…1
    "ssim_spectrum_f1": Combination(
        ("ssim/missing", "spectrum/missing"), lambda ssim, spectrum: compute_f1(ssim, math.exp(-spectrum))
    ),
}


@dataclass(frozen=True)
class Criterion:
    """A criterion.

    Attributes:
        score: Name of a metric or combination.
        mask: The mask whose results count, or `ALL_MASKS`.
    """

    score: str
    mask: str = ALL_MASKS

    @property
    def name(self) -> str:
        """The criterion as the config has it."""
        return self.score if self.mask == ALL_MASKS else f"{self.score}@{self.mask}"

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics that the score is computed from."""
        if self.score in METRICS:
            return (self.score,)
        return tuple(part.partition("/")[0] for part in COMBINATIONS[self.score].parts)

    @property
    def counts_fid(self) -> bool:
        """Whether FID is a part of the score, which is then 0 for an FID from 100 on."""
        return self.score in COMBINATIONS and "fid-lama" in self.metrics

    @property
    def worst(self) -> float:
        """The value that every value improves on."""
        return math.inf if self.score in METRICS and not METRICS[self.score].higher_is_better else -math.inf

    def is_better(self, value: float, best: float) -> bool:
        """Tell whether a value is better than another.

        Args:
            value: The value.
            best: The best value so far.

        Returns:
            False for equal values.
        """
        return value < best if self.worst > 0 else value > best


def parse_criterion(text: str) -> Criterion:
    """Read a criterion.

    Args:
        text: `SCORE` or `SCORE@MASK`.

    Returns:
        The criterion.

    Raises:
        GlamaError: The score or the mask is unknown.
    """
    score, at, mask = text.partition("@")
    scores = [*METRICS, *COMBINATIONS]
    if score not in scores:
        raise GlamaError(
            f"saving.best has the unknown metric {quoted(score)}{_suggest(score, scores)}; expected {', '.join(scores)}"
        )
    if at and mask not in TYPES:
        raise GlamaError(
            f"saving.best is {excerpt(text)}, but no validation has the mask {quoted(mask)}"
            f"{_suggest(mask, list(TYPES))}; expected {', '.join(TYPES)}"
        )
    return Criterion(score, mask or ALL_MASKS)


def _suggest(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""


def name_files(names: Sequence[str]) -> dict[str, str]:
    """Name the best checkpoints.

    Args:
        names: Names of criteria. The first one chooses `BEST`.

    Returns:
        The criterion of each file, by the file's name.
    """
    files = (BEST if number == 0 else f"best-{name.replace('@', '-')}.pt" for number, name in enumerate(names))
    return dict(zip(files, names, strict=True))


def list_metrics(criteria: Sequence[Criterion]) -> tuple[str, ...]:
    """List the metrics that a validation measures.

    Args:
        criteria: The criteria.

    Returns:
        The metrics of the criteria, and those that every validation measures, in the order of the tables.
    """
    return sort_metrics([*_ALWAYS, *(name for criterion in criteria for name in criterion.metrics)])
