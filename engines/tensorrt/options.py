"""What may be asked of a TensorRT builder beside sizes and precision, and which package has it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from glama_deploy.bundle import BuildSettings
from glama_deploy.catalogue import TENSORRT, TENSORRT_RTX, EngineRecord
from glama_deploy.engines.tensorrt import gpus
from glama_deploy.engines.tensorrt.profiles import Profiles
from glama_deploy.errors import EngineError, GlamaError

#: What to do instead of an option that an engine's builder does not know.
_REMEDIES = {
    TENSORRT.name: {
        "gpus": "TensorRT builds for the GPU that it finds: build on that one, give `hardware_compatible`, or build "
        "with `target=trt-rtx`",
    },
    TENSORRT_RTX.name: {
        "timing_cache": "TensorRT-RTX chooses its kernels on the device, so there is nothing to time: leave it out",
        "version_compatible": "TensorRT-RTX has no lean runtime to put into the engine: build again for each version",
        "hardware_compatible": "a TensorRT-RTX engine runs on every GPU from 8.0 up already: leave it out, or name "
        "the GPUs with `gpus`",
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

    def check(self, record: EngineRecord) -> None:
        """Refuse what can be known to be wrong before a build.

        Raises:
            EngineError: The engine's builder does not know an option.
            GlamaError: A GPU is unknown, or the timing cache cannot be a file.
        """
        for name in self.given():
            target = record.target
            if not record.options:
                raise EngineError(f"`{name}` is for TensorRT (trt, trt-rtx); {target} has no such option: leave it out")
            if name not in record.options:
                remedy = _REMEDIES.get(record.name, {}).get(name, "leave it out")
                raise EngineError(f"{target} does not support `{name}`: {remedy}")
        for gpu in self.settings.gpus:
            gpus.find_capability(gpu)
        if self.timing_cache is not None:
            _check_file(self.timing_cache)

    def given(self) -> list[str]:
        """Return the names, as the catalogue has them, of the options that are not at their defaults."""
        default = Options()
        own = {name: (getattr(self, name), getattr(default, name)) for name in ("profiles", "timing_cache")}
        settings = {
            name: (getattr(self.settings, name), getattr(default.settings, name)) for name in BuildSettings.model_fields
        }
        return [name for name, (value, usual) in {**settings, **own}.items() if value != usual]

    @property
    def capabilities(self) -> tuple[str, ...]:
        """The compute capabilities of the GPUs that are asked for, each once, the lowest first."""
        return tuple(sorted({gpus.find_capability(gpu) for gpu in self.settings.gpus}, key=gpus.split_capability))


def _check_file(path: Path) -> None:
    if path.is_dir():
        raise GlamaError(f"`timing_cache={path}` is a folder; give a file, which is made where it is not there")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise GlamaError(f"`timing_cache={path}` cannot be written; give a file in a folder that you may write to")
