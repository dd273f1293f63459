"""How each worker opens its engine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import glama_deploy
from glama_deploy.inpainting.inpainter import Inpainter


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
