"""One engine of a bundle, out of the ONNX model that stands in its folder."""

from __future__ import annotations

import shutil
from pathlib import Path

from glama_deploy import bundle as bundles
from glama_deploy.bundle import Bundle, Engine, EngineName, Parity, Precision, SizeRange
from glama_deploy.engines import openvino, tensorrt
from glama_deploy.errors import GlamaError
from glama_deploy.files import atomic_file

#: What the commands call them, and the engine that comes out.
TARGETS: dict[str, EngineName] = {
    "onnx": "onnx",
    "openvino": "openvino",
    "trt": "tensorrt",
    "trt-rtx": "tensorrt-rtx",
}

#: What a dynamic TensorRT engine is built for where nothing else is asked.
DEFAULT_PROFILE = SizeRange(min=(64, 64), opt=(512, 512), max=(2048, 2048), max_batch=1)

_NO_PARITY = Parity(measured=False, reason=bundles.NOT_ASKED)


def target_of(name: str) -> str:
    """The target's own name; an engine's name is taken for it, too. Raises GlamaError for any other."""
    targets: dict[str, str] = {engine: target for target, engine in TARGETS.items()}
    if name not in TARGETS and name not in targets:
        raise GlamaError(f"unknown target {name!r}; expected {', '.join(TARGETS)}")
    return targets.get(name, name)


def build(folder: Path, target: str, graph: SizeRange, profile: SizeRange, precision: Precision) -> Engine:
    """Build the target's engine from the graphs in `folder` into `folder/<engine>`; its parity is not measured yet.

    `graph` is what the ONNX models take; a TensorRT engine takes `profile`, or the graph's one size where it is static.
    TensorRT builds from the graph that has `precision` written into it; ONNX Runtime takes the fp32 graph, and OpenVINO
    stores the weights of that one in fp16 where asked. Raises EngineError where the engine cannot be built here.
    """
    name = TARGETS[target]
    if name == "onnx":
        return entry(folder, name, "fp32", graph, [folder / bundles.ONNX], {})
    if name == "openvino":
        half = precision != "fp32"
        files, versions = openvino.build(folder / bundles.ONNX, folder / name, fp16_weights=half)
        return entry(folder, name, "fp16" if half else "fp32", graph, files, versions)
    if graph.static:
        profile = graph.model_copy(update={"max_batch": profile.max_batch})
    onnx, path = folder / bundles.graph_name(precision), folder / name / "model.engine"
    versions = tensorrt.build(onnx, path, "tensorrt" if name == "tensorrt" else "tensorrt_rtx", profile)
    return entry(folder, name, precision, profile, [path], versions)


def entry(
    folder: Path,
    name: EngineName,
    precision: Precision,
    sizes: SizeRange,
    files: list[Path],
    versions: dict[str, str],
) -> Engine:
    """The manifest's entry for files that were just made."""
    artifacts = tuple(bundles.artifact(folder, file) for file in files)
    return Engine(name=name, precision=precision, sizes=sizes, files=artifacts, versions=versions, parity=_NO_PARITY)


def add(bundle: Bundle, target: str, profile: SizeRange, precision: Precision | None = None) -> Bundle:
    """Build an engine into a bundle that exists, replacing one of the same kind; on the device, without torch.

    Without a precision, it is that of the engine that is replaced, else for TensorRT that of the half graph that the
    bundle was exported with, else fp32. The engine is built beside the bundle's own files and moved in when it is
    whole. Raises GlamaError.
    """
    target = target_of(target)
    if target == "onnx":
        raise GlamaError("every bundle has its ONNX model; expected openvino, trt or trt-rtx")
    name = TARGETS[target]
    if precision is None:
        replaced = bundle.engine(name)
        typed = "fp32" if name == "openvino" else list(bundle.manifest.graphs)[-1]  # the fp32 graph comes first
        precision = replaced.precision if replaced else typed
    if precision not in (("fp32", "fp16") if name == "openvino" else ("fp32", "fp16", "bf16")):
        raise GlamaError(f"precision is {precision!r}, which {target} has not; expected fp32 or fp16 (TensorRT: bf16)")
    onnx = bundle.graph("fp32" if name == "openvino" else precision)
    sizes = bundle.sizes
    work = bundle.path / f".{name}.tmp"
    try:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        (work / onnx.name).symlink_to(onnx.absolute())
        engine = build(work, target, sizes, profile, precision)
        shutil.rmtree(bundle.path / name, ignore_errors=True)
        (work / name).rename(bundle.path / name)
    except OSError as error:
        raise GlamaError(f"cannot write into {bundle.path}: {error.strerror}") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    parity = Parity(measured=False, reason="built from the bundle, without the reference")
    engines = {**bundle.manifest.engines, name: engine.model_copy(update={"parity": parity})}
    manifest = bundle.manifest.model_copy(update={"engines": engines})
    with atomic_file(bundle.path / bundles.MANIFEST) as temporary:
        temporary.write_text(bundles.manifest_text(manifest))
    return Bundle(bundle.path, manifest)
