"""ONNX Runtime's package, and sessions on its execution providers."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from glama_deploy.bundle import DEFAULT_PROFILE, Bundle, Precision, SizeRange
from glama_deploy.errors import EngineError
from glama_deploy.node_names import BATCH, HEIGHT, WIDTH
from glama_deploy.runtime.base import DeviceKind, installed, require
from glama_deploy.runtime.devices import Device
from glama_deploy.runtime.onnxruntime import libraries, model_file, provider_graphs
from glama_deploy.runtime.onnxruntime.provider_records import PROVIDERS, ProviderRecord
from glama_deploy.text.excerpts import MAX_ENGINE_LINE, first_line

#: The distributions that bring the package `onnxruntime`; one alone can be installed.
_DISTRIBUTIONS = (
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-directml",
    "onnxruntime-openvino",
    "onnxruntime-qnn",
    "onnxruntime-webgpu",
)

#: ONNX Runtime's levels of logging: errors, and errors that end the process.
_LOG_ERRORS, _LOG_FATAL = 3, 4

#: The kinds of hardware that plugin providers compute on, the preferred one first.
_DEVICE_KINDS = ("GPU", "CPU")

#: What is said where a GPU's provider has no GPU in ONNX Runtime's list of hardware.
_NO_LISTED_GPU = " (ONNX Runtime lists no GPU here: perhaps a driver that computes on the CPU)"

#: The number of images in a batch, and their height and width in pixels.
Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Session:
    """An open session.

    Attributes:
        session: The `onnxruntime.InferenceSession`.
        provider: The provider that computes.
        precision: The precision of the graph.
        sizes: The sizes that the session takes.
        device: Where the provider computes.
        note: What a user should know of the device; empty: nothing.
        weights: Inputs of each run beside the image and the mask, by name.
        index: The number of the GPU that computes; None where the provider chooses.
        shape: The batch, height and width that the session is for; None: any.
        open_shape: Opens a session for another batch, height and width, where this one is for a shape.
    """

    session: Any
    provider: ProviderRecord
    precision: Precision
    sizes: SizeRange
    device: DeviceKind
    note: str = ""
    weights: dict[str, np.ndarray] = field(default_factory=dict)
    index: int | None = None
    shape: Shape | None = None
    open_shape: Callable[[Shape], Session] | None = None


log = logging.getLogger("glama_deploy")

_first = threading.Lock()

#: The plugin providers whose libraries are registered in this process, by ONNX Runtime's names.
_registered: set[str] = set()


def has_onnxruntime() -> bool:
    """Return whether ONNX Runtime is installed.

    Returns:
        True also if the installation is not usable.
    """
    return installed("onnxruntime") or any(map(_has_distribution, _DISTRIBUTIONS))


def require_onnxruntime() -> ModuleType:
    """Import ONNX Runtime and initialise its tables of NumPy types, in one thread at a time.

    The tables are C++ function-local statics, as are those on which OpenVINO's first calls wait for each other for ever
    (:func:`glama_deploy.runtime.openvino.core.core`).

    Returns:
        The module `onnxruntime`.

    Raises:
        EngineError: ONNX Runtime is not installed or fails when it is imported; or several of its distributions are
            installed, which overwrite each other's files.
    """
    name = _check_distributions()
    with _first:
        package = require("onnxruntime", "ONNX Runtime", f"pip install {name}", "InferenceSession")
        package.OrtValue.ortvalue_from_numpy(np.zeros(1, np.float32)).numpy()
    return package


def _check_distributions() -> str:
    """Return the distribution to install where ONNX Runtime is missing or fails.

    Raises:
        EngineError: several distributions are installed, or the files of one are gone.
    """
    there = [name for name in _DISTRIBUTIONS if _has_distribution(name)]
    if len(there) > 1:
        raise EngineError(
            f"ONNX Runtime is not usable: {' and '.join(there)} overwrite each other's files; pip uninstall --yes "
            f"{' '.join(there)}, then pip install {'onnxruntime-gpu' if 'onnxruntime-gpu' in there else there[0]}"
        )
    if there and not installed("onnxruntime"):  # uninstalling another distribution has removed the files of this one
        raise EngineError(
            f"ONNX Runtime is not usable: the files of {there[0]} are gone; pip install --force-reinstall {there[0]}"
        )
    return there[0] if there else "onnxruntime"


def _has_distribution(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True


def has_provider(provider: ProviderRecord) -> bool:
    """Return whether the installed ONNX Runtime has a provider, which may still not start here.

    Args:
        provider: The provider.

    Returns:
        True where ONNX Runtime, or the plugin's package, is installed with the provider.

    Raises:
        EngineError: ONNX Runtime is not installed or not usable.
    """
    if "onnxruntime" not in sys.modules and not _has_library(provider):
        _check_distributions()
        return False  # without the import, which takes time in each start on a CPU
    built_in = require_onnxruntime().get_available_providers() if provider.is_built_in else ()
    return _has_plugin(provider) or provider.ort_name in built_in


def list_kinds(provider: ProviderRecord) -> tuple[DeviceKind, ...]:
    """List the kinds of devices that a user may name for a provider.

    Args:
        provider: The provider.

    Returns:
        The kind of its record. A plugin may have another kind, too.
    """
    return (provider.device, *(provider.plugin_devices if _has_plugin(provider) else ()))


def _has_plugin(provider: ProviderRecord) -> bool:
    return bool(provider.plugin_package) and installed(provider.plugin_package)


def _has_library(provider: ProviderRecord) -> bool:
    """Return whether ONNX Runtime's folder has the library that a provider is loaded from; True without a library."""
    return not provider.library or bool(libraries.find_provider_files(provider))


def open_cpu_session(
    model: bytes,
    *,
    threads: int | None = None,
    is_optimized: bool = True,
    multiplies_bytes: bool = True,
    keeps_memory: bool = True,
    is_silent: bool = False,
) -> Any:
    """Open an ONNX model on ONNX Runtime's CPU provider.

    Args:
        model: The serialized model.
        threads: Threads inside an operator. None: one for each core.
        is_optimized: Whether ONNX Runtime may fuse nodes. Without fusions it rounds after each node.
        multiplies_bytes: Whether quantized convolutions multiply bytes. Otherwise they compute in fp32 on bytes that
            were dequantized, which gives the same result on every CPU.
        keeps_memory: Whether memory for feature maps is kept between runs.
        is_silent: Whether ONNX Runtime logs no errors. An error is raised in any case.

    Returns:
        The `onnxruntime.InferenceSession`.

    Raises:
        EngineError: ONNX Runtime is not installed or not usable.
        Exception: ONNX Runtime's own exceptions, which have no common base: it does not accept the model.
    """
    onnxruntime = require_onnxruntime()
    options = _make_options(onnxruntime, threads)
    if not is_optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    if not multiplies_bytes:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    options.enable_cpu_mem_arena = keeps_memory
    if is_silent:
        options.log_severity_level = _LOG_FATAL
    return onnxruntime.InferenceSession(model, options, providers=[PROVIDERS["cpu"].ort_name])


def _make_options(onnxruntime: Any, threads: int | None) -> Any:
    """Return session options that log errors only."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _LOG_ERRORS
    # threads that wait for the next run take a core from whatever else runs meanwhile
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if threads:
        options.intra_op_num_threads = threads
    return options


def open_session(
    bundle: Bundle, provider: ProviderRecord, precision: str, threads: int | None, asked: Device | None = None
) -> Session:
    """Open one of the bundle's graphs on a provider.

    Args:
        bundle: The bundle.
        provider: The provider that computes.
        precision: The precision of the graph; `auto` is the first of the provider's that the bundle has, else fp32.
        threads: Threads inside an operator on the CPU. None: one for each core.
        asked: The device that the user named, one of :func:`list_kinds`; None: the provider chooses.

    Returns:
        The session.

    Raises:
        EngineError: The provider is not installed, does not start here, or does not run graphs of the precision.
    """
    onnxruntime = require_onnxruntime()
    if not has_provider(provider):
        remedy = libraries.explain_install(provider)
        raise EngineError(f"this ONNX Runtime has no {provider.label} provider; {remedy}")
    chosen = _choose_precision(bundle, provider, precision)
    sizes = _find_sizes(bundle, provider)
    shape = (1, *sizes.min) if provider.fixes_sizes else None
    if provider.needs_cuda:
        _prepare_cuda(onnxruntime)
        libraries.preload_tensorrt(provider)
    try:
        return _open_graph(bundle, provider, chosen, threads, sizes, shape, asked)
    except EngineError as error:
        if precision != "auto" or chosen == "fp32" or provider.device != "gpu":
            raise
        opened = _open_graph(bundle, provider, "fp32", threads, sizes, shape, asked)
        log.warning("%s; using the fp32 graph", error)
        return opened


def _open_graph(
    bundle: Bundle,
    provider: ProviderRecord,
    precision: Precision,
    threads: int | None,
    sizes: SizeRange,
    shape: Shape | None,
    asked: Device | None,
) -> Session:
    """Open the graph of a precision, for a shape or for any. Raise EngineError where the provider does not start."""
    onnxruntime = require_onnxruntime()
    path, device, note = bundle.graph(precision), provider.device, ""
    options = _make_options(onnxruntime, threads)
    if device != "cuda":
        # On a CPU, memory patterns of a size need half as much memory again, and runs are no faster. DirectML does not
        # support them. Neither does DirectML support parallel execution, which is off by default.
        options.enable_mem_pattern = False
    for name, length in zip((BATCH, HEIGHT, WIDTH), shape or (), strict=False):
        options.add_free_dimension_override_by_name(name, length)
    try:
        model, weights = _read_graph(bundle, provider, precision, path)
        settings = provider.make_settings(bundle, precision, sizes)
        if _has_plugin(provider):
            chosen = _find_plugin_device(onnxruntime, provider, asked)
            if device != "cuda":
                device, note = _describe_device(provider, chosen)
            options.add_provider_for_devices([chosen], settings)
            session = onnxruntime.InferenceSession(model, options)
        else:
            beside = [PROVIDERS[name] for name in dict.fromkeys((*provider.fallbacks, "cpu")) if name != provider.name]
            settings_by_name = [
                (provider.ort_name, settings | _choose_gpu(provider, asked)),
                *(
                    (each.ort_name, each.make_settings(bundle, precision, sizes) | _choose_gpu(each, asked))
                    for each in beside
                ),
            ]
            session = onnxruntime.InferenceSession(model, options, providers=settings_by_name, disable_fallback=True)
    except EngineError:
        raise
    except Exception as error:
        _raise_refusal(provider, error)
        raise EngineError(f"ONNX Runtime cannot open {path}: {first_line(error, MAX_ENGINE_LINE)}") from error
    if provider.ort_name not in session.get_providers():
        raise EngineError(
            f"ONNX Runtime has a {provider.label} provider but it does not start here: "
            f"{libraries.explain_failure(provider)}"
        )
    open_shape = None
    if shape is not None:
        open_shape = partial(_open_graph, bundle, provider, precision, threads, sizes, asked=asked)
    index = asked.index if asked else None
    return Session(session, provider, precision, sizes, device, note, weights, index, shape, open_shape)


def _choose_gpu(provider: ProviderRecord, asked: Device | None) -> dict[str, str]:
    """Return the option by which a provider computes on one of several GPUs."""
    index = asked.index if asked else None
    if index is None or provider.device == "cpu":
        return {}
    if not provider.device_option:
        raise EngineError(
            f"`device` names GPU {index}, and ONNX Runtime's {provider.label} provider chooses the GPU itself; leave "
            "out the number"
        )
    return {provider.device_option: str(index)}


def _raise_refusal(provider: ProviderRecord, error: Exception) -> None:
    """Raise EngineError where a message of ONNX Runtime says that the device lacks something."""
    for part, reason in provider.refusals.items():
        if part in str(error):
            raise EngineError(
                f"ONNX Runtime has a {provider.label} provider but it does not start here: {reason}"
            ) from error


def _read_graph(
    bundle: Bundle, provider: ProviderRecord, precision: Precision, path: Path
) -> tuple[str | bytes, dict[str, np.ndarray]]:
    """Return the path of a graph or the graph as the provider needs it, and the weights that its runs are given."""
    if provider.name == "cpu" and precision == "fp32":
        return _read_for_cpu(bundle, path)
    if not (provider.fixes_sizes or (provider.lacks_bytes and bundle.manifest.io == "uint8")):
        return str(path), {}
    model = model_file.read_model(path)
    if provider.fixes_sizes:
        provider_graphs.fix_window(model)
    if provider.lacks_bytes:
        provider_graphs.replace_byte_operators(model)
    return model.SerializeToString(), {}


def _read_for_cpu(bundle: Bundle, path: Path) -> tuple[str | bytes, dict[str, np.ndarray]]:
    """Return the path of a graph, or the graph with faster convolutions and the weights that its runs are given."""
    from glama_deploy.runtime.onnxruntime import winograd
    from glama_deploy.runtime.openvino.rewrites.transform_checks import TransformChecks

    if not installed("google.protobuf"):
        log.warning(
            "protobuf, which ONNX Runtime requires, is not installed: the network runs slower; pip install protobuf"
        )
        return str(path), {}
    model = model_file.read_model(path)
    rewritten, weights = winograd.rewrite(model)
    TransformChecks(bundle.path, bundle.manifest).check_winograd(len(rewritten))
    return (model.SerializeToString(), weights) if rewritten else (str(path), {})


def _prepare_cuda(onnxruntime: Any) -> None:
    """Load CUDA's libraries where they are installed as Python packages, and keep the CUDA provider quiet.

    The provider logs an error for each convolution that cuDNN has no plan for under the options. It then takes another
    plan, unfused and with the tensor cores.
    """
    if hasattr(onnxruntime, "preload_dlls"):
        with redirect_stdout(None):
            onnxruntime.preload_dlls()
    onnxruntime.set_default_logger_severity(_LOG_FATAL)  # errors are raised in any case


def _choose_precision(bundle: Bundle, provider: ProviderRecord, asked: str) -> Precision:
    """Return the precision of the graph to open. Raise EngineError where the bundle has no such graph."""
    there = [precision for precision in bundle.manifest.graphs if precision in provider.graph_precisions]
    if asked == "auto":
        return there[0] if there else "fp32"
    for precision in ("fp32", *there):
        if precision == asked:
            return precision
    raise EngineError(
        f"ONNX Runtime computes in what the graph says, and {bundle.path} has no {asked} graph that its "
        f"{provider.label} provider takes; precision is chosen at export"
    )


def _find_sizes(bundle: Bundle, provider: ProviderRecord) -> SizeRange:
    """Return the sizes that a session takes: the bundle's, or those of the profile that the provider is given."""
    if not provider.has_profile:
        return bundle.sizes
    if bundle.sizes.static:  # a profile has a largest batch
        return bundle.sizes.model_copy(update={"max_batch": bundle.sizes.max_batch or 1})
    engine = bundle.engine("tensorrt") or bundle.engine("tensorrt-rtx")
    return engine.sizes if engine else DEFAULT_PROFILE


def _find_plugin_device(onnxruntime: Any, provider: ProviderRecord, asked: Device | None) -> Any:
    """Return the device that a plugin provider computes on, and register its library once in a process.

    The first GPU, or the one that the user named, goes before the CPU. A CPU that the user named is taken instead. An
    NPU is not taken.
    """
    plugin = require(provider.plugin_package, f"the {provider.label} provider", provider.install_remedy)
    name = plugin.get_ep_name()
    with _first:
        if name not in _registered:
            onnxruntime.register_execution_provider_library(name, plugin.get_library_path())
            _registered.add(name)
    found = [device for device in onnxruntime.get_ep_devices() if device.ep_name == name]
    by_kind = {kind: [device for device in found if device.device.type.name == kind] for kind in _DEVICE_KINDS}
    if asked is not None and asked.kind == "cpu":
        del by_kind["GPU"]
    elif asked is not None and provider.device == "cpu":
        del by_kind["CPU"]
    index = asked.index if asked else None
    if index is not None:
        there = by_kind["GPU"]
        if index >= len(there):
            raise EngineError(
                f"`device` names GPU {index}, and ONNX Runtime's {provider.label} provider finds {len(there)} GPUs, "
                "numbered from 0"
            )
        return there[index]
    for devices in by_kind.values():
        if devices:
            return devices[0]
    raise EngineError(f"ONNX Runtime's {provider.label} provider finds no device here; {provider.device_remedy}")


def _describe_device(provider: ProviderRecord, device: Any) -> tuple[DeviceKind, str]:
    """Return the kind of a plugin's device, and what a user should know of it."""
    if device.device.type.name == "GPU":
        return "gpu", ""
    if provider.device == "gpu":
        return "gpu", _NO_LISTED_GPU
    return "cpu", ""
