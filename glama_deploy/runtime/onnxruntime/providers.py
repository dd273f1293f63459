"""ONNX Runtime's execution providers: which there are, the options that each is given, and whether it can start here.

A provider on a GPU takes the bundle's half graph where there is one. The TensorRT providers build engines from the
graph on the device, for the sizes of the bundle's own TensorRT engine (or the default profile), and keep what they
built in the cache.
"""

from __future__ import annotations

import threading
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from types import ModuleType
from typing import Any, Literal

import numpy as np

from glama_deploy.bundle import DEFAULT_PROFILE, Bundle, Precision, SizeRange
from glama_deploy.errors import EngineError
from glama_deploy.io import cache
from glama_deploy.runtime.base import installed, require
from glama_deploy.text.excerpts import MAX_ENGINE_LINE, first_line

Name = Literal["tensorrt-rtx", "tensorrt", "cuda", "cpu"]

#: What ONNX Runtime calls them.
_THEIRS: dict[Name, str] = {
    "tensorrt-rtx": "NvTensorRTRTXExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "cpu": "CPUExecutionProvider",
}
LABELS: dict[Name, str] = {"tensorrt-rtx": "TensorRT-RTX", "tensorrt": "TensorRT", "cuda": "CUDA", "cpu": "CPU"}

#: The distributions that bring the package `onnxruntime`; one alone can be installed.
_DISTRIBUTIONS = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino", "onnxruntime-qnn")

#: The plugin provider's package, with the library that is registered.
_RTX_PACKAGE = "onnxruntime_ep_nv_tensorrt_rtx"

#: What a provider computes in as the graph has it, beside fp32.
_TYPED: dict[Name, tuple[Precision, ...]] = {
    "tensorrt-rtx": ("fp16", "bf16"),
    "tensorrt": ("fp16", "bf16"),
    "cuda": ("fp16",),
    "cpu": ("int8",),
}


#: ONNX Runtime's levels of logging: errors, and errors that end the process.
_LOG_ERRORS, _LOG_FATAL = 3, 4


@dataclass(frozen=True)
class Session:
    """An ONNX Runtime session on a provider: what it computes in, and the sizes that it takes."""

    session: Any
    provider: Name
    precision: Precision
    sizes: SizeRange


_first = threading.Lock()


def has_onnxruntime() -> bool:
    """Return whether ONNX Runtime is installed, usable or not."""
    return installed("onnxruntime") or any(map(_has_distribution, _DISTRIBUTIONS))


def require_onnxruntime() -> ModuleType:
    """Import ONNX Runtime and initialise its tables of NumPy types, in one thread at a time.

    The tables are C++ function-local statics, as those on which OpenVINO's first calls wait for each other for ever
    (:func:`glama_deploy.runtime.openvino.runner.core`).

    Raises:
        EngineError: ONNX Runtime is not installed or fails when it is imported; or several of its distributions are
            installed, which overwrite each other's files.
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
    name = there[0] if there else "onnxruntime"
    with _first:
        package = require("onnxruntime", "ONNX Runtime", f"pip install {name}", "InferenceSession")
        package.OrtValue.ortvalue_from_numpy(np.zeros(1, np.float32)).numpy()
    return package


def _has_distribution(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True


def listed(name: Name) -> bool:
    """Whether ONNX Runtime has the provider; it may still not start here. Raises EngineError: no ONNX Runtime."""
    package = require_onnxruntime()
    if name == "tensorrt-rtx":
        return installed(_RTX_PACKAGE)
    return _THEIRS[name] in package.get_available_providers()


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
    return onnxruntime.InferenceSession(model, options, providers=[_THEIRS["cpu"]])


def _make_options(onnxruntime: Any, threads: int | None) -> Any:
    """Return session options that log errors only."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _LOG_ERRORS
    # threads that wait for the next run take a core from whatever else runs meanwhile
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if threads:
        options.intra_op_num_threads = threads
    return options


def start(bundle: Bundle, name: Name, precision: str, threads: int | None) -> Session:
    """A session for the bundle's graph of `precision` (auto: the half or int8 one where the provider computes in it).

    Raises EngineError: the provider is not there, does not start here, or does not take that precision.
    """
    onnxruntime = require_onnxruntime()
    if not listed(name):
        raise EngineError(f"this ONNX Runtime has no {LABELS[name]} provider; {_remedy(name)}")
    chosen = _precision(bundle, name, precision)
    path = bundle.graph(chosen)
    options = _make_options(onnxruntime, threads)
    if name == "cpu":
        # a plan for a size lies beside the memory of the run that it was made from: half as much again, and no faster
        options.enable_mem_pattern = False
    sizes = _sizes(bundle, name)
    try:
        if name == "tensorrt-rtx":
            options.add_provider_for_devices(_rtx_devices(onnxruntime), _settings(bundle, name, chosen, sizes))
            session = onnxruntime.InferenceSession(str(path), options)
        else:
            if name != "cpu":
                _prepare_cuda(onnxruntime)
            tried: tuple[Name, ...] = ("tensorrt", "cuda") if name == "tensorrt" else (name,)
            providers = [(_THEIRS[each], _settings(bundle, each, chosen, sizes)) for each in tried if each != "cpu"]
            session = onnxruntime.InferenceSession(
                str(path), options, providers=[*providers, _THEIRS["cpu"]], disable_fallback=True
            )
    except Exception as error:
        raise EngineError(f"ONNX Runtime cannot open {path}: {first_line(error, MAX_ENGINE_LINE)}") from error
    if _THEIRS[name] not in session.get_providers():
        raise EngineError(
            f"ONNX Runtime has a {LABELS[name]} provider but it does not start here: no NVIDIA driver, or CUDA's "
            "libraries are missing (pip install 'onnxruntime-gpu[cuda,cudnn]')"
        )
    return Session(session, name, chosen, sizes)


def _prepare_cuda(onnxruntime: Any) -> None:
    """Load CUDA's libraries, where they are installed as Python packages, and keep the CUDA provider quiet: for each
    convolution that cuDNN has no plan for under the options, it logs an error through ONNX Runtime's own logger and
    takes another plan, unfused and with the tensor cores."""
    if hasattr(onnxruntime, "preload_dlls"):
        with redirect_stdout(None):
            onnxruntime.preload_dlls()
    onnxruntime.set_default_logger_severity(_LOG_FATAL)  # what fails is raised all the same


def _remedy(name: Name) -> str:
    if name == "tensorrt-rtx":
        return "pip install onnxruntime-ep-nv-tensorrt-rtx"
    return "pip uninstall --yes onnxruntime, then pip install onnxruntime-gpu"


def _precision(bundle: Bundle, name: Name, asked: str) -> Precision:
    there = [precision for precision in bundle.manifest.graphs if precision in _TYPED[name]]
    if asked == "auto":
        return there[0] if there else "fp32"
    for precision in ("fp32", *there):
        if precision == asked:
            return precision
    raise EngineError(
        f"ONNX Runtime computes in what the graph says, and {bundle.path} has no {asked} graph that its {LABELS[name]} "
        "provider takes; precision is chosen at export"
    )


def _sizes(bundle: Bundle, name: Name) -> SizeRange:
    if name in ("cuda", "cpu"):
        return bundle.sizes
    if bundle.sizes.static:  # the profile that they are given has an end
        return bundle.sizes.model_copy(update={"max_batch": bundle.sizes.max_batch or 1})
    engine = bundle.engine("tensorrt") or bundle.engine("tensorrt-rtx")
    return engine.sizes if engine else DEFAULT_PROFILE


def _settings(bundle: Bundle, name: Name, precision: Precision, sizes: SizeRange) -> dict[str, str]:
    """A provider's options. fp32 is fp32: no TF32 where that can be said (TensorRT's provider has no such option).

    The CUDA provider's use_tf32=0 keeps convolutions off the tensor cores whatever their type (ONNX Runtime,
    core/providers/cuda/nn/conv.cc), so half graphs go without it: what stays fp32 there may have TF32's 10 bits of
    mantissa, which are fp16's.
    """
    if name == "cpu":
        return {}
    if name == "cuda":
        return {"use_tf32": "0" if precision == "fp32" else "1", "cudnn_conv_algo_search": "HEURISTIC"}
    prefix = "nv" if name == "tensorrt-rtx" else "trt"
    corners = {"min": (1, sizes.min), "opt": (1, sizes.opt), "max": (sizes.max_batch or 1, sizes.max)}
    settings = {
        f"{prefix}_profile_{corner}_shapes": ",".join(
            f"{tensor.name}:{'x'.join(map(str, tensor.shape_for(batch, *size)))}" for tensor in bundle.manifest.inputs
        )
        for corner, (batch, size) in corners.items()
    }
    # a folder a graph: the providers tell cached engines apart by the names in the graph, not by its weights
    folder = cache.folder(f"onnxruntime-{name}/{bundle.manifest.graphs[precision].file.sha256[:16]}")
    if folder is None:
        return settings
    if name == "tensorrt-rtx":
        return settings | {"nv_runtime_cache_path": str(folder)}
    # without trt_fp16_enable and trt_bf16_enable: they would let TensorRT choose types, which stand in the graph
    settings |= {"trt_engine_cache_enable": "1", "trt_engine_cache_path": str(folder)}
    return settings | {"trt_timing_cache_enable": "1", "trt_timing_cache_path": str(folder.parent)}


def _rtx_devices(onnxruntime: Any) -> list[Any]:
    """The GPUs that the plugin provider finds; its library is registered once a process."""
    plugin = require(_RTX_PACKAGE, "the TensorRT-RTX provider", _remedy("tensorrt-rtx"))
    name = plugin.get_ep_name()
    found = [device for device in onnxruntime.get_ep_devices() if device.ep_name == name]
    if not found:
        onnxruntime.register_execution_provider_library(name, plugin.get_library_path())
        found = [device for device in onnxruntime.get_ep_devices() if device.ep_name == name]
    if not found:
        raise RuntimeError("its TensorRT-RTX provider finds no GPU")
    return found
