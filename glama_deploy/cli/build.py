"""glama-build: an engine for this device, out of a bundle that came from elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast

import typer
from rich.console import Console

from glama_deploy.bundle import Bundle, Precision
from glama_deploy.cli.entry import Command, option
from glama_deploy.cli.show import Steps
from glama_deploy.cli.sizes import MaxBatch, MaxSize, MinSize, OptSize, profile
from glama_deploy.engines.build import TARGETS, add, target_of


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
) -> None:
    """Build an engine into a bundle on the device that runs it; PyTorch is not needed."""
    opened = Bundle.open(bundle)
    with Steps() as steps:
        steps(f"building {TARGETS[target_of(target)]}")
        result = add(
            opened, target, profile(min_size, opt_size, max_size, max_batch), cast("Precision | None", precision)
        )
    console = Console(highlight=False)
    for engine in result.manifest.engines.values():
        size = sum(file.bytes for file in engine.files) / 1e6
        console.print(f"{engine.name}: {engine.precision}, sizes {engine.sizes}, {size:.1f} MB")


main = Command("glama-build", glama_build)
