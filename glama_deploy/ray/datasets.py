"""Fill the pictures of a dataset of Ray, as a step of one's own pipeline."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from glama_deploy.errors import GlamaError, ImageError
from glama_deploy.inpainting import folder
from glama_deploy.inpainting.inpainter import Region, check_region
from glama_deploy.inpainting.pairing import Job
from glama_deploy.inpainting.piped import find_suffix
from glama_deploy.io.images import ENCODERS, encode_image
from glama_deploy.io.pipes import PipedFile
from glama_deploy.ray.connection import Resources
from glama_deploy.ray.engine import EngineSettings, check_batch, choose_device, name_model
from glama_deploy.runtime.base import require
from glama_deploy.text.excerpts import excerpt, quoted

#: Rows of a task beside the network's batch.
_MIN_ROWS_PER_TASK = 8

#: CPUs that stay for the other steps of the pipeline. Without one, Ray Data's readers never begin.
_OTHER_CPUS = 1


def inpaint(
    dataset: Any,
    model: str | Path = "default",
    *,
    image: str = "image",
    mask: str = "mask",
    output: str = "inpainted",
    error: str = "error",
    region: Region = "auto",
    batch: int = 1,
    workers: int | None = None,
    cpus_per_worker: int = 1,
    gpus_per_worker: float = 0.0,
    backend: str = "auto",
    precision: str = "auto",
    compile_sizes: bool | None = None,
) -> Any:
    """Fill the missing pixels of the pictures of a dataset. Nothing runs until the result is read.

    Each worker opens the engine once. A row that cannot be filled has None in the column `output`, and the reason in
    the column `error`. The column `error` of other rows is empty.

    Args:
        dataset: a `ray.data.Dataset`. Pictures and masks are arrays, or the bytes of files.
        model: the model, as :func:`glama_deploy.load` takes it. Each machine must find it under this name.
        image: the column of the pictures: uint8 or uint16 H×W×3, or the bytes of a file. Sizes may differ.
        mask: the column of the masks: bool or uint8 H×W, above 0 where a pixel is missing, or the bytes of a file.
        output: the column that is added: arrays for arrays, and for files the bytes of a file of the same format.
        error: the column that is added with the reason of a failure.
        region: what the network is shown, as :class:`glama_deploy.Inpainter` takes it.
        batch: pictures of one size that the network is shown at once. More than 1 needs the region `full`.
        workers: number of workers; None: as many as the cluster has room for beside one CPU for the other steps.
        cpus_per_worker: CPUs of a worker, and the threads of its engine.
        gpus_per_worker: GPUs of a worker. With more than 0 the engine computes with CUDA, else on the CPU.
        backend: the engine.
        precision: what the engine computes in.
        compile_sizes: whether OpenVINO compiles a model for a size. With True or False, results do not depend on
            earlier pictures.

    Returns:
        The dataset with two more columns.

    Raises:
        GlamaError: an argument is not supported, the model is damaged or missing, the dataset has no such column (where
            Ray knows its columns before reading), or the cluster has no room for a worker.
        EngineError: Ray is not installed.
    """
    check_region(region)
    check_batch(batch, region)
    resources = Resources(workers, cpus_per_worker, gpus_per_worker)
    require("ray", "Ray", "pip install 'glama-deploy[ray]'")
    engine = EngineSettings(
        name_model(str(model)),
        backend,
        precision,
        cpus_per_worker,
        compile_sizes,
        device=choose_device(gpus_per_worker),
    )
    engine.check(is_here=False)
    import ray
    import ray.data

    if not ray.is_initialized():
        ray.init()
    columns = {"image": image, "mask": mask, "output": output, "error": error}
    _check_columns(dataset, image, mask)
    return dataset.map_batches(
        RowFiller,
        fn_constructor_kwargs={"engine": engine, "columns": columns, "region": region, "batch": batch},
        compute=ray.data.ActorPoolStrategy(size=resources.count_workers(ray.cluster_resources(), _OTHER_CPUS)),
        batch_size=max(batch, _MIN_ROWS_PER_TASK),
        batch_format="numpy",
        num_cpus=cpus_per_worker,
        num_gpus=gpus_per_worker,
    )


def _check_columns(dataset: Any, *wanted: str) -> None:
    """Raise GlamaError where Ray knows, before it reads the dataset, that a column is missing."""
    schema = dataset.schema(fetch_if_missing=False)
    if schema is None:
        return
    missing = [name for name in wanted if name not in schema.names]
    if missing:
        raise GlamaError(
            f"the dataset has no column {' and no column '.join(map(quoted, missing))}; it has "
            f"{', '.join(map(excerpt, schema.names))}: name the columns with `image` and `mask`"
        )


class RowFiller:
    """A worker of :func:`inpaint`.

    Args:
        engine: how the engine is opened.
        columns: the names of the columns `image`, `mask`, `output` and `error`.
        region: what the network is shown.
        batch: pictures of one size that the network is shown at once.

    Raises:
        GlamaError: the engine cannot be opened.
    """

    def __init__(self, engine: EngineSettings, columns: dict[str, str], region: Region, batch: int) -> None:
        self._columns = columns
        self._region = region
        self._batch = batch
        self._inpainter = engine.open()

    def __call__(self, rows: dict[str, np.ndarray]) -> dict[str, Any]:
        """Fill the pictures of rows.

        Args:
            rows: the columns.

        Returns:
            The columns, with the two that are added.

        Raises:
            GlamaError: a column is missing.
        """
        for name in (self._columns["image"], self._columns["mask"]):
            if name not in rows:
                raise GlamaError(f"the dataset has no column {name!r}, but {', '.join(rows)}; set `image` and `mask`")
        values = list(zip(rows[self._columns["image"]], rows[self._columns["mask"]], strict=True))
        filled: list[Any] = [None] * len(values)
        errors = [""] * len(values)
        for places in self._group(values):
            try:
                for place, result in zip(places, self._fill([values[place] for place in places]), strict=True):
                    filled[place] = result
            except folder.FAILURES as failure:
                for place in places:
                    errors[place] = str(failure) or "not enough memory"
        column = np.empty(len(values), dtype=object)
        column[:] = filled
        return {**rows, self._columns["output"]: column, self._columns["error"]: np.array(errors)}

    def _group(self, values: list[tuple[Any, Any]]) -> list[list[int]]:
        """Return the places of rows that the network is shown at once: arrays of one size and type, as their masks."""
        if self._batch == 1:
            return [[place] for place in range(len(values))]
        sizes: dict[object, list[int]] = defaultdict(list)
        for place, (image, mask) in enumerate(values):
            are_arrays = isinstance(image, np.ndarray) and isinstance(mask, np.ndarray)
            sizes[(image.shape, str(image.dtype), mask.shape) if are_arrays else place].append(place)
        return [
            places[start : start + self._batch]
            for places in sizes.values()
            for start in range(0, len(places), self._batch)
        ]

    def _fill(self, values: list[tuple[Any, Any]]) -> list[Any]:
        """Fill one row, or several arrays of one size."""
        if len(values) > 1:
            images, masks = zip(*values, strict=True)
            return list(self._inpainter.batch(np.stack(images), np.stack(masks)))
        ((image, mask),) = values
        fill: Callable[..., Any] = lambda image, mask: self._inpainter(image, mask, region=self._region)  # noqa: E731
        if not isinstance(image, bytes):
            return [fill(image, mask)]
        if not isinstance(mask, bytes):
            raise ImageError("the picture is a file, and its mask is not; give the bytes of both files")
        source = PipedFile("the picture", image)
        job = Job(source, PipedFile("the mask", mask), Path(f"picture{find_suffix(source)}"))
        picture = folder.fill_inputs(fill, job, *folder.read_job(job))
        return [encode_image(picture, ENCODERS[job.out.suffix], job.out)]
