"""One engine of a bundle, out of the ONNX model that stands in its folder."""

from __future__ import annotations

import shutil
from pathlib import Path

from glama_deploy import bundle as bundles
from glama_deploy.bundle import Bundle, Engine, EngineName, Parity, Precision, SizeRange
from glama_deploy.engines import openvino, tensorrt
from glama_deploy.errors import EngineError, GlamaError
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

_NO_PARITY = Parity(measured=False, reason="not asked for")


def build(folder: Path, target: str, graph: SizeRange, profile: SizeRange, *, fp16: bool = False) -> Engine:
    """Build the target's engine from `folder/model.onnx` into `folder/<engine>`; its parity is not measured yet.

    `graph` is what the ONNX model takes; a TensorRT engine takes `profile`, or the graph's one size where it is static.
    Raises EngineError where it cannot be built here.
    """
    onnx, name = folder / bundles.ONNX, TARGETS[target]
    if name == "onnx":
        return entry(folder, name, "fp32", graph, [onnx], {})
    if name == "openvino":
        files, versions = openvino.build(onnx, folder / name, fp16_weights=fp16)
        return entry(folder, name, "fp16" if fp16 else "fp32", graph, files, versions)
    if fp16:
        raise EngineError(f"target {target} takes its types from the graph, which is fp32; use --precision fp32")
    if graph.static:
        profile = graph.model_copy(update={"max_batch": profile.max_batch})
    path = folder / name / "model.engine"
    versions = tensorrt.build(onnx, path, "tensorrt" if name == "tensorrt" else "tensorrt_rtx", profile)
    return entry(folder, name, "fp32", profile, [path], versions)


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


def add(bundle: Bundle, target: str, profile: SizeRange) -> Bundle:
    """Build an engine into a bundle that exists, replacing one of the same kind; on the device, without torch.

    The engine is built beside the bundle's own files and moved in when it is whole. Raises GlamaError.
    """
    if target not in TARGETS or target == "onnx":
        raise GlamaError(f"target is {target!r}; expected {', '.join(t for t in TARGETS if t != 'onnx')}")
    name = TARGETS[target]
    (onnx,) = bundle.files("onnx")
    source = bundle.manifest.engines["onnx"]
    work = bundle.path / f".{name}.tmp"
    try:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        (work / bundles.ONNX).symlink_to(onnx.absolute())
        engine = build(work, target, source.sizes, profile)
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
