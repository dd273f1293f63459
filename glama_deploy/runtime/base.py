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
from glama_deploy.node_names import INPAINTED

#: How a remedy that installs a package becomes one for a package that is broken, which pip would leave as it is.
_REINSTALL = ("pip install", "pip install --upgrade --force-reinstall")

#: The remedy for a package that looks for the user's home folder when it is imported, where the user has none.
_SET_HOME = "set HOME to a folder that you may write to"

#: Characters of a package's own reason that an error repeats.
_MAX_REASON = 200

#: The most CPU threads and streams that a caller may ask for: beyond the cores of any machine, and within what an
#: engine can start.
MAX_THREADS = 4096


@dataclass(frozen=True)
class Request:
    """How to open an engine: precision (as `load` takes it), CPU threads (None: all), device (cpu, cuda, any;
    for ONNX Runtime also tensorrt and tensorrt-rtx), which of the bundle's engines, where a backend runs more than one
    kind (None: its best), whether sizes are compiled, how many callers are served at once, and whether an engine may
    run native code that its file contains (the last three as `load` takes them)."""

    precision: str = "auto"
    threads: int | None = None
    device: str = "any"
    engine: EngineName | None = None
    compile_sizes: bool | None = None
    streams: int = 1
    allow_engine_code: bool = False


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

    def run(self, image: np.ndarray, mask: np.ndarray, output: str = INPAINTED) -> np.ndarray:
        """With io `float`: image float32 [B, 3, H, W] and mask float32 [B, 1, H, W], both 0…1 → float32 [B, 3, H, W].

        With io `uint8`: image uint8 [B, H, W, 3], mask uint8 [B, H, W] (> 0 = missing) → `inpainted` uint8
        [B, H, W, 3], `predicted` float32 [B, H, W, 3], 0…1. Raises EngineError where the engine fails or lacks the
        output.
        """
        ...


def require(package: str, name: str, remedy: str, attribute: str = "") -> ModuleType:
    """Import an engine's package.

    Args:
        package: the module's name.
        name: the package as people call it.
        remedy: how to install the package, with `pip install` in the text.
        attribute: what the package has where it is whole.

    Returns:
        The module.

    Raises:
        EngineError: the package is not installed, fails when it is imported, or lacks the attribute.
    """
    if not installed(package):
        raise EngineError(f"{name} is not installed; {remedy}")
    try:
        module = importlib.import_module(package)
    except Exception as error:
        reason = (str(error).strip().splitlines() or ["no reason is given"])[0]
        cure = _SET_HOME if "home directory" in reason else remedy.replace(*_REINSTALL, 1)
        raise EngineError(
            f"{name} is installed but not usable ({type(error).__name__}: {reason[:_MAX_REASON]}); {cure}"
        ) from error
    if attribute and not hasattr(module, attribute):
        raise EngineError(
            f"{name} is installed but not usable ({module.__file__} has no {attribute}); remove that file where it is "
            f"your own, else {remedy.replace(*_REINSTALL, 1)}"
        )
    return module


def installed(package: str) -> bool:
    """Return whether a package can be imported, without importing the package itself.

    A folder without an `__init__.py` is not a package: bundles have folders called `openvino` and `tensorrt`, and pip
    leaves such folders behind.
    """
    try:
        spec = importlib.util.find_spec(package)
    except ModuleNotFoundError:
        return False
    except Exception:  # noqa: BLE001 - a package above fails when it is imported; `require` tells why
        return True
    is_folder = spec is not None and spec.origin is None and spec.submodule_search_locations is not None
    return spec is not None and not is_folder
