"""The options of the TensorRT builders, which glama-export and glama-build share."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

from glama_deploy.bundle import BuildSettings
from glama_deploy.cli.entry import option
from glama_deploy.engines.tensorrt.options import Options
from glama_deploy.engines.tensorrt.presets import PRESETS, Preset, find_preset
from glama_deploy.engines.tensorrt.profiles import parse_profiles
from glama_deploy.errors import GlamaError

#: An option that stands under its own heading in the help.
tensorrt_option = partial(option, rich_help_panel="Options of TensorRT engines")


@dataclass(frozen=True)
class BuilderOptions:
    """The options of a TensorRT builder, as the command line has them."""

    device_preset: Annotated[
        str | None,
        tensorrt_option(
            "--device-preset",
            help=f"Sizes, profiles and workspace for a device with little memory: {', '.join(PRESETS)}. Options beside "
            "the preset replace its values.",
        ),
    ] = None
    profiles: Annotated[
        str,
        tensorrt_option(
            "--profiles",
            help="Optimization profiles. one: tuned at --opt-size. three: also at a smaller and at a larger size. "
            "auto: three for trt, one for trt-rtx, which compiles on the device for the sizes that it meets.",
        ),
    ] = "auto"
    timing_cache: Annotated[
        Path | None,
        tensorrt_option(
            "--timing-cache",
            help="File of TensorRT's kernel timings, which is read if it exists, and written (trt).",
            metavar="FILE",
        ),
    ] = None
    opt_level: Annotated[
        int | None,
        tensorrt_option(
            "--opt-level",
            help="How long TensorRT searches for faster kernels: 0 (builds fastest) to 5 (runs fastest). TensorRT's "
            "default is 3.",
        ),
    ] = None
    workspace: Annotated[
        int | None,
        tensorrt_option("--workspace", help="Largest scratch memory of a layer, in MiB.", metavar="MIB"),
    ] = None
    version_compatible: Annotated[
        bool,
        tensorrt_option(
            "--version-compatible", help="Let later versions of the same major TensorRT run the engine (trt)."
        ),
    ] = False
    hardware_compatible: Annotated[
        bool,
        tensorrt_option(
            "--hardware-compatible", help="Let all GPUs since Ampere run the engine, which may be slower (trt)."
        ),
    ] = False
    gpu: Annotated[
        list[str] | None,
        tensorrt_option(
            "--gpu",
            help="GPU that the engine is for: a name such as rtx-4090, or a compute capability such as 8.9. May be "
            "given several times. Without --gpu the engine is for 8.0, 8.6, 8.9, 12.0 and 12.1; Turing (7.5) must be "
            "named (trt-rtx).",
        ),
    ] = None
    strip_weights: Annotated[
        bool,
        tensorrt_option(
            "--strip-weights", help="Build an engine without weights. They are read from the ONNX model at load."
        ),
    ] = False
    refittable: Annotated[
        bool,
        tensorrt_option("--refittable", help="Let the engine's weights be replaced without a new build."),
    ] = False

    def read(self) -> Options:
        """Read the builder's options. :meth:`Options.check` says whether a target supports them.

        Returns:
            The options.

        Raises:
            GlamaError: A value is not valid for any target.
        """
        if self.opt_level is not None and not 0 <= self.opt_level <= 5:
            raise GlamaError(f"--opt-level is {self.opt_level}; expected 0 (builds fastest) to 5 (runs fastest)")
        if self.workspace is not None and self.workspace < 1:
            raise GlamaError(f"--workspace is {self.workspace}; expected a number of MiB above 0")
        preset = self.preset
        settings = BuildSettings(
            gpus=tuple(self.gpu or ()),
            optimization_level=self.opt_level,
            workspace_mib=self.workspace or (preset.workspace_mib if preset else None),
            version_compatible=self.version_compatible,
            hardware_compatible=self.hardware_compatible,
            refittable=self.refittable,
            stripped=self.strip_weights,
        )
        profiles = preset.profiles if preset and self.profiles == "auto" else parse_profiles(self.profiles)
        return Options(settings, profiles, self.timing_cache)

    @property
    def preset(self) -> Preset | None:
        """The preset of the device; None if no preset is given."""
        return find_preset(self.device_preset) if self.device_preset else None
