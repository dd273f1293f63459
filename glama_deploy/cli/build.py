"""glama-build: an engine for this device, out of a bundle that came from elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast

import typer
from rich.console import Console

from glama_deploy.bundle import Bundle, Precision
from glama_deploy.cli import builder
from glama_deploy.cli.entry import Command, option
from glama_deploy.cli.report import print_report
from glama_deploy.cli.show import Steps
from glama_deploy.cli.sizes import MaxBatch, MaxSize, MinSize, OptSize, profile
from glama_deploy.engines.adoption import adopt
from glama_deploy.engines.build import TARGETS, add, target_of
from glama_deploy.engines.inspection import Report
from glama_deploy.errors import GlamaError


def glama_build(
    bundle: Annotated[Path, typer.Argument(help="The bundle's folder.", show_default=False)],
    target: Annotated[str, option("--target", help="openvino, trt or trt-rtx.")],
    precision: Annotated[
        str | None, option("--precision", help="fp32, fp16 or bf16; by default what the bundle was exported with.")
    ] = None,
    min_size: MinSize = None,
    opt_size: OptSize = None,
    max_size: MaxSize = None,
    max_batch: MaxBatch = 1,
    profiles: builder.Profiles = "auto",
    timing_cache: builder.TimingCache = None,
    opt_level: builder.OptLevel = None,
    workspace: builder.Workspace = None,
    version_compatible: builder.VersionCompatible = False,
    hardware_compatible: builder.HardwareCompatible = False,
    gpu: builder.Gpu = None,
    strip_weights: builder.StripWeights = False,
    refittable: builder.Refittable = False,
    engine: Annotated[
        Path | None,
        option(
            "--engine", help="Register this engine, which trtexec built from the bundle's graph, and build none (trt)."
        ),
    ] = None,
    report: Annotated[bool, option("--report", help="Print what is in the engine: layers, types, weights.")] = False,
) -> None:
    """Build an engine into a bundle on the device that runs it; PyTorch is not needed."""
    opened = Bundle.open(bundle)
    sizes = profile(min_size, opt_size, max_size, max_batch)
    options = builder.options(
        profiles,
        timing_cache,
        opt_level,
        workspace,
        version_compatible,
        hardware_compatible,
        gpu,
        strip_weights,
        refittable,
    )
    name, heard = TARGETS[target_of(target)], list[Report]()
    if report and (engine is not None or not name.startswith("tensorrt")):
        raise GlamaError("--report is of an engine that TensorRT builds; leave it out")
    if engine is not None and (min_size or opt_size or max_size or timing_cache or profiles != "auto"):
        raise GlamaError(
            "--engine has its sizes and profiles already; leave out --min-size and all that says how to build"
        )
    with Steps() as steps:
        if engine is not None:
            steps(f"registering {engine}")
            result = adopt(opened, target, engine, precision, options)
        else:
            steps(f"building {name}")
            asked = cast("Precision | None", precision)
            result = add(opened, target, sizes, asked, options=options, report=heard.append if report else None)
    console = Console(highlight=False)
    for made in result.manifest.engines.values():
        size = sum(file.bytes for file in made.files) / 1e6
        console.print(f"{made.name}: {made.precision}, sizes {made.sizes}, {size:.1f} MB")
    for each in heard:
        print_report(console, each)


main = Command("glama-build", glama_build)
