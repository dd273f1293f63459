"""How each worker opens its engine, and how many pictures the engine is shown at once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import glama_deploy
from glama_deploy.checkpoints import embedded
from glama_deploy.errors import GlamaError
from glama_deploy.inpainting.inpainter import Inpainter
from glama_deploy.loading import check_model
from glama_deploy.runtime.base import Request
from glama_deploy.runtime.devices import parse_device


@dataclass(frozen=True)
class EngineSettings:
    """The arguments of :func:`glama_deploy.load` in each worker.

    Attributes:
        model: the model. Each machine of the cluster must find it under this name.
        backend: the engine.
        precision: what the engine computes in.
        threads: CPU threads of a worker.
        compile_sizes: whether OpenVINO compiles a model for a size.
        allow_engine_code: whether an engine may run native code that its file contains.
        device: where the engine computes; None: the engine chooses.
    """

    model: str | Path = "default"
    backend: str = "auto"
    precision: str = "auto"
    threads: int = 1
    compile_sizes: bool | None = None
    allow_engine_code: bool = False
    device: str | None = None

    def check(self, *, is_here: bool) -> None:
        """Check the model before Ray runs, as far as this machine knows it.

        Args:
            is_here: whether the workers run on this machine.

        Raises:
            GlamaError: an argument is not supported, or the model is damaged, or is missing. The workers of other
                machines may have a device, and a model with an absolute path, that this machine lacks.
        """
        if not is_here and Path(self.model).is_absolute() and not Path(self.model).exists():
            return
        device = parse_device(self.device) if is_here else None
        check_model(self.model, self.backend, Request(self.precision, self.threads, device))

    def open(self) -> Inpainter:
        """Open the engine.

        Returns:
            The inpainter.

        Raises:
            GlamaError: the model cannot be opened on this machine.
        """
        return glama_deploy.load(
            self.model,
            self.backend,
            self.precision,
            self.threads,
            self.compile_sizes,
            allow_engine_code=self.allow_engine_code,
            device=self.device,
        )


def name_model(model: str) -> str:
    """Return the name by which workers find a model. Their current folder is another one.

    Args:
        model: the model, as :func:`glama_deploy.load` takes it.

    Returns:
        The absolute path of a model that is a path here, else the same name.
    """
    place = Path(model)
    return str(place.absolute()) if not embedded.is_embedded(model) and place.exists() else model


def choose_device(gpus: float) -> str:
    """Return the device of a worker's engine.

    Args:
        gpus: GPUs of a worker.

    Returns:
        `cuda`, which is the first GPU that Ray gives to the worker, or `cpu`.
    """
    return "cuda" if gpus else "cpu"


def check_batch(batch: int, region: str) -> None:
    """Check the number of pictures that the network is shown at once.

    Args:
        batch: the number.
        region: what the network is shown.

    Raises:
        GlamaError: the number is below 1, or the region is not `full`.
    """
    if batch < 1:
        raise GlamaError(f"`batch` is {batch}; 1 or more is expected")
    if batch > 1 and region != "full":
        raise GlamaError(f"`batch` is {batch}, and `region` is {region}; set `region=full`, or leave `batch` out")
