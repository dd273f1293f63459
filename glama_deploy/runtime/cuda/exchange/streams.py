"""The streams that callers name: handles, and the streams of PyTorch, CuPy, pycuda and cuda.core."""

from __future__ import annotations

from typing import Any

from glama_deploy.errors import EngineError
from glama_deploy.text.excerpts import quoted

#: CUDA's legacy default stream, as `__cuda_array_interface__` and the CUDA runtime number it. Packages also write 0.
LEGACY_DEFAULT = 1

#: The version of the protocol `__cuda_stream__` that is known here
#: (https://nvidia.github.io/cuda-python/cuda-core/latest/interoperability.html).
_PROTOCOL_VERSION = 0

#: Where streams have their handles: PyTorch, CuPy, pycuda.
_ATTRIBUTES = ("cuda_stream", "ptr", "handle")


def read_stream(stream: Any) -> int:
    """Read the handle of a stream.

    Args:
        stream: A handle, or a stream of PyTorch, CuPy, pycuda, or any package with `__cuda_stream__`.

    Returns:
        The handle. 1 is CUDA's legacy default stream, which handle 0 means, too.

    Raises:
        EngineError: the object is not a stream.
    """
    handle = stream
    if callable(getattr(stream, "__cuda_stream__", None)):
        version, handle = stream.__cuda_stream__()
        if version != _PROTOCOL_VERSION:
            raise EngineError(
                f"the stream has version {version} of __cuda_stream__, version {_PROTOCOL_VERSION} is expected; pass "
                "its handle"
            )
    elif not isinstance(stream, int):
        handle = next((getattr(stream, name) for name in _ATTRIBUTES if hasattr(stream, name)), stream)
    if not isinstance(handle, int) or isinstance(handle, bool) or handle < 0:
        raise EngineError(
            f"the stream is {quoted(handle)}; a handle, or a stream of PyTorch, CuPy or another package with "
            "__cuda_stream__, is expected"
        )
    return handle or LEGACY_DEFAULT
