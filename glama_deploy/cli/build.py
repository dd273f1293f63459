"""glama-build: an engine for this device, out of a bundle that came from elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from glama_deploy.bundle import DEFAULT_PROFILE, Bundle
from glama_deploy.catalogue import ENGINES, find_target, listed
from glama_deploy.cli.entry import Command, argument, option
from glama_deploy.cli.options import builder
from glama_deploy.cli.options.sizes import MaxBatch, MaxSize, MinSize, OptSize, profile
from glama_deploy.cli.options.tolerance import Tolerances, parse
from glama_deploy.cli.output.console import Console
from glama_deploy.cli.output.report import print_report
from glama_deploy.cli.output.show import Steps, print_bound
from glama_deploy.engines.build import add_engine, read_asked_options
from glama_deploy.engines.tensorrt.inspection import Report
from glama_deploy.engines.tensorrt.register import register_engine
from glama_deploy.errors import EngineError, GlamaError, NotBuiltError


def glama_build(
    bundle: Annotated[Path, argument(help="The bundle's folder.", show_default=False)],
    target: Annotated[
        str,
        option("--target", help=f"{listed(record.target for record in ENGINES.values() if record.builder)}."),
    ],
    precision: Annotated[
        str | None,
        option("--precision", help="fp32, fp16, bf16 or int8; by default what the bundle was exported with."),
    ] = None,
    min_size: MinSize = None,
    opt_size: OptSize = None,
    max_size: MaxSize = None,
    max_batch: MaxBatch = None,
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
    tolerance: Tolerances = None,
    report: Annotated[bool, option("--report", help="Print what is in the engine: layers, types, weights.")] = False,
) -> int:
    """Build an engine into a bundle on the device that runs it; PyTorch is not needed.

    What is not given is as it was asked for at the export. --tolerance judges the parity that the export emulated for
    TensorRT, instead of the export's own tolerance. Exit code: 0 built; 2 bad input, the bundle is as it was; 3 built,
    but over the --tolerance; 4 the engine cannot be built here.
    """
    opened = Bundle.open(bundle)
    asked = opened.manifest.asked
    sizes = profile(min_size, opt_size, max_size, max_batch, asked.sizes if asked else DEFAULT_PROFILE)
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
    record, heard = find_target(target), list[Report]()
    tolerances = parse(tolerance)
    sized = bool(min_size or opt_size or max_size)
    if report and (engine is not None or "report" not in record.options):
        raise GlamaError("--report is of an engine that TensorRT builds; leave it out")
    if engine is not None and (sized or max_batch or timing_cache or profiles != "auto"):
        raise GlamaError(
            "--engine has its sizes and profiles already; leave out --min-size and all that says how to build"
        )
    if (sized or max_batch) and "sizes" not in record.options:
        raise GlamaError("--min-size, --opt-size, --max-size and --max-batch are TensorRT's; leave them out")
    if (sized or profiles != "auto") and opened.sizes.static:
        raise GlamaError(f"this bundle is of one size, {opened.sizes}; leave out --min-size and all that gives others")
    options.check(record)
    if engine is None and not options.list_given():
        options = read_asked_options(opened.manifest, record)
    with Steps() as steps:
        try:
            if engine is not None:
                steps(f"registering {engine}")
                result = register_engine(opened, target, engine, precision, options, tolerances)
            else:
                steps(f"building {record.name}")
                result = add_engine(
                    opened,
                    target,
                    sizes,
                    precision,
                    options=options,
                    report=heard.append if report else None,
                    tolerances=tolerances,
                )
        except EngineError as error:
            raise NotBuiltError(str(error)) from error
    console = Console()
    for made in result.manifest.engines.values():
        size = sum(file.bytes for file in made.files) / 1e6
        console.print(f"{made.name}: {made.precision}, sizes {made.sizes}, {size:.1f} MB")
    for each in heard:
        print_report(console, each)
    return print_bound(console, result.manifest.engines[record.name]) if tolerances else 0


main = Command("glama-build", glama_build)
