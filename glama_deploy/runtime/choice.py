"""The choice of an engine for a bundle. An engine's module is imported when the engine is opened."""

from __future__ import annotations

import difflib
import importlib
import logging
import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import cast

from glama_deploy import catalogue
from glama_deploy.bundle import Bundle, EngineName
from glama_deploy.errors import EngineError, GlamaError
from glama_deploy.runtime.base import MAX_THREADS, Request, Runner, installed
from glama_deploy.runtime.cuda.driver import has_driver, list_gpus
from glama_deploy.runtime.devices import Device, Kind, check_gpu_index, list_devices, parse_device
from glama_deploy.system import gpus
from glama_deploy.system.packages import read_versions

log = logging.getLogger("glama_deploy")

_PLAIN = Request()

#: How often a bundle is opened again that another process changes meanwhile: one change is seen at three instants.
_MAX_ATTEMPTS = 10


#: Whether this process has said that a GPU is idle.
_has_noted_gpu = False


def check_request(backend: str, request: Request) -> None:
    """Check a backend and a request.

    Args:
        backend: the backend, as :func:`glama_deploy.load` takes it.
        request: how to open an engine.

    Raises:
        EngineError: the backend, the precision or the device does not exist, or another field has a wrong type or is
            out of range. Also where the backend does not compute on the device.
    """
    precision, threads, streams = request.precision, request.threads, request.streams
    if not isinstance(backend, str) or not isinstance(precision, str):
        raise EngineError(f"backend is {backend!r}, precision {precision!r}; names are expected, such as 'auto'")
    if backend.lower() not in _list_backends():
        raise EngineError(f"unknown backend {backend!r}; {_suggest_backend(backend.lower())}{_describe_backends()}")
    name, _, provider = backend.lower().partition(":")
    if precision not in catalogue.requested_precisions():
        names = catalogue.join_names(catalogue.requested_precisions())
        raise EngineError(f"unknown precision {precision!r}; expected {names}")
    if threads is not None and not _is_count(threads):
        raise EngineError(f"threads is {threads!r}; expected a whole number from 1 to {MAX_THREADS}, or None for all")
    if not _is_count(streams):
        raise EngineError(f"streams is {streams!r}; expected a whole number from 1 to {MAX_THREADS}")
    if request.compile_sizes not in (None, True, False):
        raise EngineError(f"compile_sizes is {request.compile_sizes!r}; True, False or None is expected")
    if type(request.allow_engine_code) is not bool:
        raise EngineError(f"allow_engine_code is {request.allow_engine_code!r}; True or False is expected")
    if request.device is not None:
        _check_device(name, request.device, has_provider=bool(provider))


def _list_backends() -> list[str]:
    """Return all names of backends, with and without a provider."""
    known = catalogue.backends()
    providers = [f"{name}:{each}" for name, record in known.items() for each in record.providers]
    return ["auto", "torch", *known, *providers]


def _describe_backends() -> str:
    """Return what a message expects as a backend: all names, with the providers behind those that have some."""
    names = ["auto", "torch"]
    for name, record in catalogue.backends().items():
        providers = f" ({name}:PROVIDER with {catalogue.join_names(record.providers)})" if record.providers else ""
        names.append(f"{name}{providers}")
    return f"expected {', '.join(names)}"


def _suggest_backend(wrong: str) -> str:
    """Return the advice for a wrong name of a backend, in small letters; empty where no name is similar."""
    name, _, place = wrong.partition(":")
    name = catalogue.find_meant_backend(name) if name not in _list_backends() else name
    record = catalogue.backends().get(name)
    kinds = catalogue.TORCH_DEVICES if name == "torch" else record.devices if record else ()
    if place:
        with suppress(EngineError):  # no device has this name
            device = parse_device(place)
            if device is not None and device.kind in kinds:
                return f"give `backend={name}` and `device={device}`; "
    near = [f"{name}:{place}" if place else name]
    if near[0] not in _list_backends():
        near = difflib.get_close_matches(wrong, _list_backends(), n=1)
    return f"is {near[0]} meant? " if near else ""


def _check_device(backend: str, device: Device, *, has_provider: bool) -> None:
    """Raise EngineError where a backend does not compute on a device, or the NVIDIA GPU does not exist.

    The devices of a provider are checked where the provider is opened.
    """
    if backend != "auto" and not has_provider:
        kinds = catalogue.TORCH_DEVICES if backend == "torch" else catalogue.backends()[backend].devices
        if device.kind not in kinds:
            raise EngineError(
                f"`device` is {device}, and {backend} does not compute there; give {list_devices(kinds)}, or another "
                "`backend`"
            )
    has_rocm = backend in ("auto", "torch") and "rocm" in read_versions("torch").get("torch", "")
    if device.kind == "cuda" and not has_rocm and not has_driver():  # to PyTorch for ROCm, `cuda` is a GPU of AMD
        raise EngineError(f"`device` is {device}, and this machine has no NVIDIA GPU (no driver); give cpu")
    if device.kind == "cuda" and device.index is not None and (gpus := list_gpus()):
        check_gpu_index(device.index, len(gpus))


def _is_count(value: object) -> bool:
    return type(value) is int and 1 <= value <= MAX_THREADS


def open_folder(path: Path, backend: str, request: Request) -> tuple[Bundle, Runner]:
    """Open a bundle and a runner for it, both from one state of the folder.

    Another process may replace the bundle between the two. Then both are opened again.

    Args:
        path: the bundle's folder.
        backend: the backend, as :func:`glama_deploy.load` takes it.
        request: how to open the engine.

    Returns:
        The bundle and the runner.

    Raises:
        BundleError: the bundle is missing, damaged, or for other programs.
        EngineError: no engine can be opened, or the bundle changes all the time.
    """
    for _ in range(_MAX_ATTEMPTS):
        bundle = Bundle.open(path)
        try:
            runner = open_bundle(bundle, backend, request)
        except GlamaError:
            if bundle.is_current():
                raise
            continue
        if bundle.is_current():
            return bundle, runner
    raise EngineError(f"{path} changed each time that it was opened; wait for the process that writes it")


def open_bundle(bundle: Bundle, backend: str, request: Request = _PLAIN) -> Runner:
    """Open a runner for a bundle.

    With `auto` the first engine that opens is taken. A warning names each installed engine before it that did not open.

    Args:
        bundle: the bundle.
        backend: the backend, as :func:`glama_deploy.load` takes it.
        request: how to open the engine.

    Returns:
        The runner.

    Raises:
        BundleError: the bundle is for other programs.
        EngineError: the requested engine, or with `auto` every engine, cannot run here. One line has all reasons.
    """
    check_request(backend, request)
    backend = backend.lower()
    bundle.check_ends()
    if request.precision == catalogue.FASTEST:
        raise EngineError("precision 'fastest' is measured by `glama_deploy.load`; give another precision here")
    if backend == "torch":
        raise EngineError(
            f"{bundle.path} is a bundle, which holds no PyTorch network; backend torch takes the checkpoint itself"
        )
    if backend != "auto":
        name, _, provider = backend.partition(":")
        record = catalogue.backends()[name]
        return _import_engine(record).open(bundle, replace(request, provider=provider))
    refused = []
    for record, kind in catalogue.auto_order(request.device.kind if request.device else None):
        module, asked = _import_engine(record), replace(request, device=request.device or Device(cast(Kind, kind)))
        if module.absent(bundle, asked):
            continue
        try:
            runner: Runner = module.open(bundle, asked)
        except EngineError as error:
            refused.append(str(error))
            continue
        for reason in dict.fromkeys(refused):  # one package may be asked for two devices
            log.warning("%s; using %s", reason, runner.description)
        if request.device is None and not refused and runner.device == "cpu":
            _note_idle_gpu(runner.description)
        return runner
    if not refused and bundle.manifest.fft == "plugin":
        raise EngineError(f"{bundle.path} is for TensorRT alone and has no engine yet: `build(BUNDLE, target=trt)`")
    reasons = "; ".join(dict.fromkeys(refused))
    if not reasons and request.device is not None:
        titles = catalogue.join_names(record.title for record, _ in catalogue.auto_order(request.device.kind))
        raise EngineError(
            f"no engine that computes on {request.device} is here for this bundle; install {titles} for this "
            "device, or give another `device`"
        )
    raise EngineError(reasons or "no engine for this bundle is installed; pip install openvino (CPU) is a good start")


def _note_idle_gpu(description: str) -> None:
    """Log once in a process that an engine on the CPU was chosen on a machine with a GPU, and what uses the GPU."""
    global _has_noted_gpu
    if _has_noted_gpu or os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return
    names = gpus.read_names()
    if not names:
        return
    _has_noted_gpu = True
    torch = ", or give `backend=torch` and `precision=fp16` with a checkpoint" if installed("torch") else ""
    log.warning(
        "%s leaves the GPU (%s) idle; to use the GPU, install onnxruntime-gpu in place of onnxruntime%s",
        description,
        names[0],
        torch,
    )


def open_engine(bundle: Bundle, name: EngineName, request: Request) -> Runner:
    """Open a runner for one engine of a bundle.

    Args:
        bundle: the bundle.
        name: the engine's name in the catalogue.
        request: how to open the engine.

    Returns:
        The runner.

    Raises:
        EngineError: the engine cannot run here.
    """
    runner: Runner = _import_engine(catalogue.ENGINES[name]).open(bundle, replace(request, engine=name))
    return runner


def _import_engine(record: catalogue.EngineRecord):  # type: ignore[no-untyped-def]  # (a module is no type)
    return importlib.import_module(record.runtime)
