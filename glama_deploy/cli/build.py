"""glama-build: build an engine for this device from a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from glama_deploy.bundle import DEFAULT_PROFILE, Bundle
from glama_deploy.catalogue import ENGINES, EngineRecord, export_precisions, find_target, join_names
from glama_deploy.cli.entry import Command, argument, option
from glama_deploy.cli.options.builder import BuilderOptions
from glama_deploy.cli.options.completion import list_built_targets
from glama_deploy.cli.options.sizes import SizeOptions
from glama_deploy.cli.options.tolerance import Tolerances, parse_tolerances
from glama_deploy.cli.output.console import Console
from glama_deploy.cli.output.report import print_report
from glama_deploy.cli.output.show import Steps, print_bound, print_device_check
from glama_deploy.engines.build import add_engine, read_asked_options
from glama_deploy.engines.tensorrt.gpus import choose_gpu
from glama_deploy.engines.tensorrt.inspection import Report
from glama_deploy.engines.tensorrt.register import register_engine
from glama_deploy.errors import EngineError, GlamaError, NotBuiltError
from glama_deploy.runtime.devices import parse_device


def glama_build(
    bundle: Annotated[Path, argument(help="Folder of the bundle.", show_default=False)],
    target: Annotated[
        str,
        option(
            "--target",
            list_values=list_built_targets,
            help=f"{join_names(record.target for record in ENGINES.values() if record.builder)}.",
        ),
    ],
    sizes: SizeOptions,
    builder: BuilderOptions,
    precision: Annotated[
        str | None,
        option(
            "--precision",
            list_values=export_precisions,
            help="fp32, fp16, bf16 or int8 (by default the precision of the export).",
        ),
    ] = None,
    engine: Annotated[
        Path | None,
        option(
            "--engine",
            help="Register this engine, which trtexec built from the bundle's graph, instead of a build (trt).",
        ),
    ] = None,
    tolerance: Tolerances = None,
    check: Annotated[
        bool,
        option(
            "--check/--no-check",
            help="Run a TensorRT engine on this GPU, and refuse it where its output differs from ONNX Runtime's.",
        ),
    ] = True,
    device: Annotated[
        str | None,
        option("--device", help="GPU that TensorRT builds on: cuda:N (the first by default).", metavar="cuda:N"),
    ] = None,
    report: Annotated[
        bool, option("--report", help="Print the engine's layers, types and weights (TensorRT).")
    ] = False,
) -> int:
    """Build an engine into a bundle, on the device that runs the engine. PyTorch is not needed.

    Without an option, the value of the export is used. --tolerance replaces the tolerance of the export for the
    parity that the export emulated for TensorRT. Exit codes: 0 success; 2 bad input, the bundle is unchanged; 3 built,
    but beyond the --tolerance; 4 the engine cannot be built on this machine, or computes wrong values on it.
    """
    if device is not None:
        _choose_device(device, find_target(target))
    opened = Bundle.open(bundle)
    asked = opened.manifest.asked
    usual = asked.sizes if asked else DEFAULT_PROFILE
    profile = sizes.read(builder.preset.sizes if builder.preset else usual)
    options = builder.read()
    record, reports = find_target(target), list[Report]()
    tolerances = parse_tolerances(tolerance)
    if report and (engine is not None or "report" not in record.options):
        raise GlamaError("--report is of an engine that TensorRT builds; leave it out")
    _check_sizes(opened, record, sizes, builder, engine)
    options.check(record)
    if engine is None and not options.list_given():
        options = read_asked_options(opened.manifest, record)
    with Steps() as steps:
        try:
            if engine is not None:
                steps(f"registering {engine}")
                result = register_engine(opened, target, engine, precision, options, tolerances, check=check)
            else:
                steps(f"building {record.name}")
                result = add_engine(
                    opened,
                    target,
                    profile,
                    precision,
                    options=options,
                    report=reports.append if report else None,
                    tolerances=tolerances,
                    check=check,
                )
        except EngineError as error:
            raise NotBuiltError(str(error)) from error
    console = Console()
    for made in result.manifest.engines.values():
        size = sum(file.bytes for file in made.files) / 1e6
        console.print(f"{made.name}: {made.precision}, sizes {made.sizes}, {size:.1f} MB")
    print_device_check(console, result.manifest.engines[record.name])
    for each in reports:
        print_report(console, each)
    return print_bound(console, result.manifest.engines[record.name]) if tolerances else 0


def _choose_device(device: str, record: EngineRecord) -> None:
    """Let TensorRT build on a GPU. Raise GlamaError for another device, and for an engine that needs no GPU."""
    place = parse_device(device)
    if place is None or record.devices != ("cuda",):
        raise GlamaError(
            f"`device` is for TensorRT (trt, trt-rtx); {record.target} is built without a GPU: leave it out"
        )
    if place.kind not in record.devices:
        raise GlamaError(f"`device` is {place}, and TensorRT builds on NVIDIA GPUs; give cuda:N")
    choose_gpu(place.index or 0)


def _check_sizes(
    bundle: Bundle, record: EngineRecord, sizes: SizeOptions, builder: BuilderOptions, engine: Path | None
) -> None:
    """Raise GlamaError if sizes or profiles are given that have no effect."""
    if engine is not None and (sizes.is_given or builder.timing_cache or builder.profiles != "auto"):
        raise GlamaError(
            "--engine has its sizes and profiles already; leave out --min-size and all that says how to build"
        )
    if sizes.is_given and "sizes" not in record.options:
        raise GlamaError("--min-size, --opt-size, --max-size and --max-batch are TensorRT's; leave them out")
    if (sizes.has_sizes or builder.profiles != "auto") and bundle.sizes.static:
        raise GlamaError(f"this bundle is of one size, {bundle.sizes}; leave out --min-size and all that gives others")


main = Command("glama-build", glama_build)
