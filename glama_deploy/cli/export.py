"""glama-export: export a checkpoint to a bundle."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, cast

from glama_deploy.bundle import DEFAULT_PROFILE, Io, parse_size
from glama_deploy.catalogue import ENGINES, ONNX, WEB, engines_with, export_precisions, find_target, join_names
from glama_deploy.checkpoints.published.references import locate
from glama_deploy.cli.entry import Command, option
from glama_deploy.cli.options.builder import BuilderOptions
from glama_deploy.cli.options.completion import list_models, list_targets
from glama_deploy.cli.options.sizes import SizeOptions
from glama_deploy.cli.options.tolerance import Tolerances, parse_tolerances
from glama_deploy.cli.output.console import Console
from glama_deploy.cli.output.show import Steps, print_flops, print_outcome, print_site
from glama_deploy.errors import GlamaError
from glama_deploy.export.pipeline import Request, check_request, export
from glama_deploy.export.web.ort_web import NPM_SOURCE
from glama_deploy.export.web.site import SiteRequest, make_site


def glama_export(
    ckpt: Annotated[
        str,
        option(
            "--ckpt",
            list_values=list_models,
            help="Checkpoint: a file of this project (.safetensors, .pt), a LaMa model folder or its zip, LaMa's "
            "parameters (.ckpt, .pt, .pth, .safetensors), TorchScript (big-lama.pt), a name of glama-models list, "
            "hf://OWNER/REPO/FILE, https://HOST/FILE#sha256=HASH, or 'default' for the embedded network.",
        ),
    ],
    out: Annotated[
        Path, option("--out", help="Folder of the bundle or site. It must not exist yet (see --overwrite).")
    ],
    sizes: SizeOptions,
    builder: BuilderOptions,
    target: Annotated[
        list[str] | None,
        option(
            "--target",
            list_values=list_targets,
            help=f"{join_names(record.target for record in ENGINES.values())}. May be given several times. "
            f"Every bundle has the ONNX model. {WEB.target}, alone, makes a static site that runs in browsers.",
        ),
    ] = None,
    weights_key: Annotated[
        str | None,
        option(
            "--weights-key",
            help="Which generator of a checkpoint with several, such as generator or generator_average. By default the "
            "running average; of LaMa's trainer, the generator.",
            metavar="NAME",
        ),
    ] = None,
    precision: Annotated[
        str,
        option(
            "--precision",
            list_values=export_precisions,
            help="fp32. fp16 or bf16: TensorRT computes in this type; OpenVINO stores fp16 weights. int8: convolutions "
            "compute in int8 on CPUs and in TensorRT, where all other layers are fp16 (needs --calib). A site stores "
            "weights in fp32, fp16 or both (fp32,fp16).",
        ),
    ] = "fp32",
    calib: Annotated[
        Path | None,
        option(
            "--calib",
            help="Folder of photos to calibrate int8, fp16 or bf16 on. For fp16 and bf16 the default is the sample "
            "photo.",
        ),
    ] = None,
    calib_images: Annotated[
        int | None,
        option("--calib-images", min=1, help="Number of photos to calibrate int8 on (by default all, up to 16)."),
    ] = None,
    size: Annotated[
        str | None,
        option(
            "--size",
            help="HxW: fix the graph to this size. Without --size the graph takes every multiple of 8 from 16 up.",
        ),
    ] = None,
    fft: Annotated[
        str,
        option(
            "--fft",
            help="How the graph computes FFTs. matmul: matrix products, for any size. split: two smaller products a "
            "side, for one --size. dft: DFT nodes, for CPUs and TensorRT from 11.2. plugin: cuFFT, for TensorRT 10. "
            "auto: the cheaper one of matmul and split.",
        ),
    ] = "auto",
    io: Annotated[
        str,
        option(
            "--io",
            help="Type of the graph's inputs and outputs. float: NCHW tensors of 0…1 with sides in multiples of 8. "
            "uint8: NHWC images of any size; the graph pads, composites and rounds. carve, migan: model.onnx replaces "
            "Carve's LaMa or MI-GAN's pipeline in programs that load these models, at any size.",
        ),
    ] = "float",
    predicted: Annotated[
        bool,
        option(
            "--predicted/--no-predicted",
            help="Keep the network's own output beside the inpainted image. Inpainter.predict() needs it.",
        ),
    ] = True,
    parity: Annotated[
        bool, option("--parity/--no-parity", help="Measure every engine against the PyTorch reference.")
    ] = True,
    parity_size: Annotated[
        str | None, option("--parity-size", help="HxW: largest size that parity is measured at (512x512 by default).")
    ] = None,
    tolerance: Tolerances = None,
    ort_web: Annotated[
        str | None,
        option(
            "--ort-web",
            help="Where a site's ONNX Runtime Web comes from. npm: downloaded by npm. DIR: a folder with the package's "
            "files. cdn: visitors load the files from a public CDN. By default npm.",
            metavar="DIR|npm|cdn",
        ),
    ] = None,
    report: Annotated[bool, option("--report", help="Print the FLOPs of the network's parts.")] = False,
    overwrite: Annotated[bool, option("--overwrite", help="Replace a bundle or site that exists.")] = False,
) -> int:
    """Export a GLaMa or LaMa checkpoint to ONNX, OpenVINO, TensorRT or a site, and measure engines against PyTorch.

    Exit codes: 0 success; 2 bad input, nothing was written; 3 an engine is beyond its parity tolerance; 4 a target
    cannot be built on this machine, the other engines are in the bundle.
    """
    if size and sizes.has_sizes:
        raise GlamaError("--size fixes the graph to one size; leave out --min-size, --opt-size and --max-size")
    profile = sizes.read(builder.preset.sizes if builder.preset else DEFAULT_PROFILE)
    is_site = target == [WEB.target]
    if ort_web is not None and not is_site:
        raise GlamaError(f"--ort-web is for sites; add --target {WEB.target}, or leave it out")
    engines = [find_target(name) for name in ([ONNX.target] if is_site else target or [ONNX.target])]
    if sizes.is_given and not any("sizes" in record.options for record in engines):
        takers = join_names(record.target for record in engines_with("sizes"))
        raise GlamaError(f"--min-size, --opt-size, --max-size and --max-batch are TensorRT's; add --target {takers}")
    request = Request(
        checkpoint=ckpt,
        out=out,
        weights_key=weights_key,
        targets=tuple(record.target for record in engines),
        precision="fp32" if is_site else precision,
        fft=fft,
        io=cast(Io, io),
        calibration=calib,
        calibration_images=calib_images,
        parity_size=parse_size(parity_size, "--parity-size") if parity_size else None,
        tolerances=parse_tolerances(tolerance),
        size=parse_size(size, "--size") if size else None,
        profile=profile,
        options=builder.read(),
        predicted=predicted and not is_site,
        parity=parity,
        overwrite=overwrite,
    )
    console = Console()
    if not is_site:
        check_request(request)  # wrong options are told before a download
    locate(ckpt)  # the bar of a download must not meet the spinner
    with Steps() as steps:
        if is_site:
            site = SiteRequest(request, tuple(precision.split(",")), ort_web or NPM_SOURCE)
            outcome = make_site(site, steps)
        else:
            outcome = export(request, steps)
    has_no_parity = is_site and not parity and not outcome.failures  # the table would not show the site's precisions
    code = 0 if has_no_parity else print_outcome(console, outcome)
    if report:
        print_flops(console, outcome.bundle.manifest, request.size or request.profile.opt)
    if is_site:
        print_site(console, out)
    else:
        console.print(f"bundle: {out}", soft_wrap=True)
        for missing in outcome.failures:
            if find_target(missing).devices == ("cuda",):
                console.print(f"on the device: glama-build {shlex.quote(str(out))} --target {missing}", soft_wrap=True)
    return code


main = Command("glama-export", glama_export)
