"""What may be asked of a TensorRT builder beside sizes and precision, and which package has it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from glama_deploy.bundle import BuildSettings
from glama_deploy.engines.tensorrt import gpus
from glama_deploy.engines.tensorrt.profiles import Profiles
from glama_deploy.errors import EngineError, GlamaError

#: What a package has not, and what to do instead.
_LACKING = {
    "trt": {
        "--gpu": "TensorRT builds for the GPU that it finds: build on that one, pass --hardware-compatible, or build "
        "with --target trt-rtx",
    },
    "trt-rtx": {
        "--timing-cache": "TensorRT-RTX chooses its kernels on the device, so there is nothing to time: leave it out",
        "--version-compatible": "TensorRT-RTX has no lean runtime to put into the engine: build again for each version",
        "--hardware-compatible": "a TensorRT-RTX engine runs on every GPU from 8.0 up already: leave it out, or name "
        "the GPUs with --gpu",
    },
}


@dataclass(frozen=True)
class Options:
    """How a TensorRT engine is built.

    `settings` go into the manifest. `profiles`: `three` makes an engine of small, middle and large sizes, `auto` does
    so for TensorRT only (TensorRT-RTX compiles for the sizes it meets). `timing_cache`: a file of TensorRT's kernel
    timings, read where it is there and written back.
    """

    settings: BuildSettings = field(default_factory=BuildSettings)
    profiles: Profiles = "auto"
    timing_cache: Path | None = None

    def check(self, target: str) -> None:
        """Raise GlamaError for what can be known to be wrong before a build: an option that the target has not
        (EngineError), an unknown GPU, a timing cache that cannot be a file."""
        for flag in self.flags():
            if target not in _LACKING:
                raise EngineError(f"{flag} is for TensorRT (trt, trt-rtx); {target} has no such option: leave it out")
            if flag in _LACKING[target]:
                raise EngineError(f"{target} has no {flag}: {_LACKING[target][flag]}")
        for gpu in self.settings.gpus:
            gpus.capability(gpu)
        if self.timing_cache is not None:
            _check_file(self.timing_cache)

    def flags(self) -> list[str]:
        """The names, as the commands have them, of the options that are not at their defaults."""
        settings = self.settings
        asked = {
            "--gpu": settings.gpus,
            "--opt-level": settings.optimization_level is not None,
            "--workspace": settings.workspace_mib is not None,
            "--version-compatible": settings.version_compatible,
            "--hardware-compatible": settings.hardware_compatible,
            "--refittable": settings.refittable,
            "--strip-weights": settings.stripped,
            "--profiles": self.profiles != "auto",
            "--timing-cache": self.timing_cache is not None,
        }
        return [flag for flag, given in asked.items() if given]

    @property
    def capabilities(self) -> tuple[str, ...]:
        """The compute capabilities of the GPUs that are asked for, each once, the lowest first."""
        return tuple(sorted({gpus.capability(gpu) for gpu in self.settings.gpus}, key=gpus.order))


def _check_file(path: Path) -> None:
    if path.is_dir():
        raise GlamaError(f"--timing-cache {path} is a folder; give a file, which is made where it is not there")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise GlamaError(f"--timing-cache {path} cannot be written; give a file in a folder that you may write to")
