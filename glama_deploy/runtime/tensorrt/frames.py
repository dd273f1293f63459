"""What a run is given: the inputs, checked against the graph, and the optimization profile that takes them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from glama_deploy.bundle import SizeRange, Tensor
from glama_deploy.errors import EngineError
from glama_deploy.node_names import BATCH, HEIGHT, MASK, WIDTH
from glama_deploy.runtime.cuda.exchange.device_arrays import DeviceTensor, is_on_device, read_device_array
from glama_deploy.runtime.cuda.exchange.streams import LEGACY_DEFAULT
from glama_deploy.runtime.cuda.interface import Device


@dataclass(frozen=True)
class Frame:
    """The inputs of a run.

    Attributes:
        arrays: The inputs by name, of the types and shapes of the graph.
        sides: The batch, height and width of the inputs.
        profile: The index of the optimization profile that takes them.
        has_batch: Whether the caller's image has a batch axis.
    """

    arrays: dict[str, np.ndarray | DeviceTensor]
    sides: dict[str, int]
    profile: int
    has_batch: bool

    @property
    def on_device(self) -> list[DeviceTensor]:
        """The inputs that lie in device memory."""
        return [array for array in self.arrays.values() if isinstance(array, DeviceTensor)]

    def format(self) -> str:
        """Return the batch and the size for messages.

        Returns:
            Such as `1 × 512x768`.
        """
        return f"{self.sides[BATCH]} × {self.sides[HEIGHT]}x{self.sides[WIDTH]}"


def read_frame(
    tensors: tuple[Tensor, ...],
    given: tuple[Any, ...],
    profiles: tuple[SizeRange, ...],
    device: Device,
    stream: int = LEGACY_DEFAULT,
) -> Frame:
    """Read and check the inputs of a run.

    Args:
        tensors: The graph's inputs, the image first.
        given: The arrays for them, in host or device memory. Arrays in device memory may lack the batch axis, and a
            mask there may be bool in place of uint8.
        profiles: The engine's optimization profiles.
        device: The GPU, which is current.
        stream: The handle of the stream that waits for arrays that are read through DLPack.

    Returns:
        The inputs.

    Raises:
        EngineError: an array has another type or shape than the graph takes, lies elsewhere, or no profile takes the
            size.
    """
    arrays = {
        tensor.name: read_on_device(tensor.name, array, device, stream) if is_on_device(array) else array
        for tensor, array in zip(tensors, given, strict=True)
    }
    has_batch = len(arrays[tensors[0].name].shape) == len(tensors[0].shape)
    fitted = {tensor.name: _fit(tensor, arrays[tensor.name]) for tensor in tensors}
    sides = _read_sides(tensors, fitted)
    return Frame(fitted, sides, _choose_profile(profiles, sides), has_batch)


def read_target(tensor: Tensor, out: Any, frame: Frame, device: Device, stream: int) -> DeviceTensor:
    """Read and check the array that a run writes its output to.

    Args:
        tensor: The output.
        out: The array.
        frame: The inputs of the run.
        device: The GPU, which is current.
        stream: As for :func:`read_frame`.

    Returns:
        The array, of the type and shape of the output.

    Raises:
        EngineError: the array has another type or shape, is read-only, or does not lie in the GPU's memory.
    """
    target = _fit(tensor, read_on_device("out", out, device, stream))
    expected = tensor.shape_for(**frame.sides)
    if target.dtype != tensor.dtype or target.shape != expected:
        raise EngineError(
            f"out is {target.dtype} {_format_shape(target.shape)}, {tensor.dtype} {_format_shape(expected)} "
            f"({tensor.layout}) is expected; pass such an array, or none"
        )
    if target.is_read_only:
        raise EngineError("out is read-only; pass an array that may be written, or none")
    return target


def read_on_device(name: str, array: Any, device: Device, stream: int) -> DeviceTensor:
    """Read an array in device memory, and check that it lies where the engine runs.

    Args:
        name: The array's name in error messages.
        array: The array.
        device: The GPU, which is current.
        stream: As for :func:`read_frame`.

    Returns:
        The array.

    Raises:
        EngineError: the array lies on another GPU or in other memory, or cannot be read.
    """
    found = read_device_array(name, array, stream)
    try:
        gpu = device.find_gpu(found.address)
    except EngineError as error:
        raise EngineError(f"{name} does not lie in GPU memory ({error}); copy it to GPU {device.gpu}") from error
    if gpu not in (None, device.gpu):
        raise EngineError(f"{name} lies on GPU {gpu}, the engine runs on GPU {device.gpu}; copy it there")
    return found


def find_tightest_profile(profiles: tuple[SizeRange, ...], batch: int, height: int, width: int) -> int | None:
    """Return the index of the smallest optimization profile that covers a size.

    Args:
        profiles: The engine's profiles in order.
        batch: The number of images.
        height: The images' height in pixels.
        width: The images' width in pixels.

    Returns:
        The index, or None where no profile covers the size.
    """
    fitting = [
        (profile.max[0] * profile.max[1], profile.max_batch or float("inf"), index)
        for index, profile in enumerate(profiles)
        if profile.covers(height, width) and (profile.max_batch is None or batch <= profile.max_batch)
    ]
    return min(fitting)[2] if fitting else None


def _fit(tensor: Tensor, array: Any) -> Any:
    """Return an array as a tensor: one in device memory with a batch axis, and a mask with bytes in place of bool."""
    if not isinstance(array, DeviceTensor):
        return array
    shape = (1, *array.shape) if len(array.shape) == len(tensor.shape) - 1 else array.shape
    is_bool = array.dtype == np.bool_ and tensor.name == MASK and tensor.dtype == "uint8"  # a byte of 0 or 1
    return replace(array, shape=shape, dtype=np.dtype(np.uint8) if is_bool else array.dtype)


def _read_sides(tensors: tuple[Tensor, ...], arrays: dict[str, Any]) -> dict[str, int]:
    """Return the batch, height and width of the inputs.

    Raises:
        EngineError: an input has another type or shape than the graph takes.
    """
    sides: dict[str, int] = {}
    for tensor in tensors:
        array = arrays[tensor.name]
        if len(array.shape) == len(tensor.shape):
            for symbol, side in zip(tensor.shape, array.shape, strict=True):
                if isinstance(symbol, str):
                    sides.setdefault(symbol, side)
        expected = tuple(sides.get(side, side) if isinstance(side, str) else side for side in tensor.shape)
        if array.dtype != tensor.dtype or array.shape != expected:
            raise EngineError(
                f"{tensor.name} is {array.dtype} {_format_shape(array.shape)}, "
                f"{tensor.dtype} {_format_shape(expected)} ({tensor.layout}) is expected; cast or reshape it"
            )
    height, width = (tensors[0].layout.index(axis) for axis in "HW")
    shape = arrays[tensors[0].name].shape
    return {BATCH: shape[0], HEIGHT: shape[height], WIDTH: shape[width]}


def _choose_profile(profiles: tuple[SizeRange, ...], sides: dict[str, int]) -> int:
    """Return the index of the profile that takes a size. Raises EngineError where none does."""
    batch, height, width = sides[BATCH], sides[HEIGHT], sides[WIDTH]
    profile = find_tightest_profile(profiles, batch, height, width)
    if profile is not None:
        return profile
    most = max(profile.max_batch or batch for profile in profiles)
    if batch > most:
        raise EngineError(f"the batch is {batch}, this engine takes up to {most}; build it again with `max_batch`")
    raise EngineError(
        f"the image is {height}x{width}, the batch {batch}; this engine takes "
        f"{' or '.join(map(_format_profile, profiles))}; "
        "build it again with `min_size` and `max_size` around it"
    )


def _format_shape(shape: tuple[int | str, ...]) -> str:
    return f"[{', '.join(map(str, shape))}]"


def _format_profile(profile: SizeRange) -> str:
    return f"{profile} (batch up to {profile.max_batch})" if profile.max_batch else str(profile)
