"""The options of a TensorRT builder, which two commands share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from glama_deploy.bundle import BuildSettings
from glama_deploy.cli.entry import option
from glama_deploy.engines.tensorrt import profiles
from glama_deploy.engines.tensorrt.options import Options
from glama_deploy.errors import GlamaError

Profiles = Annotated[
    str,
    option(
        "--profiles",
        help="one: tuned at --opt-size; three: also at a smaller and a larger size; auto: three for trt, one for "
        "trt-rtx, which compiles on the device for the sizes that it meets.",
    ),
]
TimingCache = Annotated[
    Path | None,
    option(
        "--timing-cache",
        help="File of TensorRT's kernel timings: read if it is there, written back (trt).",
        metavar="FILE",
    ),
]
OptLevel = Annotated[
    int | None,
    option("--opt-level", help="How long TensorRT searches for faster kernels (0 to 5; its own default is 3)."),
]
Workspace = Annotated[
    int | None,
    option("--workspace", help="The most scratch memory that a layer may take, in MiB.", metavar="MIB"),
]
VersionCompatible = Annotated[
    bool,
    option("--version-compatible", help="The engine runs with later versions of the same major TensorRT, too (trt)."),
]
HardwareCompatible = Annotated[
    bool,
    option("--hardware-compatible", help="The engine runs on every GPU since Ampere, at some cost in speed (trt)."),
]
Gpu = Annotated[
    list[str] | None,
    option(
        "--gpu",
        help="A GPU that the engine is for, as rtx-4090 or a compute capability as 8.9; may be given several times "
        "(trt-rtx). Without it: every one from 8.0 up; Turing (7.5) has to be named.",
    ),
]
StripWeights = Annotated[
    bool, option("--strip-weights", help="Leave the weights out of the engine; they are put in from the ONNX at load.")
]
Refittable = Annotated[bool, option("--refittable", help="Let the engine's weights be replaced without a new build.")]


def options(
    profile_count: str = "auto",
    timing_cache: Path | None = None,
    opt_level: int | None = None,
    workspace: int | None = None,
    version_compatible: bool = False,
    hardware_compatible: bool = False,
    gpu: Sequence[str] | None = None,
    strip_weights: bool = False,
    refittable: bool = False,
) -> Options:
    """The builder's options from the command's; whether a target has them, :meth:`Options.check` says. Raises
    GlamaError for a value that no target has."""
    if opt_level is not None and not 0 <= opt_level <= 5:
        raise GlamaError(f"--opt-level is {opt_level}; expected 0 (builds fastest) to 5 (runs fastest)")
    if workspace is not None and workspace < 1:
        raise GlamaError(f"--workspace is {workspace}; expected a number of MiB above 0")
    settings = BuildSettings(
        gpus=tuple(gpu or ()),
        optimization_level=opt_level,
        workspace_mib=workspace,
        version_compatible=version_compatible,
        hardware_compatible=hardware_compatible,
        refittable=refittable,
        stripped=strip_weights,
    )
    return Options(settings, profiles.parse_profiles(profile_count), timing_cache)
