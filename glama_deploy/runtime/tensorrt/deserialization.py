"""TensorRT and TensorRT-RTX engines from their bytes."""

from __future__ import annotations

import logging
from typing import Any

from glama_deploy.bundle import BuildSettings, Lowering
from glama_deploy.errors import EngineError

log = logging.getLogger("glama_deploy")


def deserialize(
    trt: Any, logger: Any, data: Any, settings: BuildSettings, fft: Lowering, *, allow_engine_code: bool
) -> Any | None:
    """Deserialize an engine.

    Args:
        trt: the module `tensorrt` or `tensorrt_rtx`.
        logger: a logger of that module.
        data: the engine's bytes, a buffer.
        settings: what the engine was built with.
        fft: how FFTs stand in the engine's graph.
        allow_engine_code: whether TensorRT may run native code that the engine contains. A version-compatible engine
            contains a runtime library of its own. A manifest says whether an engine is of that kind, and may come from
            anywhere: only the user, or the process that has just built the engine, allows its code.

    Returns:
        The engine, or None if TensorRT does not accept the engine on this GPU.

    Raises:
        EngineError: the engine contains code that is not allowed, or needs plugins that cannot be registered here.
    """
    if settings.version_compatible and not allow_engine_code:
        raise EngineError(
            "the engine is version-compatible, so it contains native code, which would run in this process; if you "
            "trust where the bundle comes from, allow it (`allow_engine_code=True`), else "
            "build the engine again with `build()`"
        )
    prepare_plugins(trt, logger, fft)
    runtime = trt.Runtime(logger)
    if settings.version_compatible and hasattr(runtime, "engine_host_code_allowed"):
        runtime.engine_host_code_allowed = True
    if hasattr(runtime, "get_engine_validity"):  # of TensorRT-RTX
        _check_validity(trt, runtime, data)
    return runtime.deserialize_cuda_engine(data)


def _check_validity(trt: Any, runtime: Any, data: Any) -> None:
    """Log what TensorRT-RTX says of an engine on this GPU. Raise EngineError if the engine is invalid here."""
    validity, diagnostics = runtime.get_engine_validity(data)
    members = trt.EngineInvalidityDiagnostics.__members__
    reasons = [name.lower().replace("_", " ") for name, member in members.items() if int(diagnostics) & int(member)]
    said = f"TensorRT-RTX says that the engine is {validity.name.lower()} here ({', '.join(reasons) or 'no reason'})"
    if validity == trt.EngineValidity.INVALID:
        raise EngineError(f"{said}; build the engine again for this GPU")
    if validity == trt.EngineValidity.SUBOPTIMAL:
        log.warning("%s; build the engine again for this GPU alone, with `gpus`", said)
    else:
        log.info("%s", said)


def prepare_plugins(trt: Any, logger: Any, fft: Lowering) -> None:
    """Make TensorRT know the plugins that a graph's FFTs are, before the graph is parsed or its engine deserialized.

    From 11.2 on TensorRT's parser turns an ONNX DFT into a cuFFT plugin of TensorRT's own plugin library.

    Args:
        trt: The module `tensorrt` or `tensorrt_rtx`.
        logger: A logger of that module.
        fft: The lowering of the FFTs in the graph.

    Raises:
        EngineError: The plugins cannot be registered here.
    """
    if fft == "plugin":
        from glama_deploy.runtime.tensorrt.plugins import register

        register(trt)
    elif fft == "dft" and not trt.init_libnvinfer_plugins(logger, ""):
        raise EngineError(
            f"TensorRT {trt.__version__} did not initialize its plugin library, which runs the FFTs of `fft=dft`; "
            "install TensorRT again with its plugin library, or export again with `fft=matmul`"
        )
