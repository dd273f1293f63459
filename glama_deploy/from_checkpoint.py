"""A checkpoint as an inpainter: exported once into the user's cache, or run by PyTorch itself."""

from __future__ import annotations

import logging
from pathlib import Path

from glama_deploy import cache, runtime
from glama_deploy.bundle import SCHEMA_VERSION, Bundle
from glama_deploy.errors import BundleError, EngineError, GlamaError
from glama_deploy.files import sha256
from glama_deploy.inpainter import Inpainter
from glama_deploy.reference import checkpoint
from glama_deploy.runtime.base import Request, installed

log = logging.getLogger("glama_deploy")


def load_checkpoint(model: str | Path, backend: str, request: Request) -> Inpainter:
    """An inpainter for a checkpoint or `default`; see :func:`glama_deploy.load`."""
    if request.precision.startswith("int8"):
        raise EngineError(
            f"{model} is a checkpoint, and int8 is measured on photographs; export it with glama-export --ckpt {model} "
            "--target openvino --precision int8 --calib PHOTOS --out BUNDLE, and load that"
        )
    if backend != "torch" and not installed("onnx") and not (backend == "auto" and installed("torch")):
        raise EngineError(
            f"{model} is a checkpoint, which the onnx package exports first: pip install onnx, or give a bundle that "
            "glama-export made"
        )
    if backend == "torch" or not installed("onnx"):
        if backend == "auto":
            log.warning("the onnx package is not installed, so the checkpoint is not exported; using PyTorch")
        return _with_torch(model, request)
    try:
        bundle = cached_bundle(model)
        try:
            runner = runtime.open_bundle(bundle, backend, request)
        except BundleError as error:  # a file in the cache is damaged
            log.info("%s", error)
            bundle = cached_bundle(model, anew=True)
            runner = runtime.open_bundle(bundle, backend, request)
    except EngineError as error:
        if backend != "auto":
            raise
        log.warning("%s; using PyTorch", error)
        return _with_torch(model, request)
    return Inpainter(runner, bundle.manifest.network)


def cached_bundle(model: str | Path, *, anew: bool = False) -> Bundle:
    """The checkpoint's bundle in the cache (fp32, any size, parity not measured), exported where it is not there or
    cannot be read; with `anew`, exported in any case."""
    from glama_deploy.export.pipeline import Request as ExportRequest
    from glama_deploy.export.pipeline import export, tool_versions

    source = checkpoint.weights_file(model)
    folder = cache.folder("bundles") or cache.temporary_folder()
    path = folder / f"{sha256(source)[:16]}-{tool_versions('glama-deploy')['glama-deploy']}-{SCHEMA_VERSION}"
    if path.exists() and not anew:
        try:
            return Bundle.open(path)
        except BundleError as error:
            log.info("%s", error)
    log.info("exporting %s into the cache", source)
    targets = ("onnx", "openvino") if installed("openvino") else ("onnx",)
    overwrite = path.exists()
    try:
        return export(ExportRequest(model, path, targets, parity=False, overwrite=overwrite)).bundle
    except GlamaError:
        if not overwrite and path.exists():  # another process was faster
            return Bundle.open(path)
        raise


def _with_torch(model: str | Path, request: Request) -> Inpainter:
    from glama_deploy.runtime import torch as torch_runtime

    source = checkpoint.read(model)
    return Inpainter(torch_runtime.open(source, request), source.config)
