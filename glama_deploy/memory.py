"""What an image will take, and whether this machine has it: asked before the work starts, not after."""

from __future__ import annotations

from pathlib import Path

from glama_deploy.errors import ImageError


def estimate(height: int, width: int, ngf: int) -> int:
    """Bytes that a float32 network with `ngf` channels behind its stem needs for an image, beside its weights."""
    return height * width * ngf * 4 * FULL_SIZE_MAPS


#: Feature maps of full height, width and `ngf` channels that stand at once, as measured (benchmarks/memory.py).
FULL_SIZE_MAPS = 6


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


def _cgroup() -> int | None:
    """What a container's limit leaves (cgroup v2)."""
    folder = Path("/sys/fs/cgroup")
    try:
        limit = (folder / "memory.max").read_text().strip()
        return None if limit == "max" else int(limit) - int((folder / "memory.current").read_text())
    except (OSError, ValueError):
        return None


def check(height: int, width: int, ngf: int) -> None:
    """Raise ImageError for an image that needs more memory than there is."""
    needed, free = estimate(height, width, ngf), available()
    if free is not None and needed > free:
        raise ImageError(
            f"the image is {height}x{width} and needs about {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free; "
            "scale it down or cut it into parts"
        )
