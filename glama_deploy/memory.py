"""What an image will take, and whether this machine has it: asked before the work starts, not after."""

from __future__ import annotations

import psutil

from glama_deploy import cgroups
from glama_deploy.errors import ImageError
from glama_deploy.network import NetworkConfig

try:
    import resource
except ModuleNotFoundError:  # Windows
    resource = None  # type: ignore[assignment]

#: Feature maps of full height, width and `ngf` channels that stand at once, at most (benchmarks/scale.py): with
#: OpenVINO by the bytes of a value, and elsewhere.
_OPENVINO_MAPS = {4: 4.2, 2: 3.3}
_MAPS = 6.5

#: Bytes of a value of theirs where it is not float32.
_BYTES = {"bf16": 2, "fp16": 2, "int8+bf16": 2, "int8+fp16": 2}

#: Bytes a pixel beside them, which stay float32: image, mask and output, and the pyramid of what a network with `fill`
#: begins with.
_ENDS, _FILL = 80, 330


def estimate(
    height: int, width: int, network: NetworkConfig, batch: int = 1, precision: str = "fp32", backend: str = ""
) -> int:
    """Bytes that an engine needs for so many images, beside the weights; without a backend, of the one that needs
    most."""
    size = _BYTES.get(precision, 4)
    maps = size * (_OPENVINO_MAPS[size] if backend == "openvino" else _MAPS)

    def needed(pixels: int, of: NetworkConfig) -> float:
        return pixels * (maps * of.ngf + _ENDS + (_FILL if of.fill is not None else 0))

    coarse = 0.0 if network.coarse is None else needed(network.coarse_side**2, network.coarse)
    return round(batch * (needed(height * width, network) + coarse))


def available() -> int | None:
    """Return the bytes that this process can take without swapping; None where nothing says.

    The least of: the system's available memory, the limits of the container, the limit of the address space.
    """
    found = [_of_system(), cgroups.free_memory(), _of_address_space()]
    return min((value for value in found if value is not None), default=None)


def _of_system() -> int | None:
    try:
        return int(psutil.virtual_memory().available)
    except (OSError, psutil.Error):  # a sandbox that hides the system's files
        return None


def _of_address_space() -> int | None:
    """Return what `ulimit -v` leaves; None where it limits nothing. Windows has no such limit."""
    if resource is None:
        return None
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return None
    try:
        return max(0, limit - int(psutil.Process().memory_info().vms))
    except (OSError, psutil.Error):
        return int(limit)


def fits(needed: int, held: int = 0) -> bool:
    """Whether there are so many bytes, of which some are held already."""
    return needed <= held or (free := available()) is None or needed <= free + held


def check(needed: int, what: str, remedy: str, held: int = 0) -> None:
    """Raise ImageError where there are not so many bytes, of which some are held; `what` says of which size what is."""
    if not fits(needed, held):
        free = held + (available() or 0)
        raise ImageError(f"{what} and needs about {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free; {remedy}")
