"""A TensorRT or TensorRT-RTX engine out of its bytes."""

from __future__ import annotations

from typing import Any

from glama_deploy.bundle import BuildSettings, Lowering


def deserialize(trt: Any, logger: Any, data: Any, settings: BuildSettings, fft: Lowering) -> Any | None:
    """The engine that `data`, a buffer, holds; None where it is not taken on this GPU.

    `settings` are what it was built with, `fft` is how FFTs stand in its graph. Raises EngineError where it needs
    plugins that cannot be had here.
    """
    if fft == "plugin":
        from glama_deploy.runtime.plugins import register

        register(trt)
    runtime = trt.Runtime(logger)
    if settings.version_compatible and hasattr(runtime, "engine_host_code_allowed"):
        # such an engine brings its own runtime library along, which TensorRT loads for trusted engines only
        runtime.engine_host_code_allowed = True
    return runtime.deserialize_cuda_engine(data)
