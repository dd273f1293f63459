"""The arguments of an evaluation, and their checks. This module imports no package that takes seconds to import."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from glama_deploy.errors import EngineError, GlamaError
from glama_deploy.evaluation import image_files, methods, protocol, result_files
from glama_deploy.evaluation.metrics.registry import DEFAULT_METRICS, sort_metrics
from glama_deploy.inpainting.inpainter import Region, check_region
from glama_deploy.runtime.devices import parse_device


@dataclass(frozen=True)
class Request:
    """What to evaluate.

    Attributes:
        data: folders of photographs, `FOLDER` or `NAME=FOLDER`.
        models: methods, as :func:`~glama_deploy.evaluation.methods.parse_methods` takes them.
        out: the folder of the figures.
        masks: masks and mixtures, `general` for the seven types, or a folder of masks, `FOLDER` or `NAME=FOLDER`. Empty
            for `general`.
        results: folders of results that other programs made, `FOLDER` or `NAME=FOLDER`.
        save: the folder for the pictures of all results; None to save none.
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
    masks: Sequence[str] = ()
    results: Sequence[str] = ()
    save: Path | None = None
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
        given: the folder of given masks; None if masks are drawn.
        specs: the methods as they were asked for.
        items: every image with every given mask, and the files of its results.
    """

    datasets: tuple[protocol.Dataset, ...]
    masks: tuple[str, ...]
    given: protocol.GivenMasks | None
    specs: tuple[methods.Spec, ...]
    items: tuple[protocol.Item, ...]


def check_arguments(request: Request) -> Arguments:
    """Check what can be checked without opening a model.

    Args:
        request: what to evaluate.

    Returns:
        The datasets, masks, methods and images.

    Raises:
        GlamaError: an argument is not supported, or a file or folder does not exist.
    """
    check_region(request.region)
    sort_metrics(request.metrics)
    if not re.fullmatch(r"cpu|cuda(:\d{1,4})?", request.device):
        raise GlamaError(f"`device` is {request.device!r}; cpu, cuda or cuda:N is expected")
    if request.weights is not None and not request.weights.is_dir():
        raise GlamaError(f"`weights` {request.weights} is no folder; give the one that the files of weights are in")
    datasets = protocol.find_datasets(request.data)
    masks, given = protocol.find_masks(request.masks or ["general"])
    if not request.masks:
        _check_no_masks(datasets)
    if given is not None and request.size is not None:
        raise GlamaError(
            "`size` does not go with a folder of masks, which fit the images as they are; glama-masks makes images "
            "and masks of one size from a `dataset`"
        )
    try:
        parse_device(request.engine_device)
    except EngineError as error:
        raise GlamaError(str(error).replace("`device`", "`engine_device`", 1)) from error
    specs = methods.parse_methods(
        request.models,
        request.backends,
        request.precisions,
        request.results,
        allow_engine_code=request.allow_engine_code,
        device=request.engine_device,
    )
    if request.reference not in (None, *(spec.label for spec in specs)):
        labels = ", ".join(spec.label for spec in specs)
        raise GlamaError(f"`reference` is {request.reference!r}; one of the methods is expected: {labels}")
    if not specs:
        raise GlamaError("neither `models` nor `results` is given; one of them is needed, for example `models=default`")
    _check_folders(request, datasets, given, specs)
    asked = protocol.Protocol(
        datasets=datasets,
        methods=(),
        masks=masks,
        given=given,
        metrics=(),
        limit=request.limit,
        shown=request.shown,
    )
    items = result_files.find_results(protocol.list_items(asked), specs, masks)
    if request.save is not None:
        result_files.check_names(items, masks)
    return Arguments(datasets, masks, given, tuple(specs), tuple(items))


def _check_no_masks(datasets: Sequence[protocol.Dataset]) -> None:
    """Raise GlamaError where masks lie beside the images of a dataset, and nothing says whether to use them."""
    for dataset in datasets:
        _, masks = image_files.split_masks(image_files.list_files(dataset.folder))
        if masks:
            raise GlamaError(
                f"`data` {dataset.folder} has masks beside its images ({masks[0]}); use them with "
                f"`masks={dataset.folder}`, or draw others with `masks=general`"
            )


def _check_folders(
    request: Request,
    datasets: Sequence[protocol.Dataset],
    given: protocol.GivenMasks | None,
    specs: Sequence[methods.Spec],
) -> None:
    """Raise GlamaError where a folder that is written, or one of results, lies in a folder of inputs."""
    inputs = [("data", dataset.folder) for dataset in datasets]
    inputs += [("masks", given.folder)] if given is not None else []
    for spec in specs:
        for option, folder in inputs:
            if spec.pictures == folder:
                raise GlamaError(f"`results` {spec.pictures} is the folder of `{option}`; give that of the results")
    inputs += [("results", spec.pictures) for spec in specs if spec.pictures is not None]
    for written, path in (("out", request.out), ("save", request.save)):
        for option, folder in inputs:
            if path is not None and path.resolve().is_relative_to(folder):
                raise GlamaError(
                    f"`{written}` {path} lies in `{option}` {folder}, all of which is evaluated; choose another folder"
                )
    if request.save is None:
        return
    if request.save.resolve() == request.out.resolve():
        raise GlamaError(f"`save` {request.save} is the folder of `out`; choose another, such as {request.save}/filled")
    for spec in specs:
        if "/" in spec.label or os.sep in spec.label or spec.label.startswith("."):
            raise GlamaError(
                f"a method is called {spec.label!r}, as no folder below `save` may be; name it, as in `models=A=PATH`"
            )
