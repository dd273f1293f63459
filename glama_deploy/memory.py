"""The memory that an image needs, and the memory that this machine has. Both are compared before the work starts."""

from __future__ import annotations

import sys

import psutil

from glama_deploy import feature_maps
from glama_deploy.errors import MemoryShortageError
from glama_deploy.network import NetworkConfig
from glama_deploy.system import cgroups

#: Bytes of a feature map's value in precisions that are not float32.
_HALF_PRECISION_BYTES = {"bf16": 2, "fp16": 2, "int8+bf16": 2, "int8+fp16": 2}

#: Bytes for each pixel beside the feature maps: inputs, outputs and their copies, always float32. 71 were measured with
#: OpenVINO.
IO_BYTES_PER_PIXEL = 72

#: Factor by which ONNX Runtime and PyTorch exceed the feature maps that are alive at once, because their allocators do
#: not reuse all of the freed memory. ONNX Runtime 1.32.0 had 2.3 to 2.75 (benchmarks/RESULTS-COSTS.md).
_ALLOCATOR_FACTOR = 2.9

#: Factor by which this estimate exceeds the measurement.
_SAFETY_FACTOR = 1.1


def estimate(
    height: int,
    width: int,
    network: NetworkConfig,
    batch: int = 1,
    precision: str = "fp32",
    window: tuple[int, int] | None = None,
) -> int:
    """Estimate the memory that ONNX Runtime or PyTorch needs, at most, to inpaint images of one size.

    Args:
        height: height of the images in pixels, padded as the engine is given them.
        width: width of the images in pixels, padded likewise.
        network: the network's configuration.
        batch: number of images at once.
        precision: what the engine computes in, as `Runner.precision` says.
        window: height and width of the window that the decoder computes; None for the whole image.

    Returns:
        Bytes beside the weights.
    """
    value_bytes = count_value_bytes(precision)
    needed = 0.0
    for part, size in list_stages(network, (height, width)):
        pixels = size[0] * size[1]
        decoded = window if part is network else None
        needed += _ALLOCATOR_FACTOR * feature_maps.find_peak(part, size, value_bytes, decoded)
        needed += IO_BYTES_PER_PIXEL * pixels
    return round(_SAFETY_FACTOR * batch * needed)


def list_stages(network: NetworkConfig, size: tuple[int, int]) -> list[tuple[NetworkConfig, tuple[int, int]]]:
    """List the stages of a network, each with the size that it computes at.

    Args:
        network: the network's configuration.
        size: height and width of the image in pixels.

    Returns:
        The network, and stage one if there is one.
    """
    stages = [(network, size)]
    if network.coarse is not None:
        stages.append((network.coarse, (network.coarse_side, network.coarse_side)))
    return stages


def count_value_bytes(precision: str) -> int:
    """Return the bytes of a feature map's value.

    Args:
        precision: what the engine computes in, as `Runner.precision` says.

    Returns:
        2 or 4.
    """
    return _HALF_PRECISION_BYTES.get(precision, 4)


def available() -> int | None:
    """Return the free memory: the bytes that this process can take without swapping.

    Returns:
        The least of the system's available memory, the limits of the container, and the limits of the process. None if
        none of them is known.
    """
    found = [_of_system(), cgroups.free_memory(), _of_process()]
    return min((value for value in found if value is not None), default=None)


def _of_system() -> int | None:
    """Return the bytes that the system says are available; None if the system does not say."""
    try:
        return int(psutil.virtual_memory().available)
    except (OSError, psutil.Error):  # a sandbox that hides the system's files
        return None


#: Limits of a process, with the figure of psutil that counts towards each: `ulimit -v` and `ulimit -d` (getrlimit(2)).
#: Linux counts private writable pages for the latter.
_PROCESS_LIMITS = (("RLIMIT_AS", "vms"), ("RLIMIT_DATA", "data"))


if sys.platform == "win32":

    def _of_process() -> int | None:
        """Return None: Windows has no such limits."""
        return None

else:
    import resource

    def _of_process() -> int | None:
        """Return the bytes that the limits of the process leave; None without a limit."""
        found = []
        for name, used in _PROCESS_LIMITS:
            limit, _ = resource.getrlimit(getattr(resource, name))
            if limit == resource.RLIM_INFINITY:
                continue
            try:
                found.append(max(0, limit - int(getattr(psutil.Process().memory_info(), used))))
            except (OSError, psutil.Error, AttributeError):  # a hidden /proc; macOS has no `data`
                found.append(int(limit))
        return min(found, default=None)


def fits(needed: int) -> bool:
    """Return whether the free memory suffices.

    Args:
        needed: bytes that are needed.

    Returns:
        True if it does, or if the free memory is not known.
    """
    return (free := available()) is None or needed <= free


def check(needed: int, what: str, remedy: str) -> None:
    """Check the free memory.

    Args:
        needed: bytes that are needed.
        what: subject of the message, for example "the image is 512x512".
        remedy: end of the message, which says what to do.

    Raises:
        MemoryShortageError: the free memory does not suffice.
    """
    if not fits(needed):
        raise make_shortage_error(needed, available() or 0, what, remedy)


def make_shortage_error(needed: int, free: int, what: str, remedy: str) -> MemoryShortageError:
    """Return the error that says that memory is short.

    Args:
        needed: bytes that are needed.
        free: bytes that are free.
        what: subject of the message, for example "the image is 512x512".
        remedy: end of the message, which says what to do.

    Returns:
        The error, to be raised.
    """
    return MemoryShortageError(
        f"{what} and needs about {needed / 1e9:.1f} GB, {max(0, free) / 1e9:.1f} GB are free; {remedy}"
    )
