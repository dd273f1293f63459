"""Open a bundle or a checkpoint as an inpainter. A checkpoint is exported into the cache, or run by PyTorch itself."""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from glama_deploy import catalogue
from glama_deploy.bundle import DEFAULT_PROFILE, MANIFEST, SCHEMA_VERSION, Bundle
from glama_deploy.checkpoints import embedded, formats
from glama_deploy.checkpoints.published.references import find_reference, locate
from glama_deploy.errors import BundleError, CheckpointError, EngineError, GlamaError
from glama_deploy.inpainting.inpainter import Inpainter
from glama_deploy.io import cache, locks
from glama_deploy.io.files import PREFIX, check_path, remove, sha256, write_error
from glama_deploy.runtime import choice
from glama_deploy.runtime.base import Request, Runner, installed
from glama_deploy.runtime.calls import native_call
from glama_deploy.system.packages import read_versions
from glama_deploy.text.excerpts import excerpt

_Opened = TypeVar("_Opened")

log = logging.getLogger("glama_deploy")

#: Raise this number when the exporter writes another graph. Exports in the cache are then made again.
EXPORT_REVISION = 3


def load_model(model: str | Path, backend: str, request: Request) -> Inpainter:
    """Open a bundle or a checkpoint on an engine.

    Args:
        model: the folder of a bundle, a checkpoint, the name or address of a published checkpoint, or `default`.
        backend: the engine, as :func:`glama_deploy.load` takes it.
        request: how to open the engine.

    Returns:
        The inpainter.

    Raises:
        GlamaError: as :func:`glama_deploy.load` says.
    """
    if not isinstance(model, str | Path):
        raise GlamaError(
            f"model is a {type(model).__name__}; the path of a bundle or checkpoint, or 'default' is expected"
        )
    choice.check_request(backend, request)
    backend = backend.lower()
    if find_reference(model) is not None:
        _check_checkpoint_request(model, backend, request)  # before a download
        model = locate(model)
    with native_call():
        if embedded.is_embedded(model):
            return load_checkpoint(model, backend, request)
        path = Path(model)
        check_path(path)
        if (path / MANIFEST).is_file():
            bundle, runner = _open(
                Bundle.open(path), backend, request, lambda asked: choice.open_folder(path, backend, asked)
            )
            _log_advice(runner, request)
            return Inpainter(runner, bundle.manifest.network)
        if path.is_dir() and not (path / "config.yaml").is_file():
            Bundle.open(path)  # raises an error that names what is wrong
        check_is_there(path)
        return load_checkpoint(model, backend, request)


def check_model(model: str | Path, backend: str, request: Request) -> None:
    """Check a model and how it is to be opened, without a download and without opening an engine.

    Args:
        model: as :func:`load_model` takes it.
        backend: the engine, as :func:`glama_deploy.load` takes it.
        request: how to open the engine.

    Raises:
        GlamaError: no such model is here, the model is damaged, or an argument is not supported.
    """
    choice.check_request(backend, request)
    path = Path(model)
    if find_reference(model) is None and not embedded.is_embedded(model):
        check_path(path)
        if path.is_dir() and not (path / "config.yaml").is_file():
            bundle = Bundle.open(path)
            bundle.check_ends()
            _check_has_engine(path, bundle, backend.lower(), f"`build({path}, target=TARGET)`")
            return
        check_is_there(path)
        formats.read(path)
    _check_checkpoint_request(model, backend.lower(), request)


def check_is_there(path: Path) -> None:
    """Check that a path exists.

    Args:
        path: The path of a bundle or checkpoint.

    Raises:
        CheckpointError: Nothing is at the path.
        GlamaError: The operating system does not accept the path.
    """
    check_path(path)
    if not path.exists():
        shown = excerpt(str(path), 200)
        raise CheckpointError(
            f"no checkpoint at {shown}, and no bundle; give the folder of a bundle, a checkpoint, or 'default'"
        )


def load_checkpoint(model: str | Path, backend: str, request: Request) -> Inpainter:
    """Open a checkpoint on an engine.

    Args:
        model: the checkpoint, or the name of an embedded network.
        backend: the engine, as :func:`glama_deploy.load` takes it.
        request: how to open the engine.

    Returns:
        The inpainter.

    Raises:
        CheckpointError: the checkpoint cannot be read, or is not supported.
        EngineError: no engine can be opened.
    """
    _check_checkpoint_request(model, backend, request)
    has_graph = _can_export(model)
    if backend == "torch" or not has_graph:
        if backend == "auto":
            log.warning("the onnx package is not installed, so the checkpoint is not exported; using PyTorch")
        return _open_with_torch(model, request)
    try:
        bundle = cached_bundle(model)
        _check_has_engine(model, bundle, backend, f"`export(checkpoint={model}, targets=TARGET, out=BUNDLE)`")
        runner = _open(bundle, backend, request, lambda asked: choice.open_bundle(bundle, backend, asked))
    except EngineError as error:
        if backend != "auto":
            raise
        return _fall_back_to_torch(model, request, error)
    _log_advice(runner, request)
    return Inpainter(runner, bundle.manifest.network)


def _check_has_engine(model: str | Path, bundle: Bundle, backend: str, command: str) -> None:
    """Raise EngineError where a backend needs an engine that is built on a GPU, and the bundle has none.

    The command makes a bundle with the engine of a TARGET.
    """
    needed = [record for record in catalogue.ENGINES.values() if record.backend == backend]
    is_on_gpu = bool(needed) and all(record.builder and record.devices == ("cuda",) for record in needed)
    if is_on_gpu and not any(bundle.engine(record.name) for record in needed):
        raise EngineError(
            f"{model} has no {needed[0].title} engine; make a bundle with one, and load that: "
            f"{command.replace('TARGET', needed[0].target)}"
        )


def _fall_back_to_torch(model: str | Path, request: Request, refused: EngineError) -> Inpainter:
    """Open a checkpoint in PyTorch where no other engine opens. Raise EngineError with all reasons where none does."""
    if request.device is not None and request.device.kind not in catalogue.TORCH_DEVICES:
        raise refused
    try:
        inpainter = _open_with_torch(model, request)
    except EngineError as error:
        raise EngineError(f"{refused}; {error}") from error
    log.warning("%s; using PyTorch", refused)
    return inpainter


def _can_export(model: str | Path) -> bool:
    """Tell whether a checkpoint can be exported here. The graphs of embedded networks are there already."""
    return installed("onnx") or embedded.is_embedded(model)


def _check_checkpoint_request(model: str | Path, backend: str, request: Request) -> None:
    """Raise EngineError for what no checkpoint can do here."""
    if request.precision in catalogue.PRECISIONS and catalogue.PRECISIONS[request.precision].is_quantized:
        raise EngineError(
            f"{model} is a checkpoint, and int8 is measured on photographs; export it with "
            f"`export(checkpoint={model}, targets=openvino, precision=int8, calibration=PHOTOS, out=BUNDLE)`, and load "
            "that"
        )
    if backend != "torch" and not _can_export(model) and not (backend == "auto" and installed("torch")):
        raise EngineError(
            f"{model} is a checkpoint, which the onnx package exports first: pip install onnx, or give a bundle that "
            "`export()` made"
        )


def _open(bundle: Bundle, backend: str, request: Request, open_engine: Callable[[Request], _Opened]) -> _Opened:
    """Call `open_engine` with a precision of the catalogue. Raises EngineError where no engine can be opened."""
    if request.precision != catalogue.FASTEST or backend == "torch":
        return open_engine(request)
    from glama_deploy.fastest.resolution import open_fastest

    return open_fastest(bundle, backend, request, open_engine)


def _log_advice(runner: Runner, request: Request) -> None:
    """Log the engine's advice on the requested precision as a warning. `fastest` was measured, and needs no advice."""
    if runner.advice and request.precision != catalogue.FASTEST:
        log.warning("%s", runner.advice)


def cached_bundle(model: str | Path) -> Bundle:
    """Return the bundle of a checkpoint in the cache, with all files verified.

    A missing bundle is exported, and a damaged bundle is replaced. If several processes ask for one bundle at once, one
    exports and the others wait.

    Args:
        model: the checkpoint, or the name of an embedded network.

    Returns:
        A bundle in fp32 for any size. Its parity is not measured.

    Raises:
        GlamaError: the cache cannot be written, or the checkpoint cannot be read or changes during the export.
    """
    source = formats.find_weights_file(model)
    folder = cache.folder("bundles") or cache.temporary_folder()
    digests = read_digests(model)
    path = folder / _name_export(digests)
    with suppress(BundleError):
        return _open_whole_bundle(path, digests)
    with ExitStack() as stack:
        try:
            stack.enter_context(locks.hold(path.with_name(f"{PREFIX}{path.name}.lock"), f"the export of {source}"))
        except OSError as error:
            raise write_error(path, error) from error
        return _export_into_cache(model, source, path, digests)


@dataclass(frozen=True)
class Digests:
    """The SHA-256 of each file that a checkpoint is read from; `config` is empty but for a LaMa model folder."""

    weights: str
    config: str = ""

    @property
    def combined(self) -> str:
        """One SHA-256 that tells the checkpoint from another: without a config, that of the weights."""
        return hashlib.sha256(f"{self.weights} {self.config}".encode()).hexdigest() if self.config else self.weights


def read_digests(model: str | Path) -> Digests:
    """Compute the digests of a checkpoint.

    Args:
        model: a checkpoint, a LaMa model folder, or the name of an embedded network.

    Returns:
        The SHA-256 of each file.

    Raises:
        CheckpointError: a file is missing or cannot be read.
    """
    weights, config = formats.find_weights_file(model), Path(model) / "config.yaml"
    try:
        has_config = not embedded.is_embedded(model) and config.is_file()  # (a folder may have such a name)
        return Digests(sha256(weights), sha256(config) if has_config else "")
    except OSError as error:
        path = error.filename or weights
        raise CheckpointError(f"{path} cannot be read: {error.strerror}; check its permissions") from error


def _name_export(digests: Digests) -> str:
    """Name the export of a checkpoint: by all files that it is read from, and by this version of the exporter."""
    version = read_versions("glama-deploy")["glama-deploy"]
    return f"{digests.combined[:32]}-{version}-{SCHEMA_VERSION}-{EXPORT_REVISION}"


def _open_whole_bundle(path: Path, digests: Digests) -> Bundle:
    """Open a bundle and verify all of its files. Raises BundleError, also where it is of another checkpoint."""
    bundle = Bundle.open(path)
    if bundle.manifest.checkpoint.sha256 != digests.weights:
        raise BundleError(f"{path} is of another checkpoint; export the bundle again")
    bundle.verify()
    return bundle


def _export_into_cache(model: str | Path, source: Path, path: Path, digests: Digests) -> Bundle:
    """Export into the cache, unless another process has done that meanwhile. The caller holds the export's lock.

    Raises CheckpointError where the checkpoint changed since its digests were read; the export is removed.
    """
    if path.exists():
        try:
            return _open_whole_bundle(path, digests)
        except BundleError as error:
            log.warning("the cached export of %s is damaged and is made again: %s", source, error)
            if not (path / MANIFEST).is_file():  # the exporter replaces bundles alone
                remove(path)
    log.info("exporting %s into the cache", source)
    targets = tuple(record.target for record in _cached_engines())
    if installed("onnx"):
        from glama_deploy.export.pipeline import Request as ExportRequest
        from glama_deploy.export.pipeline import export

        bundle = export(ExportRequest(model, path, targets, parity=False, overwrite=True)).bundle
    else:
        graph = embedded.find_bundle(model)
        assert graph is not None  # the caller has checked what can be exported
        bundle = _build_embedded(graph, path, targets)
    if bundle.manifest.checkpoint.sha256 != digests.weights or read_digests(model) != digests:
        remove(path)
        raise CheckpointError(f"{source} changed while it was exported; run again once it is written")
    return bundle


def _build_embedded(graph: Path, path: Path, targets: Sequence[str]) -> Bundle:
    """Make the bundle of an embedded network from its exported graph, which needs no onnx package."""
    from glama_deploy import bundle_folder
    from glama_deploy.engines.build import add_engine

    with bundle_folder.create(path, overwrite=True) as folder:
        shutil.copytree(graph, folder, dirs_exist_ok=True)
        bundle = Bundle.open(folder)
        bundle.verify()
        for target in targets:
            if catalogue.find_target(target).builder:
                bundle = add_engine(bundle, target, DEFAULT_PROFILE)
    return Bundle.open(path)


def _cached_engines() -> list[catalogue.EngineRecord]:
    """Return the graph, and the engines that can be built here for the CPU and that the backend `auto` would choose."""
    built = [
        record
        for record in catalogue.ENGINES.values()
        if record.builder and "cpu" in record.auto_ranks and installed(record.package)
    ]
    return [catalogue.ONNX, *built]


def _open_with_torch(model: str | Path, request: Request) -> Inpainter:
    from glama_deploy.runtime import torch as torch_runtime

    source = formats.read(model)
    if request.precision == catalogue.FASTEST:
        request = replace(request, precision="auto")  # fp32: in PyTorch other precisions are asked for by name
    return Inpainter(torch_runtime.open(source, request), source.config)
