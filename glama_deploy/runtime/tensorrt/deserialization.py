"""TensorRT and TensorRT-RTX engines from their bytes."""

from __future__ import annotations

from typing import Any

from glama_deploy.bundle import BuildSettings, Lowering
from glama_deploy.errors import EngineError


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
    if fft == "plugin":
        from glama_deploy.runtime.tensorrt.plugins import register

        register(trt)
    runtime = trt.Runtime(logger)
    if settings.version_compatible and hasattr(runtime, "engine_host_code_allowed"):
        runtime.engine_host_code_allowed = True
    return runtime.deserialize_cuda_engine(data)
