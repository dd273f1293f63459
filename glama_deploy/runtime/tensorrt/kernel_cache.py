"""What TensorRT-RTX has and TensorRT has not: kernels that are compiled at run time, and a file that keeps them."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any

from glama_deploy.bundle import Bundle
from glama_deploy.errors import GlamaError
from glama_deploy.io import cache
from glama_deploy.io.files import atomic_file

log = logging.getLogger("glama_deploy")

#: Beside the engine; in no manifest, for it is this device's own and may be deleted at any time.
_FILE = "runtime.cache"


def runtime_config(trt: Any, engine: Any) -> Any:
    """How execution contexts are made: scratch memory is ours, CUDA graphs are TensorRT-RTX's own.

    A graph that we captured would keep the generic kernels of a size for ever: those made for it are compiled in the
    background. TensorRT-RTX's own strategy captures a size once its kernels are ready, and again when addresses change
    (its documentation, "Working with RTX CUDA Graphs").
    """
    config = engine.create_runtime_config()
    config.set_execution_context_allocation_strategy(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
    if hasattr(config, "cuda_graph_strategy"):  # from 1.2 on
        config.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
    return config


class KernelCache:
    """The kernels that were compiled for this device, in a file beside the engine, or where that cannot be written in
    the user's cache. The file is its own SHA-256, then what TensorRT-RTX gave: half a file never reaches TensorRT-RTX.
    """

    def __init__(self, bundle: Bundle, config: Any) -> None:
        """Load what there is into a cache and hand it to `config`, which does not keep it alive: this object must."""
        (engine,) = bundle.manifest.engines["tensorrt-rtx"].files
        own = cache.folder("tensorrt-rtx")
        self._places = [(bundle.path / engine.path).parent / _FILE]
        self._places += [own / f"{engine.sha256[:32]}.cache"] if own else []
        self._cache = config.create_runtime_cache()
        self._stored = next((data for data in map(_read, self._places) if data and self._cache.deserialize(data)), b"")
        config.set_runtime_cache(self._cache)

    def save(self) -> None:
        """Write it where it has changed. That it cannot be written is no failure: kernels are compiled again."""
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
    """What was stored; nothing where it is not there, damaged or unreadable."""
    try:
        content = path.read_bytes()
    except OSError:
        return b""
    digest, data = content[:32], content[32:]
    if hashlib.sha256(data).digest() != digest:
        log.info("%s is damaged; kernels are compiled again", path)
        return b""
    return data
