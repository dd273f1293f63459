"""The options of the TensorRT builders, and which builder supports which option."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from glama_deploy.bundle import BuildSettings
from glama_deploy.catalogue import TENSORRT, TENSORRT_RTX, EngineRecord
from glama_deploy.engines.tensorrt import gpus
from glama_deploy.engines.tensorrt.profiles import Profiles
from glama_deploy.errors import EngineError, GlamaError

#: What to do instead of an option that an engine's builder does not support.
_REMEDIES = {
    TENSORRT.name: {
        "gpus": "TensorRT builds for the GPU that it finds: build on that one, give `hardware_compatible`, or build "
        "with `target=trt-rtx`",
    },
    TENSORRT_RTX.name: {
        "timing_cache": "TensorRT-RTX chooses its kernels on the device, so there is nothing to time: leave it out",
        "version_compatible": "TensorRT-RTX has no lean runtime to put into the engine: build again for each version",
        "hardware_compatible": "a TensorRT-RTX engine is for several kinds of GPU already: leave it out, or name "
        "the GPUs with `gpus`",
    },
}


@dataclass(frozen=True)
class Options:
    """How a TensorRT engine is built.

    Attributes:
        settings: The settings that the manifest records.
        profiles: `one`, `three` (for small, middle and large sizes), or `auto`: three for TensorRT, one for
            TensorRT-RTX, which compiles for the sizes that it meets.
        timing_cache: A file of TensorRT's kernel timings. The builder reads the file if it exists, and writes it.
    """

    settings: BuildSettings = field(default_factory=BuildSettings)
    profiles: Profiles = "auto"
    timing_cache: Path | None = None

    def check(self, record: EngineRecord) -> None:
        """Refuse options that are known to fail before a build.

        Args:
            record: The engine in the catalogue.

        Raises:
            EngineError: The engine's builder does not support an option, at all or on a Jetson.
            GlamaError: A GPU is unknown, or the timing cache cannot be written.
        """
        for name in self.list_given():
            target = record.target
            if not record.options:
                raise EngineError(f"`{name}` is for TensorRT (trt, trt-rtx); {target} has no such option: leave it out")
            if name not in record.options:
                remedy = _REMEDIES.get(record.name, {}).get(name, "leave it out")
                raise EngineError(f"{target} does not support `{name}`: {remedy}")
        for gpu in self.settings.gpus:
            gpus.find_capability(gpu)
        if self.settings.hardware_compatible and gpus.find_local_capability() in gpus.JETSON_CAPABILITIES:
            raise EngineError(
                "JetPack's TensorRT does not support `hardware_compatible=True`; leave it out, and build on each kind "
                "of Jetson"
            )
        if self.timing_cache is not None:
            _check_file(self.timing_cache)

    def list_given(self) -> list[str]:
        """Return the options that are not at their defaults.

        Returns:
            The names, as in :attr:`glama_deploy.catalogue.EngineRecord.options`.
        """
        default = Options()
        own = {name: (getattr(self, name), getattr(default, name)) for name in ("profiles", "timing_cache")}
        settings = {
            name: (getattr(self.settings, name), getattr(default.settings, name)) for name in BuildSettings.model_fields
        }
        return [name for name, (value, usual) in {**settings, **own}.items() if value != usual]

    @property
    def capabilities(self) -> tuple[str, ...]:
        """The compute capabilities of the given GPUs, each once, the lowest first."""
        return tuple(sorted({gpus.find_capability(gpu) for gpu in self.settings.gpus}, key=gpus.split_capability))


def _check_file(path: Path) -> None:
    if path.is_dir():
        raise GlamaError(f"`timing_cache={path}` is a folder; give a file, which is made if it is missing")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise GlamaError(f"`timing_cache={path}` cannot be written; give a file in a folder that you may write to")
