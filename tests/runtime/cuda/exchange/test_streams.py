"""The streams that callers name."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from glama_deploy.errors import EngineError
from glama_deploy.runtime.cuda.exchange.streams import read_stream


class ByProtocol:
    """A stream of cuda.core, whose other attributes are no handles."""

    handle = "CUstream"

    def __init__(self, version: int, handle: int) -> None:
        self._pair = version, handle

    def __cuda_stream__(self) -> tuple[int, int]:
        return self._pair


@pytest.mark.parametrize(
    ("stream", "handle"),
    [
        (4096, 4096),
        (0, 1),  # CUDA's legacy default stream, as PyTorch and CuPy write it
        (1, 1),
        (2, 2),
        (SimpleNamespace(cuda_stream=4096), 4096),  # PyTorch
        (SimpleNamespace(cuda_stream=0), 1),
        (SimpleNamespace(ptr=4096), 4096),  # CuPy
        (SimpleNamespace(handle=4096), 4096),  # pycuda
        (ByProtocol(0, 4096), 4096),
    ],
)
def test_a_stream_is_read_as_its_package_shows_it(stream, handle):
    assert read_stream(stream) == handle


@pytest.mark.parametrize(
    ("stream", "says"),
    [
        ("default", r"^the stream is 'default'; a handle, or a stream of PyTorch, CuPy .* is expected$"),
        (-1, "^the stream is -1;"),
        (True, "^the stream is True;"),
        (1.5, "^the stream is 1.5;"),
        (object(), "^the stream is a object;"),
        (SimpleNamespace(ptr=None), "^the stream is None;"),
        (ByProtocol(1, 4096), "^the stream has version 1 of __cuda_stream__, version 0 is expected; pass its handle$"),
    ],
)
def test_what_is_not_a_stream_is_an_error_of_one_line(stream, says):
    with pytest.raises(EngineError, match=says) as refused:
        read_stream(stream)
    assert "\n" not in str(refused.value)
