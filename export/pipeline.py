"""From a checkpoint to a bundle: the graph, the engines, parity, the manifest; whole or not at all."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal, cast, get_args

from glama_deploy import bundle as bundles
from glama_deploy import memory
from glama_deploy.bundle import (
    ANY_SIZE,
    DEFAULT_PROFILE,
    Bundle,
    Engine,
    EngineName,
    Graph,
    Io,
    Lowering,
    Manifest,
    Precision,
    Size,
    SizeRange,
    Tensor,
)
from glama_deploy.engines import jetson
from glama_deploy.engines.build import TARGETS, target_of
from glama_deploy.engines.build import build as build_engine
from glama_deploy.engines.options import Options
from glama_deploy.errors import EngineError, GlamaError
from glama_deploy.export import cost
from glama_deploy.files import atomic_folder
from glama_deploy.reference import checkpoint as checkpoints
from glama_deploy.runtime.base import installed


@dataclass(frozen=True)
class Request:
    """What to export. `size` fixes the graph to one size; without it the graph takes any, and `profile` is what a
    TensorRT engine is built for. `fft` is a lowering, or `auto` for the cheapest. `calibration` is a folder of photos
    on which a half graph's ranges are measured. `parity_size` is the largest size that parity is measured at, where
    that is to be above 512x512. `options` are the TensorRT builders'."""

    checkpoint: str | Path
    out: Path
    targets: tuple[str, ...] = ("onnx",)
    precision: Precision = "fp32"
    size: Size | None = None
    profile: SizeRange = DEFAULT_PROFILE
    fft: str = "auto"
    io: Io = "float"
    calibration: Path | None = None
    parity_size: Size | None = None
    options: Options = field(default_factory=Options)
    predicted: bool = True
    parity: bool = True
    overwrite: bool = False


@dataclass(frozen=True)
class Outcome:
    """The bundle that was written, and for each target that did not come out, why."""

    bundle: Bundle
    failures: dict[str, str]


def export(request: Request, step: Callable[[str], None] = lambda text: None) -> Outcome:
    """Export a checkpoint; `step` hears what is being done.

    Raises GlamaError for bad input, with nothing written. A target that cannot be built here is a failure in the
    outcome; the others still come out.
    """
    _check(request)
    step("reading the checkpoint")
    checkpoint = checkpoints.read(request.checkpoint)
    outputs = ("inpainted", "predicted") if request.predicted else ("inpainted",)
    with atomic_folder(request.out, overwrite=request.overwrite) as folder:
        step("writing the ONNX graph")
        graphs = _write_graphs(checkpoint, request, folder, outputs, step)
        engines: dict[EngineName, Engine] = {}
        failures: dict[str, str] = {}
        always = () if _lowering(request) == "plugin" else ("onnx",)  # ONNX Runtime has no such nodes
        for target in dict.fromkeys((*always, *request.targets)):
            step(f"building {TARGETS[target]}")
            try:
                engines[TARGETS[target]] = build_engine(
                    folder,
                    target,
                    _graph_sizes(request),
                    request.profile,
                    request.precision,
                    fft=_lowering(request),
                    kept=graphs[request.precision].kept if request.precision in graphs else (),
                    options=request.options if target.startswith("trt") else None,
                )
            except EngineError as error:
                failures[target] = str(error)
                shutil.rmtree(folder / TARGETS[target], ignore_errors=True)
        manifest = _manifest(request, checkpoint, outputs, graphs, engines)
        if "trt" in request.targets and manifest.fft != "plugin":  # trtexec knows no plugin of ours
            script = folder / jetson.SCRIPT
            script.write_text(jetson.script(manifest, request.profile, request.options))
            script.chmod(0o755)
        manifest = _with_parity(Bundle(folder, manifest), checkpoint, request, step)
        (folder / bundles.MANIFEST).write_text(bundles.manifest_text(manifest))
    return Outcome(Bundle(request.out, manifest), failures)


def _check(request: Request) -> None:
    """Everything that can be known to be wrong before any work."""
    for target in request.targets:
        target_of(target)
    if request.precision not in ("fp32", "fp16", "bf16"):
        raise GlamaError(f"precision {request.precision!r} is not offered; expected fp32, fp16 or bf16")
    if request.precision == "bf16" and "openvino" in request.targets:
        raise GlamaError("an OpenVINO IR has no bf16: export it in fp32 and load it with precision bf16")
    _check_lowering(request)
    builders = [target for target in request.targets if target.startswith("trt")] or list(request.targets)
    for target in builders:
        request.options.check(target)
    if request.io not in ("float", "uint8"):
        raise GlamaError(f"--io is {request.io!r}; expected float or uint8")
    if request.calibration is not None and not request.calibration.is_dir():
        raise GlamaError(f"--calib {request.calibration} is no folder; give a folder of photos")
    if not installed("onnx"):
        raise GlamaError("exporting needs the onnx package; pip install onnx")
    if request.out.exists() and not request.overwrite:
        raise GlamaError(f"{request.out} exists already; choose another folder or pass --overwrite")
    if request.out.exists() and not request.out.is_dir():
        raise GlamaError(f"{request.out} is a file; a folder is needed for the bundle")
    if request.out.exists() and any(request.out.iterdir()) and not (request.out / bundles.MANIFEST).is_file():
        raise GlamaError(f"{request.out} exists and is no bundle, so it is not overwritten; choose another folder")
    parent = request.out.absolute().parent
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise GlamaError(f"cannot write into {parent}; choose a folder you may write to")


def _check_lowering(request: Request) -> None:
    """Whether the targets take the lowering."""
    if request.fft not in ("auto", *get_args(Lowering)):
        raise GlamaError(f"--fft is {request.fft!r}; expected auto, {', '.join(get_args(Lowering))}")
    if request.fft == "split" and request.size is None:
        raise GlamaError("--fft split is for one size: give --size HxW, or use --fft matmul for any size")
    if request.fft in ("dft", "plugin") and "trt-rtx" in request.targets:
        raise GlamaError(f"TensorRT-RTX has neither DFT nodes nor plugins, so no --fft {request.fft}: use --fft matmul")
    if request.fft == "plugin" and set(request.targets) != {"trt"}:
        raise GlamaError("--fft plugin is for TensorRT 10 alone: give --target trt and no other, or use --fft matmul")


def _lowering(request: Request) -> Lowering:
    return cost.choose(request.size) if request.fft == "auto" else cast(Lowering, request.fft)


def _write_graphs(
    checkpoint: checkpoints.Checkpoint,
    request: Request,
    folder: Path,
    outputs: tuple[str, ...],
    step: Callable[[str], None],
) -> dict[Precision, Graph]:
    """Write `model.onnx` and, where half precision is asked for, the graph that has it written in (an OpenVINO IR
    needs none)."""
    import onnx

    from glama_deploy.export.graph import build

    def write(model: onnx.ModelProto, precision: Precision, kept: dict[str, str]) -> None:
        path = folder / bundles.graph_name(precision)
        onnx.save_model(model, str(path))
        opset = model.opset_import[0].version
        graphs[precision] = Graph(file=bundles.artifact(folder, path), opset=opset, kept=kept)

    graphs: dict[Precision, Graph] = {}
    fft = _lowering(request)
    model = build(checkpoint.config, checkpoint.weights, request.size, outputs, fft, request.io)
    write(model, "fp32", {})
    if request.precision == "fp32" or set(request.targets) == {"openvino"}:
        return graphs
    if not installed("onnxruntime"):
        raise GlamaError("half precision is calibrated with ONNX Runtime; pip install onnxruntime")
    from glama_deploy.export import precision, ranges, samples

    largest_size = request.size or request.profile.max
    memory.check(*largest_size, checkpoint.config.ngf)
    step(f"calibrating at {largest_size[0]}x{largest_size[1]}")
    cases = samples.calibration_cases(request.calibration, largest_size)
    # on float tensors, and on DFT nodes in a plugin's place: the network between has the same names
    runnable = "dft" if fft == "plugin" else fft
    probed = build(checkpoint.config, checkpoint.weights, largest_size, ("predicted",), runnable)
    largest = ranges.measure(probed, (case.tensors() for case in cases))
    half: precision.Half = "fp16" if request.precision == "fp16" else "bf16"
    kept = precision.lacking(model, half) | ranges.out_of_range(model, largest, half)
    step(f"writing {request.precision} into the graph")
    write(precision.typed(model, half, kept), half, kept)
    return graphs


def _graph_sizes(request: Request) -> SizeRange:
    return SizeRange(min=request.size, opt=request.size, max=request.size) if request.size else ANY_SIZE


def _manifest(
    request: Request,
    checkpoint: checkpoints.Checkpoint,
    outputs: tuple[str, ...],
    graphs: dict[Precision, Graph],
    engines: dict[EngineName, Engine],
) -> Manifest:
    meaning = {
        "image": "RGB",
        "mask": "1 = missing, 0 = known" if request.io == "float" else "above 0 = missing, 0 = known",
        "inpainted": "the prediction where pixels are missing, the image where they are known",
        "predicted": "the network's own output, before compositing",
    }

    def tensor(name: str) -> Tensor:
        sides = request.size or ("height", "width")
        if request.io == "float":
            shape: tuple[int | str, ...] = ("batch", 1 if name == "mask" else 3, *sides)
            layout: Literal["NCHW", "NHWC", "NHW"] = "NCHW"
        else:
            shape, layout = (("batch", *sides), "NHW") if name == "mask" else (("batch", *sides, 3), "NHWC")
        whole = request.io == "uint8" and name != "predicted"
        return Tensor(
            name=name,
            dtype="uint8" if whole else "float32",
            layout=layout,
            shape=shape,
            range=(0.0, 255.0 if whole else 1.0),
            meaning=meaning[name],
        )

    return Manifest(
        network=checkpoint.config,
        checkpoint=bundles.Checkpoint(file=checkpoint.path.name, kind=checkpoint.kind, sha256=checkpoint.sha256),
        fft=_lowering(request),
        io=request.io,
        inputs=(tensor("image"), tensor("mask")),
        outputs=tuple(tensor(name) for name in outputs),
        tools=tool_versions("glama-deploy", "onnx", "numpy", "torch"),
        graphs=graphs,
        engines=engines,
    )


def tool_versions(*packages: str) -> dict[str, str]:
    """The versions of those packages that are installed."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _with_parity(
    bundle: Bundle, checkpoint: checkpoints.Checkpoint, request: Request, step: Callable[[str], None]
) -> Manifest:
    """The manifest with each engine's parity filled in."""
    if not request.parity:
        return bundle.manifest
    from glama_deploy.export import parity, samples

    output = "predicted" if request.predicted else "inpainted"
    step("running the PyTorch reference")
    expected = parity.reference(checkpoint, samples.parity_cases(_graph_sizes(request), request.parity_size))
    engines = {}
    for name, engine in bundle.manifest.engines.items():
        step(f"measuring the parity of {name}")
        measured = parity.measure(bundle, engine, expected, output)
        if measured.max_abs_error is not None and not math.isfinite(measured.max_abs_error):
            raise GlamaError(
                f"{name} in {engine.precision} gives values that are not finite (at {measured.worst}); nothing was "
                "written: check the checkpoint"
                + (
                    ""
                    if engine.precision == "fp32"
                    else ", calibrate on images like yours (--calib FOLDER) or use fp32"
                )
            )
        engines[name] = engine.model_copy(update={"parity": measured})
    return bundle.manifest.model_copy(update={"engines": engines})
