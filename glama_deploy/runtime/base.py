"""The interface between the inpainter and an engine. A new engine is one new file.

The file of an engine has a class with the protocol `Runner`, and two functions. `open(bundle, request)` returns a
runner or raises EngineError. `absent(bundle, request)` returns whether there is nothing to open: the engine's package
or artifact is missing. An absent engine is passed over without a message when the choice is automatic.
"""

from __future__ import annotations

import importlib
import importlib.util
from abc import abstractmethod
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal, Protocol

import numpy as np

from glama_deploy.bundle import EngineName, Io, SizeRange
from glama_deploy.errors import EngineError
from glama_deploy.node_names import INPAINTED
from glama_deploy.runtime.devices import Device
from glama_deploy.text.excerpts import describe_error

#: Turns a remedy that installs a package into one that repairs a package, which pip would otherwise leave as it is.
_REINSTALL = ("pip install", "pip install --upgrade --force-reinstall")

#: The remedy for a package that needs a home folder when it is imported, if the user has none.
_SET_HOME = "set HOME to a folder that you may write to"

#: The greatest number of CPU threads and streams that a caller may ask for. The number is above the cores of any
#: machine, and an engine can start as many.
MAX_THREADS = 4096


#: A part of an image: its first row and column, and the row and column behind its last ones, in pixels.
Window = tuple[int, int, int, int]

#: Where an engine computes: on the CPU, through CUDA, on a GPU through another interface, or on an NPU.
DeviceKind = Literal["cpu", "cuda", "gpu", "npu"]


@dataclass(frozen=True)
class Request:
    """How to open an engine.

    Attributes:
        precision: what the engine computes in, as :func:`glama_deploy.load` takes it.
        threads: CPU threads; None for all.
        device: the device; None: the engine chooses.
        provider: the part of the backend behind the colon, such as `tensorrt` of `onnxruntime:tensorrt`; empty: the
            engine chooses.
        engine: which of the bundle's engines, where a backend runs more than one kind; None for the best.
        compile_sizes: whether OpenVINO compiles a model for each size, as `load` takes it.
        streams: number of callers that are served at once.
        allow_engine_code: whether an engine may run native code that its file contains.
    """

    precision: str = "auto"
    threads: int | None = None
    device: Device | None = None
    provider: str = ""
    engine: EngineName | None = None
    compile_sizes: bool | None = None
    streams: int = 1
    allow_engine_code: bool = False


@dataclass(frozen=True)
class RunTimes:
    """The times of one run on a device with copies, in seconds.

    Attributes:
        upload: copies of the inputs from the host to the device.
        compute: the network.
        download: copy of the output from the device to the host.
    """

    upload: float
    compute: float
    download: float


class Runner(Protocol):
    """An open engine. Runners inherit from this class, which has the defaults of a plain engine.

    Attributes:
        backend: the backend's name, as :func:`glama_deploy.load` takes it.
        description: engine, version, device and precision, for people.
        device: where the engine computes.
        precision: what the engine computes in: fp32, bf16, fp16, int8, int8+bf16 or int8+fp16. The part behind the plus
            is the type of the layers that are not int8.
        precisions: the precisions that the engine can compute this bundle in on this machine; empty: only its own.
        advice: one line for a user who asked for this precision and would gain from another one; empty: none.
        sizes: sizes that the engine takes, multiples of 8. A graph with uint8 tensors and dynamic sizes takes any size,
            because it pads by itself.
        io: whether the graph's tensors are float or uint8.
        compiles_sizes: whether each size is compiled before its first run. Few sizes are then better than small ones.
        takes_windows: whether the engine has `run_window`.
        takes_device_arrays: whether `run` also takes arrays in GPU memory, and the engine has `run_on_device`.
        holder: name of what holds the memory of the last run. While the name stays the same, the next run uses that
            memory again. When the name changes, the memory was given back.
        streams: number of threads that are served at once.
    """

    backend: str
    description: str
    device: DeviceKind
    precision: str
    precisions: tuple[str, ...] = ()
    advice: str = ""
    sizes: SizeRange
    io: Io
    compiles_sizes: bool = False
    takes_windows: bool = False
    takes_device_arrays: bool = False
    holder: Hashable = None
    streams: int = 1

    @abstractmethod
    def memory_needed(self, size: tuple[int, int], batch: int = 1, window: tuple[int, int] | None = None) -> int:
        """Estimate the memory that a run needs, at most.

        Args:
            size: height and width of the images in pixels, padded as `run` is given them.
            batch: number of images at once.
            window: height and width of the window of `run_window` in pixels; None for the whole image.

        Returns:
            Bytes of the memory that :meth:`memory_available` counts, beside the weights, with what is compiled for the
            size before the run. 0 for an engine that takes its memory when it is opened.
        """

    def memory_available(self) -> int | None:
        """Return the free memory that runs of this engine can take.

        Returns:
            Bytes: of main memory by default, of the GPU's memory for an engine that computes there. None if the number
            is not known, which limits nothing.
        """
        from glama_deploy import memory

        return memory.available()

    def has_compiled_form(self, size: tuple[int, int]) -> bool:
        """Return whether the engine computes images of this height and width in another way once it compiles the size.

        The results of the two ways differ by rounding, so parity is measured for both.

        Args:
            size: height and width of the images in pixels.

        Returns:
            True if there are two ways; False by default.
        """
        return False

    @abstractmethod
    def run(self, image: np.ndarray, mask: np.ndarray, output: str = INPAINTED) -> np.ndarray:
        """Run the network.

        Args:
            image: with io `float`, float32 [B, 3, H, W] from 0 to 1; with io `uint8`, uint8 [B, H, W, 3].
            mask: with io `float`, float32 [B, 1, H, W], 1 where a pixel is missing; with io `uint8`, uint8 [B, H, W],
                above 0 where a pixel is missing.
            output: `inpainted`, the image with its missing pixels filled, or `predicted`, the network's own picture.

        Returns:
            With io `float`, float32 [B, 3, H, W] from 0 to 1. With io `uint8`, uint8 [B, H, W, 3] for `inpainted` and
            float32 [B, H, W, 3] from 0 to 1 for `predicted`.

        Raises:
            EngineError: the engine fails, or the graph lacks the output.
        """

    def run_on_device(self, image: Any, mask: Any, out: Any = None, stream: Any = None, output: str = INPAINTED) -> Any:
        """Run the network on arrays in GPU memory, and leave the output there.

        Args:
            image: as `run` takes it, in GPU memory; the batch axis may be left out.
            mask: as `run` takes it, in GPU memory, or bool in place of uint8; the batch axis may be left out.
            out: the array in GPU memory that is written; None for a new one. It may be the image.
            stream: the caller's stream. The run comes after the work in it, and later work in it comes after the run.
                None: the method returns when the run is done.
            output: as `run` takes it.

        Returns:
            `out`, or a :class:`glama_deploy.runtime.cuda.exchange.results.GpuArray`, without a batch axis if the image
            has none.

        Raises:
            EngineError: an array or the stream is not as described, the engine fails, or does not have this method.
        """
        raise EngineError(f"{self.description} does not read GPU memory; open a TensorRT engine")

    def run_window(self, image: np.ndarray, mask: np.ndarray, window: Window) -> np.ndarray:
        """Run the network, and compute the picture in a window alone.

        Args:
            image: as `run` takes it.
            mask: as `run` takes it.
            window: the window, whose sides are multiples of the network's reduction. The window may reach into the
                padding that a graph with io `uint8` adds.

        Returns:
            The output `inpainted` in the window, as far as the image goes. Pixels near a border of the window that is
            not the image's border are wrong: :func:`glama_deploy.inpainting.windows.find_window` leaves room for them.

        Raises:
            EngineError: the engine fails, or does not have this method.
        """
        raise EngineError(f"{self.description} computes whole pictures only")

    def time_copies(self) -> Callable[[], RunTimes] | None:
        """Measure the copies of later runs apart from the computation, for a benchmark. No run is under way.

        Returns:
            A function that returns the times of the last run; None for an engine that does not tell copies and
            computation apart, which is the default.
        """
        return None

    def close(self) -> None:
        """Give back what the end of the last reference to the runner would not give back at once.

        No call is under way, and none follows.
        """
        return


def require(package: str, name: str, remedy: str, attribute: str = "") -> ModuleType:
    """Import an engine's package.

    Args:
        package: the module's name.
        name: the package's name for people.
        remedy: how to install the package, with `pip install` in the text.
        attribute: an attribute that a complete package has.

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
        cure = _SET_HOME if "home directory" in str(error) else remedy.replace(*_REINSTALL, 1)
        raise EngineError(f"{name} is installed but not usable ({describe_error(error)}); {cure}") from error
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

    Args:
        package: the module's name.

    Returns:
        True if the package can be found, even if it fails when it is imported.
    """
    try:
        spec = importlib.util.find_spec(package)
    except ModuleNotFoundError:
        return False
    except Exception:  # noqa: BLE001 - a package above fails when it is imported; `require` tells why
        return True
    is_folder = spec is not None and spec.origin is None and spec.submodule_search_locations is not None
    return spec is not None and not is_folder
