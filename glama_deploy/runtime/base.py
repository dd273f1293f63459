"""What an engine is to the rest: float arrays in, float arrays out. A new engine is one new file.

Beside a class with this protocol, the file has two functions: `open(bundle, request)` gives a runner or raises
EngineError, and `absent(bundle, request)` says whether there is nothing to open (no package, no artifact) and so
nothing to be said of it when the choice is automatic.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Hashable
from dataclasses import dataclass
from types import ModuleType
from typing import Protocol

import numpy as np

from glama_deploy.bundle import EngineName, Io, SizeRange
from glama_deploy.errors import EngineError


@dataclass(frozen=True)
class Request:
    """How to open an engine: precision (as `load` takes it), CPU threads (None: all), device (cpu, cuda, any;
    for ONNX Runtime also tensorrt and tensorrt-rtx), which of the bundle's engines, where a backend runs more than one
    kind (None: its best), whether sizes are compiled, and how many callers are served at once (both as `load` takes
    them)."""

    precision: str = "auto"
    threads: int | None = None
    device: str = "any"
    engine: EngineName | None = None
    compile_sizes: bool | None = None
    streams: int = 1


class Runner(Protocol):
    """An open engine."""

    #: The backend's name, as `load` takes it.
    backend: str
    #: For people: engine, version, device, precision.
    description: str
    #: What it computes in: fp32, bf16, fp16, int8, int8+bf16 or int8+fp16 (int8, and that type what is not).
    precision: str
    #: The sizes that it takes (multiples of 8, but for a dynamic uint8 graph, which pads by itself).
    sizes: SizeRange
    #: What its graph takes and gives.
    io: Io
    #: Whether each size is compiled before its first run, so that few sizes are better than small ones.
    compiles_sizes: bool

    @property
    def holder(self) -> Hashable:
        """Names what holds the memory of the last run: while it stays the same, that memory is there for the next one,
        and where it changes, it was given back."""
        ...

    @property
    def streams(self) -> int:
        """How many threads it serves at once."""
        ...

    def run(self, image: np.ndarray, mask: np.ndarray, output: str = "inpainted") -> np.ndarray:
        """With io `float`: image float32 [B, 3, H, W] and mask float32 [B, 1, H, W], both 0…1 → float32 [B, 3, H, W].

        With io `uint8`: image uint8 [B, H, W, 3], mask uint8 [B, H, W] (> 0 = missing) → `inpainted` uint8
        [B, H, W, 3], `predicted` float32 [B, H, W, 3], 0…1. Raises EngineError where the engine fails or lacks the
        output.
        """
        ...


def require(package: str, name: str, remedy: str) -> ModuleType:
    """Import an engine's package. Raises EngineError where it is not installed, or is but does not load."""
    if not installed(package):
        raise EngineError(f"{name} is not installed; {remedy}")
    try:
        return importlib.import_module(package)
    except (ImportError, OSError) as error:
        raise EngineError(f"{name} is installed but does not load ({str(error).splitlines()[0]}); {remedy}") from error


def installed(package: str) -> bool:
    """Whether a package can be imported, without importing it."""
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:
        return False
