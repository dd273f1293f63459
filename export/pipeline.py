"""From a checkpoint to a bundle: the graph, the engines, parity, the manifest; whole or not at all."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from glama_deploy import bundle as bundles
from glama_deploy import memory
from glama_deploy.bundle import (
    ANY_SIZE,
    Bundle,
    Engine,
    EngineName,
    Graph,
    Manifest,
    Precision,
    Size,
    SizeRange,
    Tensor,
)
from glama_deploy.engines.build import DEFAULT_PROFILE, TARGETS, target_of
from glama_deploy.engines.build import build as build_engine
from glama_deploy.errors import EngineError, GlamaError
from glama_deploy.files import atomic_folder
from glama_deploy.reference import checkpoint as checkpoints
from glama_deploy.runtime.base import installed


@dataclass(frozen=True)
class Request:
    """What to export. `size` fixes the graph to one size; without it the graph takes any, and `profile` is what a
    TensorRT engine is built for. `calibration` is a folder of photos on which a half graph's ranges are measured."""

    checkpoint: str | Path
    out: Path
    targets: tuple[str, ...] = ("onnx",)
    precision: Precision = "fp32"
    size: Size | None = None
    profile: SizeRange = DEFAULT_PROFILE
    calibration: Path | None = None
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
        for target in dict.fromkeys(("onnx", *request.targets)):
            step(f"building {TARGETS[target]}")
            try:
                engines[TARGETS[target]] = build_engine(
                    folder, target, _graph_sizes(request), request.profile, request.precision
                )
            except EngineError as error:
                failures[target] = str(error)
                shutil.rmtree(folder / TARGETS[target], ignore_errors=True)
        manifest = _manifest(request, checkpoint, outputs, graphs, engines)
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
    model = build(checkpoint.config, checkpoint.weights, request.size, outputs)
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
    largest = ranges.measure(model, ((case.image, case.mask) for case in cases))
    kept = ranges.out_of_range(model, largest, request.precision)
    step(f"writing {request.precision} into the graph")
    write(precision.typed(model, "fp16" if request.precision == "fp16" else "bf16", kept), request.precision, kept)
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
    height, width = request.size or ("height", "width")
    meaning = {
        "image": "RGB",
        "mask": "1 = missing, 0 = known",
        "inpainted": "the prediction where the mask is 1, the image where it is 0",
        "predicted": "the network's own output, before compositing",
    }

    def tensor(name: str) -> Tensor:
        shape = ("batch", 1 if name == "mask" else 3, height, width)
        return Tensor(name=name, dtype="float32", layout="NCHW", shape=shape, range=(0.0, 1.0), meaning=meaning[name])

    return Manifest(
        network=checkpoint.config,
        checkpoint=bundles.Checkpoint(file=checkpoint.path.name, kind=checkpoint.kind, sha256=checkpoint.sha256),
        fft="matmul",
        io="float",
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
    expected = parity.reference(checkpoint, samples.parity_cases(_graph_sizes(request)), output)
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
