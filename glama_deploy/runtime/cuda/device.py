"""What the TensorRT runner asks of CUDA, and who answers: cuda-python, or pycuda where that is what a device has."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

import numpy as np

from glama_deploy.errors import EngineError
from glama_deploy.runtime.base import installed


class OutOfMemory(EngineError):
    """The GPU, or the host where memory must be page-locked, has no room left."""


class Graph(Protocol):
    """A CUDA graph of captured work."""

    def launch(self) -> None:
        """Put the work into the stream that it was captured from."""
        ...

    def discard(self) -> None: ...


class Device(Protocol):
    """One GPU and one stream on it. Every failure is an EngineError; sizes are bytes, addresses device addresses."""

    #: The stream's handle, as TensorRT takes it.
    stream: int

    def name(self) -> str: ...
    def compute_capability(self) -> tuple[int, int]: ...

    def active(self) -> AbstractContextManager[None]:
        """Around everything below, and around whatever TensorRT is asked to do."""
        ...

    def allocate(self, size: int) -> int:
        """Device memory, aligned to 256 bytes. Raises OutOfMemory."""
        ...

    def free(self, address: int) -> None: ...

    def pin(self, size: int) -> np.ndarray:
        """Page-locked host memory, uint8 [size]: the only kind that is copied while the host goes on."""
        ...

    def unpin(self, block: np.ndarray) -> None: ...

    def upload(self, address: int, block: np.ndarray) -> None:
        """Page-locked host memory to the device, in the stream: both stay as they are until :meth:`synchronize`."""
        ...

    def download(self, block: np.ndarray, address: int) -> None:
        """Device to page-locked host memory, in the stream: ready after :meth:`synchronize`."""
        ...

    def copy(self, target: int, source: int, size: int) -> None:
        """Device to device, in the stream."""
        ...

    def wait_for(self, stream: int) -> None:
        """The stream goes on once all that is in another one by now is done. 1 and 2: CUDA's two default streams."""
        ...

    def capture(self, work: Callable[[], bool]) -> Graph | None:
        """A CUDA graph of what `work` puts into the stream, which is not run; None where that cannot be captured."""
        ...

    def synchronize(self) -> None:
        """Wait for everything in the stream."""
        ...

    def close(self) -> None:
        """Give the stream back; nothing may be asked of this object afterwards."""
        ...


def open_device() -> Device:
    """The GPU, through cuda-python where that is installed and works, else pycuda.

    Raises EngineError: neither is installed, no driver, no GPU. Where both fail, each says why.
    """
    refused: dict[str, EngineError] = {}
    for package, module, opened in (
        ("cuda-python", "cuda.bindings.runtime", _cuda),
        ("pycuda", "pycuda.driver", _pycuda),
    ):
        if not installed(module):
            continue
        try:
            return opened()
        except EngineError as error:  # a cuda-python newer than the driver, which a Jetson may have
            refused[package] = error
    if not refused:
        raise EngineError(
            "neither cuda-python nor pycuda is installed; pip install cuda-python (on Jetson: pip install pycuda)"
        )
    if len(refused) == 1:
        raise next(iter(refused.values()))
    raise EngineError("; ".join(f"{package}: {error}" for package, error in refused.items()))


def _cuda() -> Device:
    from glama_deploy.runtime.cuda.cuda_python import Cuda

    return Cuda()


def _pycuda() -> Device:
    from glama_deploy.runtime.cuda.pycuda import PyCuda

    return PyCuda()
