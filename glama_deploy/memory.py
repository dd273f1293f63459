"""What an image will take, and whether this machine has it: asked before the work starts, not after."""

from __future__ import annotations

import psutil

from glama_deploy.errors import ImageError
from glama_deploy.network import NetworkConfig
from glama_deploy.system import cgroups, cpu

try:
    import resource
except ModuleNotFoundError:  # Windows
    resource = None  # type: ignore[assignment]

#: Feature maps of full height, width and `ngf` channels that stand at once, at most. Elsewhere than in OpenVINO:
_MAPS = 6.5

#: In OpenVINO, by the bytes of a value. In fp32 on AVX2 4.44 were measured on 2026-11-29 (2 cores, EPYC Zen 3, OpenVINO
#: 2026.4.1), and 4.2 with AVX-512 (benchmarks/speed/scale.py).
_OPENVINO_MAPS = {4: 4.5, 2: 3.3}

#: The same without AVX2, where convolutions need a copy of their input for each kernel position: 7.6 were measured
#: with ONEDNN_MAX_CPU_ISA=SSE41.
_OPENVINO_MAPS_WITHOUT_AVX2 = 7.7

#: By how much an estimate for OpenVINO exceeds the measurement. Layouts of feature maps depend on the CPU's vectors,
#: and the allocator rounds up: between AVX-512 and AVX2 the measurements differ by 6 %.
_OPENVINO_MARGIN = 1.1

#: Bytes of the primitives that OpenVINO keeps for later runs: `CPU_RUNTIME_CACHE_CAPACITY` is 16 (runtime/openvino.py),
#: and an entry takes 0.7 MB with the embedded network, 1.1 with LaMa.
_OPENVINO_CACHE_BYTES = 18_000_000

#: Bytes of a value of theirs where it is not float32.
_BYTES = {"bf16": 2, "fp16": 2, "int8+bf16": 2, "int8+fp16": 2}

#: Bytes a pixel beside them, which stay float32: image, mask and output, and the pyramid of what a network with `fill`
#: begins with.
_ENDS, _FILL = 100, 330


def estimate(
    height: int, width: int, network: NetworkConfig, batch: int = 1, precision: str = "fp32", backend: str = ""
) -> int:
    """Estimate the memory that an engine needs, at most, to inpaint images of one size.

    Args:
        height: Height of the images in pixels, padded as the engine is given them.
        width: Width of the images in pixels, padded likewise.
        network: The network's configuration.
        batch: Number of images at once.
        precision: What the engine computes in, as `Runner.precision` says.
        backend: The engine's name; empty for the engine that needs most.

    Returns:
        Bytes beside the weights.
    """
    size, in_openvino = _BYTES.get(precision, 4), backend == "openvino"
    maps = _MAPS
    if in_openvino:
        maps = _OPENVINO_MAPS_WITHOUT_AVX2 if cpu.lacks_avx2() else _OPENVINO_MAPS[size]

    def needed(pixels: int, of: NetworkConfig) -> float:
        return pixels * (maps * size * of.ngf + _ENDS + (_FILL if of.fill is not None else 0))

    coarse = 0.0 if network.coarse is None else needed(network.coarse_side**2, network.coarse)
    total = batch * (needed(height * width, network) + coarse)
    return round(_OPENVINO_MARGIN * total + _OPENVINO_CACHE_BYTES if in_openvino else total)


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
    """Raise ImageError where the memory does not suffice.

    Args:
        needed: Bytes that are needed.
        what: Subject of the message, for example "the image is 512x512".
        remedy: End of the message, which says what to do.
        held: Bytes of the need that are held already.
    """
    if not fits(needed, held):
        free = held + (available() or 0)
        raise ImageError(f"{what} and needs about {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free; {remedy}")
