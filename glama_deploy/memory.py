"""What an image will take, and whether this machine has it: asked before the work starts, not after."""

from __future__ import annotations

from pathlib import Path

from glama_deploy.errors import ImageError
from glama_deploy.network import NetworkConfig

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
    """Bytes that can be taken without swapping, by the system and by the container's own limit; None where neither
    says."""
    found = [_meminfo(), _cgroup()]
    return min((value for value in found if value is not None), default=None)


def _meminfo() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _cgroup(folder: Path = Path("/sys/fs/cgroup")) -> int | None:
    """What a container's limit leaves (cgroup v2). Files that were read and lie in its cache count as free: they go
    when something needs the place."""
    try:
        limit = (folder / "memory.max").read_text().strip()
        if limit == "max":
            return None
        used, stat = int((folder / "memory.current").read_text()), (folder / "memory.stat").read_text()
        cached = dict(line.split() for line in stat.splitlines())["inactive_file"]
        return int(limit) - used + int(cached)
    except (OSError, ValueError, KeyError):
        return None


def fits(needed: int, held: int = 0) -> bool:
    """Whether there are so many bytes, of which some are held already."""
    return needed <= held or (free := available()) is None or needed <= free + held


def check(needed: int, what: str, remedy: str, held: int = 0) -> None:
    """Raise ImageError where there are not so many bytes, of which some are held; `what` says of which size what is."""
    if not fits(needed, held):
        free = held + (available() or 0)
        raise ImageError(f"{what} and needs about {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free; {remedy}")
