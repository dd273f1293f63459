"""cuFFT through ctypes: the library, and batched two-dimensional plans, real to complex and complex to real.

A plan does not allocate memory for intermediate results (cufftSetAutoAllocation(0)): the caller of a run passes a work
area. One plan serves all nodes of its size. cuFFT's guide demands a work area of its own for each concurrent run. A run
only launches kernels in the given stream, so a CUDA graph can capture the run (the guide: "supported on single GPU
plans"). Making a plan loads kernels and tables, so make the plan before the capture. A captured graph refers to the
tables of its plan: keep the plan as long as the graph.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import threading
import weakref
from ctypes import POINTER, c_int, c_longlong, c_size_t, c_void_p
from pathlib import Path
from typing import Any, Literal

from glama_deploy.errors import EngineError
from glama_deploy.runtime.tensorrt.plugins.fft import Size

Kind = Literal["R2C", "C2R"]

#: File names of cuFFT in CUDA 13, 12 and 11, and in a toolkit's development files.
_FILES = ("libcufft.so.12", "libcufft.so.11", "libcufft.so.10", "libcufft.so")

#: The values of cufftType in cufft.h.
_TYPES: dict[Kind, int] = {"R2C": 0x2A, "C2R": 0x2C}

_LONGS = POINTER(c_longlong)
_LAYOUT = (_LONGS, c_longlong, c_longlong)
_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "cufftGetVersion": (POINTER(c_int),),
    "cufftCreate": (POINTER(c_int),),
    "cufftSetAutoAllocation": (c_int, c_int),
    "cufftMakePlanMany64": (c_int, c_int, _LONGS, *_LAYOUT, *_LAYOUT, c_int, c_longlong, POINTER(c_size_t)),
    "cufftSetStream": (c_int, c_void_p),
    "cufftSetWorkArea": (c_int, c_void_p),
    "cufftExecR2C": (c_int, c_void_p, c_void_p),
    "cufftExecC2R": (c_int, c_void_p, c_void_p),
    "cufftDestroy": (c_int,),
}

#: The meanings of cufftResult in cufft.h.
_STATUS = {
    1: "invalid plan",
    2: "out of GPU memory",
    3: "invalid type",
    4: "invalid value",
    5: "internal error: no NVIDIA driver, or one too old for this cuFFT",
    6: "execution failed on the GPU",
    7: "it could not be initialised: no NVIDIA driver, or one too old for this cuFFT",
    8: "unsupported size",
    9: "unaligned data",
    10: "incomplete parameters",
    11: "another GPU than the plan's",
    13: "no work area",
    14: "not implemented",
    16: "not supported",
    17: "a library that it needs is missing",
    18: "run-time compilation failed",
    19: "run-time linking failed",
    20: "NVSHMEM failed",
}


class Cufft:
    """The cuFFT library. The status of every call is checked."""

    def __init__(self, library: Any, path: str) -> None:
        """Declare the functions of a library.

        Args:
            library: An object with cuFFT's functions as attributes.
            path: What errors call the library.

        Raises:
            EngineError: the library lacks a function.
        """
        self._library, self.path = library, path
        for name, arguments in _SIGNATURES.items():
            try:
                function = getattr(library, name)
            except AttributeError as error:
                raise EngineError(f"{path} has no {name}; install cuFFT of CUDA 11 or newer") from error
            function.argtypes, function.restype = list(arguments), c_int

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function.

        Args:
            name: The function's name in cufft.h.
            *arguments: The function's arguments.

        Raises:
            EngineError: the status is not success. The message says the status in words.
        """
        status = getattr(self._library, name)(*arguments)
        if status:
            meaning = _STATUS.get(status, "a status unknown here")
            raise EngineError(f"{name} of {self.path} failed with status {status}: {meaning}")

    def version(self) -> int:
        """Return the library's version.

        Returns:
            1000·major + 100·minor + patch, as in cufft.h.
        """
        version = c_int()
        self.call("cufftGetVersion", ctypes.byref(version))
        return version.value


def load() -> Cufft:
    """Load the first cuFFT that loads: the system's, which fits its driver, before those of pip's wheels.

    Returns:
        The library.

    Raises:
        EngineError: no cuFFT loads. The message says what to install.
    """
    reasons = []
    for path in _candidates():
        try:
            return Cufft(ctypes.CDLL(path), path)
        except OSError as error:
            reasons.append(str(error))
    broken = [reason for reason in reasons if "cannot open shared object" not in reason]
    raise EngineError(
        "cuFFT is not installed"
        + (f" or does not load ({broken[0]})" if broken else "")
        + "; install the CUDA toolkit and have libcufft.so on LD_LIBRARY_PATH, or: pip install nvidia-cufft-cu12 "
        "(CUDA 13: nvidia-cufft); or export with `fft=matmul`, which needs none"
    )


def _candidates() -> list[str]:
    """List names for the dynamic loader (LD_LIBRARY_PATH, ldconfig), then the toolkit's files, then pip's wheels."""
    roots = [os.environ[name] for name in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(name)]
    toolkit = [Path(root) / "lib64" for root in (*roots, "/usr/local/cuda")]
    spec = importlib.util.find_spec("nvidia")
    wheels = [
        folder
        for root in (spec.submodule_search_locations or () if spec else ())
        for folder in sorted(Path(root).glob("*/lib"))
    ]
    files = [folder / name for folders in (toolkit, wheels) for name in _FILES for folder in folders]
    return [*_FILES, *(str(file) for file in files if file.is_file())]


class Plan:
    """A transform of one kind and size on the GPU that is current when the plan is made. Threads may share a plan.

    The plan is destroyed with the last reference to it.

    Attributes:
        work_bytes: The work area that a run needs, in bytes.
    """

    def __init__(self, cufft: Cufft, kind: Kind, size: Size) -> None:
        """Make a plan.

        Args:
            cufft: The library.
            kind: Real to complex (R2C) or complex to real (C2R).
            size: Number and sides of the arrays.

        Raises:
            EngineError: the driver or memory is missing, or cuFFT does not support the size.
        """
        self._cufft, self._execute = cufft, f"cufftExec{kind}"
        self._lock = threading.Lock()
        handle, work = c_int(), c_size_t()
        cufft.call("cufftCreate", ctypes.byref(handle))
        # at exit the driver frees everything, and may be unloaded before this module
        weakref.finalize(self, cufft.call, "cufftDestroy", handle.value).atexit = False
        self._handle = handle.value
        cufft.call("cufftSetAutoAllocation", self._handle, 0)
        real, spectrum = (c_longlong * 2)(size.height, size.width), (c_longlong * 2)(size.height, size.half)
        source, target = (real, spectrum) if kind == "R2C" else (spectrum, real)
        layouts = [part for sides in (source, target) for part in (sides, 1, sides[0] * sides[1])]
        plan = (self._handle, 2, real, *layouts, _TYPES[kind], size.batch, ctypes.byref(work))
        cufft.call("cufftMakePlanMany64", *plan)
        self.work_bytes = work.value

    def run(self, source: int, target: int, work: int, stream: int) -> None:
        """Launch the transform. R2C leaves the input as it is; C2R may consume the input.

        Args:
            source: The input's device address.
            target: The output's device address.
            work: The work area's device address.
            stream: CUDA's handle of the stream.
        """
        with self._lock:  # until the launch, the plan holds the stream and the work area of one run
            self._cufft.call("cufftSetStream", self._handle, stream)
            self._cufft.call("cufftSetWorkArea", self._handle, work)
            self._cufft.call(self._execute, self._handle, source, target)
