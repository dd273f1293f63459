"""The arguments of an evaluation, and their checks. This module imports no package that takes seconds to import."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from glama_deploy.errors import EngineError, GlamaError
from glama_deploy.evaluation import methods, protocol
from glama_deploy.evaluation.metrics.registry import DEFAULT_METRICS, sort_metrics
from glama_deploy.inpainting.inpainter import Region, check_region
from glama_deploy.runtime.devices import parse_device


@dataclass(frozen=True)
class Request:
    """What to evaluate.

    Attributes:
        data: folders of photographs, `FOLDER` or `NAME=FOLDER`.
        models: methods, as :func:`~glama_deploy.evaluation.methods.parse_methods` takes them.
        out: the folder of the results.
        masks: masks and mixtures, or `general` for the seven types.
        backends: backends of the models that name none.
        precisions: precisions of the models that name none.
        metrics: names of records in METRICS.
        size: height and width that photographs are cut and brought to; None keeps their own.
        limit: the number of images of each dataset; None takes all.
        seed: the seed of the masks, together with the image's name.
        region: what networks see of an image.
        shown: the number of images of each dataset whose results are kept as pictures.
        reference: the label of the method that changes are taken against.
        weights: a folder with the files of weights that metrics need.
        download: whether to download files of weights that are not there.
        processes: the number of processes; None takes as many as the machine has room for.
        threads: the number of threads of engines and metrics in each process.
        device: where the metrics' networks run: cpu, cuda or cuda:N.
        engine_device: where the engines compute, as :func:`glama_deploy.load` takes it.
        overwrite: whether to remove the results of another run first.
        allow_engine_code: see :func:`glama_deploy.load`.
    """

    data: Sequence[str]
    models: Sequence[str]
    out: Path
    masks: Sequence[str] = ("general",)
    backends: Sequence[str] = ("auto",)
    precisions: Sequence[str] = ("auto",)
    metrics: Sequence[str] = field(default_factory=lambda: DEFAULT_METRICS)
    size: tuple[int, int] | None = None
    limit: int | None = None
    seed: int = 0
    region: Region = "full"
    shown: int = 14
    reference: str | None = None
    weights: Path | None = None
    download: bool = False
    processes: int | None = None
    threads: int = 1
    device: str = "cpu"
    engine_device: str | None = None
    overwrite: bool = False
    allow_engine_code: bool = False


@dataclass(frozen=True)
class Arguments:
    """Checked arguments.

    Attributes:
        datasets: the datasets, each with images.
        masks: the names of the masks, each once.
        specs: the methods as they were asked for.
    """

    datasets: tuple[protocol.Dataset, ...]
    masks: tuple[str, ...]
    specs: tuple[methods.Spec, ...]


def check_arguments(request: Request) -> Arguments:
    """Check what can be checked without opening a model.

    Args:
        request: what to evaluate.

    Returns:
        The datasets, masks and methods.

    Raises:
        GlamaError: an argument is not supported, or a file or folder does not exist.
    """
    check_region(request.region)
    sort_metrics(request.metrics)
    if not re.fullmatch(r"cpu|cuda(:\d{1,4})?", request.device):
        raise GlamaError(f"`device` is {request.device!r}; cpu, cuda or cuda:N is expected")
    if request.weights is not None and not request.weights.is_dir():
        raise GlamaError(f"`weights` {request.weights} is no folder; give the one that the files of weights are in")
    datasets, masks = protocol.find_datasets(request.data), protocol.expand_masks(request.masks)
    try:
        parse_device(request.engine_device)
    except EngineError as error:
        raise GlamaError(str(error).replace("`device`", "`engine_device`", 1)) from error
    specs = methods.parse_methods(
        request.models,
        request.backends,
        request.precisions,
        allow_engine_code=request.allow_engine_code,
        device=request.engine_device,
    )
    if request.reference not in (None, *(spec.label for spec in specs)):
        labels = ", ".join(spec.label for spec in specs)
        raise GlamaError(f"`reference` is {request.reference!r}; one of the methods is expected: {labels}")
    for dataset in datasets:
        if request.out.resolve().is_relative_to(dataset.folder):
            raise GlamaError(
                f"`out` {request.out} lies in `data` {dataset.folder}, all of which is evaluated; choose another folder"
            )
    return Arguments(datasets, masks, tuple(specs))
