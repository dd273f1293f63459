"""What an image will take, and whether this machine has it: asked before the work starts, not after."""

from __future__ import annotations

from pathlib import Path

from glama_deploy.errors import ImageError
from glama_deploy.network import NetworkConfig

#: Feature maps of full height, width and `ngf` channels that stand at once, at most: of LaMa in fp32 4.0 to 6.3, by the
#: engine, and of large images in bf16 3 (benchmarks/scale.py).
FULL_SIZE_MAPS = 6

#: Bytes of a value of theirs where it is not float32.
_BYTES = {"bf16": 2, "fp16": 2, "int8+bf16": 2, "int8+fp16": 2}


def estimate(height: int, width: int, network: NetworkConfig, batch: int = 1, precision: str = "fp32") -> int:
    """Bytes that a network needs for so many images, beside its weights."""
    pixels = height * width * network.ngf
    if network.coarse is not None:
        pixels += network.coarse_side**2 * network.coarse.ngf
    return batch * pixels * _BYTES.get(precision, 4) * FULL_SIZE_MAPS


def available() -> int | None:
    """Bytes that can be taken without swapping, by the system and by the container's own limit; None where neither
    says."""
    found = [_meminfo(), _cgroup()]
    return min((value for value in found if value is not None), default=None)


def _meminfo() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
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


def fits(
    height: int, width: int, network: NetworkConfig, batch: int = 1, precision: str = "fp32", *, beside: int = 0
) -> bool:
    """Whether there is as much memory as that needs, with so many bytes beside it."""
    free = available()
    return free is None or estimate(height, width, network, batch, precision) + beside <= free


def check(
    height: int,
    width: int,
    network: NetworkConfig,
    batch: int = 1,
    what: str = "the image",
    precision: str = "fp32",
    remedy: str = "scale the image down or cut it into parts",
    *,
    beside: int = 0,
) -> None:
    """Raise ImageError for images, or boxes of them, that need more memory than there is, with so many bytes beside."""
    if not fits(height, width, network, batch, precision, beside=beside):
        needed, free = estimate(height, width, network, batch, precision) + beside, available() or 0
        several = f", {batch} at once," if batch > 1 else ""
        raise ImageError(
            f"{what} is {height}x{width}{several} and needs about {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free; "
            + remedy
        )
