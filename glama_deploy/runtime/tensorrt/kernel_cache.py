"""TensorRT-RTX compiles kernels at run time. This module configures that and stores the kernels in a file."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any

from glama_deploy.bundle import Bundle
from glama_deploy.catalogue import TENSORRT_RTX
from glama_deploy.errors import GlamaError
from glama_deploy.io import cache
from glama_deploy.io.files import atomic_file

log = logging.getLogger("glama_deploy")

#: The file beside the engine. The manifest does not list it: the file belongs to this device and may be deleted.
RUNTIME_CACHE = "runtime.cache"


def make_runtime_config(trt: Any, engine: Any) -> Any:
    """Return the configuration of an engine's execution contexts.

    The caller provides scratch memory, and TensorRT-RTX captures CUDA graphs itself. It compiles kernels for a size in
    the background; a graph that the caller captured would keep the generic kernels for ever. TensorRT-RTX captures a
    size when its kernels are ready, and again when addresses change (its documentation, "Working with RTX CUDA
    Graphs").

    Args:
        trt: The module `tensorrt_rtx`.
        engine: The deserialized engine.

    Returns:
        TensorRT-RTX's `IRuntimeConfig`.
    """
    config = engine.create_runtime_config()
    config.set_execution_context_allocation_strategy(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
    if hasattr(config, "cuda_graph_strategy"):  # from 1.2 on
        config.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
    return config


class KernelCache:
    """The kernels that were compiled for this device, in a file.

    The file stands beside the engine, or in the user's cache where the bundle cannot be written. It begins with the
    SHA-256 of the rest, so TensorRT-RTX never reads a damaged file.
    """

    def __init__(self, bundle: Bundle, config: Any) -> None:
        """Load the stored kernels into a cache of a configuration.

        Args:
            bundle: The bundle of the engine.
            config: The configuration from :func:`make_runtime_config`. It does not keep the cache alive: keep this
                object.
        """
        (engine,) = bundle.manifest.engines[TENSORRT_RTX.name].files
        own = cache.folder(TENSORRT_RTX.name)
        self._places = [(bundle.path / engine.path).parent / RUNTIME_CACHE]
        self._places += [own / f"{engine.sha256[:32]}.cache"] if own else []
        self._cache = config.create_runtime_cache()
        self._stored = next((data for data in map(_read, self._places) if data and self._cache.deserialize(data)), b"")
        config.set_runtime_cache(self._cache)

    def save(self) -> None:
        """Write the file if the kernels changed. A file that cannot be written is logged; the next start compiles."""
        serialized = self._cache.serialize()
        data = b"" if serialized is None else bytes(memoryview(serialized))
        if not data or data == self._stored:
            return
        for place in self._places:
            try:
                with atomic_file(place) as temporary:
                    temporary.write_bytes(hashlib.sha256(data).digest() + data)
            except GlamaError as error:
                log.info("compiled kernels are not kept there: %s", error)
                continue
            self._stored = data
            return


def _read(path: Path) -> bytes:
    """Return the stored kernels; no bytes where the file is missing, damaged or unreadable."""
    try:
        content = path.read_bytes()
    except OSError:
        return b""
    digest, data = content[:32], content[32:]
    if hashlib.sha256(data).digest() != digest:
        log.info("%s is damaged; kernels are compiled again", path)
        return b""
    return data
