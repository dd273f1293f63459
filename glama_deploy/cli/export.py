"""glama-export: a checkpoint in, a bundle out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast

from glama_deploy.bundle import Io, parse_size
from glama_deploy.catalogue import ENGINES, ONNX, engines_with, find_target, listed
from glama_deploy.cli.entry import Command, option
from glama_deploy.cli.options import builder
from glama_deploy.cli.options.sizes import MaxBatch, MaxSize, MinSize, OptSize, profile
from glama_deploy.cli.options.tolerance import Tolerances, parse
from glama_deploy.cli.output.console import Console
from glama_deploy.cli.output.show import Steps, print_flops, print_outcome
from glama_deploy.errors import GlamaError
from glama_deploy.export.pipeline import Request, export


def glama_export(
    ckpt: Annotated[
        str,
        option(
            "--ckpt",
            help="Checkpoint: ours (.safetensors, .pt), a LaMa model folder, LaMa's parameters (.ckpt, .pt, .pth, "
            ".safetensors), TorchScript (big-lama.pt), or 'default', the embedded network.",
        ),
    ],
    out: Annotated[Path, option("--out", help="Folder of the bundle; it must not exist yet (see --overwrite).")],
    target: Annotated[
        list[str] | None,
        option(
            "--target",
            help=f"{listed(record.target for record in ENGINES.values())}; may be given several times. ONNX is always "
            "there.",
        ),
    ] = None,
    precision: Annotated[
        str,
        option(
            "--precision",
            help="fp32; fp16 or bf16: TensorRT computes in it (OpenVINO: fp16 stores the weights in half the space); "
            "int8: convolutions compute in it, on CPUs and in TensorRT, there with fp16 for the rest (needs --calib).",
        ),
    ] = "fp32",
    calib: Annotated[
        Path | None,
        option(
            "--calib",
            help="Folder of photos on which int8, or half precision (by default on the sample photo), is calibrated.",
        ),
    ] = None,
    calib_images: Annotated[
        int | None, option("--calib-images", min=1, help="How many of them int8 is calibrated on; up to 16 by default.")
    ] = None,
    size: Annotated[
        str | None,
        option("--size", help="HxW: a graph of this one size. Without it every multiple of 8 from 16 up works."),
    ] = None,
    min_size: MinSize = None,
    opt_size: OptSize = None,
    max_size: MaxSize = None,
    max_batch: MaxBatch = None,
    fft: Annotated[
        str,
        option(
            "--fft",
            help="How FFTs are written: matmul (any size), split (two smaller products a side, for one --size), dft "
            "(ONNX DFT nodes: TensorRT 11.2 on, CPUs), plugin (cuFFT in TensorRT 10), or auto: matmul or split, as is "
            "cheaper.",
        ),
    ] = "auto",
    io: Annotated[
        str,
        option(
            "--io",
            help="float: NCHW tensors of 0…1 in multiples of 8. uint8: images as they are, NHWC, any size; padding, "
            "compositing and rounding are in the graph.",
        ),
    ] = "float",
    predicted: Annotated[
        bool,
        option(
            "--predicted/--no-predicted", help="Keep the network's own output beside the inpainted image (predict())."
        ),
    ] = True,
    parity: Annotated[
        bool, option("--parity/--no-parity", help="Measure every engine against the PyTorch reference.")
    ] = True,
    parity_size: Annotated[
        str | None, option("--parity-size", help="HxW: measure parity at sizes up to this one (512x512 by default).")
    ] = None,
    tolerance: Tolerances = None,
    report: Annotated[bool, option("--report", help="Print the network's FLOPs by part.")] = False,
    profiles: builder.Profiles = "auto",
    timing_cache: builder.TimingCache = None,
    opt_level: builder.OptLevel = None,
    workspace: builder.Workspace = None,
    version_compatible: builder.VersionCompatible = False,
    hardware_compatible: builder.HardwareCompatible = False,
    gpu: builder.Gpu = None,
    strip_weights: builder.StripWeights = False,
    refittable: builder.Refittable = False,
    overwrite: Annotated[bool, option("--overwrite", help="Replace a bundle that exists.")] = False,
) -> int:
    """Export a GLaMa or LaMa checkpoint to ONNX, OpenVINO and TensorRT, and measure each against PyTorch.

    Exit code: 0 all well; 2 bad input, nothing written; 3 an engine is further from the reference than its
    tolerance; 4 a target could not be built here (the others are there).
    """
    if size and (min_size or opt_size or max_size):
        raise GlamaError("--size fixes the graph to one size; leave out --min-size, --opt-size and --max-size")
    sizes = profile(min_size, opt_size, max_size, max_batch)
    engines = [find_target(name) for name in target or [ONNX.target]]
    if (min_size or opt_size or max_size or max_batch) and not any("sizes" in record.options for record in engines):
        takers = listed(record.target for record in engines_with("sizes"))
        raise GlamaError(f"--min-size, --opt-size, --max-size and --max-batch are TensorRT's; add --target {takers}")
    request = Request(
        checkpoint=ckpt,
        out=out,
        targets=tuple(record.target for record in engines),
        precision=precision,
        fft=fft,
        io=cast(Io, io),
        calibration=calib,
        calibration_images=calib_images,
        parity_size=parse_size(parity_size, "--parity-size") if parity_size else None,
        tolerances=parse(tolerance),
        size=parse_size(size, "--size") if size else None,
        profile=sizes,
        options=builder.options(
            profiles,
            timing_cache,
            opt_level,
            workspace,
            version_compatible,
            hardware_compatible,
            gpu,
            strip_weights,
            refittable,
        ),
        predicted=predicted,
        parity=parity,
        overwrite=overwrite,
    )
    console = Console()
    with Steps() as steps:
        outcome = export(request, steps)
    code = print_outcome(console, outcome)
    if report:
        print_flops(console, outcome.bundle.manifest, request.size or request.profile.opt)
    console.print(f"bundle: {out}", soft_wrap=True)
    return code


main = Command("glama-export", glama_export)
