"""The memory that the limits of Linux's control groups leave, as containers and systemd's services have them.

A process is in a group, and the limits of all groups above hold as well. Documentation of the files: "Control Group v2"
and "Memory Resource Controller" (v1) in the Linux kernel's administration guide; cgroups(7); proc(5) for mountinfo.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class _Files:
    """The names of a version's files, and of the entry that counts a group's unused file cache."""

    limit: str
    usage: str
    inactive: str


#: From here up a limit limits nothing: version 1 writes about 2**63 where none is set.
_NO_LIMIT = 2**62

_V1 = _Files("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_V2 = _Files("memory.max", "memory.current", "inactive_file")


def free_memory(root: Path = Path("/")) -> int | None:
    """Return the bytes that the tightest of the process's memory limits leaves, at least 0.

    Files that were read and lie in a group's cache count as free: the kernel drops them when memory is needed.

    Args:
        root: the folder that holds `proc` and the mounted control groups.

    Returns:
        Bytes, or None where no group limits the memory.
    """
    found = [_free(folder, files) for folder, files in _groups(root)]
    return min((free for free in found if free is not None), default=None)


def _groups(root: Path) -> Iterator[tuple[Path, _Files]]:
    """Yield the process's memory groups, from its own up to the topmost that is mounted."""
    paths = _paths(root)
    for mounted, point, version in _mounts(root):
        path = paths.get(version)
        if path is None:
            continue
        inside = _relative(path, mounted)
        folder = root / point.lstrip("/")
        yield from ((each, _V2 if version == 2 else _V1) for each in _upwards(folder / inside, folder))


def _paths(root: Path) -> dict[int, str]:
    """Return the path of the process's group by version: v2's, and that of v1's memory controller."""
    found = {}
    for line in _lines(root / "proc/self/cgroup"):
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            found[2] = path
        elif "memory" in controllers.split(","):
            found[1] = path
    return found


def _mounts(root: Path) -> Iterator[tuple[str, str, int]]:
    """Yield of each mount of memory groups the group at its top, its mount point and the version."""
    for line in _lines(root / "proc/self/mountinfo"):
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if len(fields) < 5 or len(kind) < 3:
            continue
        mounted, point = (field.replace("\\040", " ") for field in fields[3:5])  # a space is written in octal
        if kind[0] == "cgroup2":
            yield mounted, point, 2
        elif kind[0] == "cgroup" and "memory" in kind[2].split(","):
            yield mounted, point, 1


def _relative(path: str, mounted: str) -> str:
    """Return the group's path below the mount; the mount's own where the group lies outside of it (`/../x`)."""
    parts, above = Path(path).parts[1:], Path(mounted).parts[1:]
    if ".." in parts or parts[: len(above)] != above:
        return ""
    return "/".join(parts[len(above) :])


def _upwards(folder: Path, top: Path) -> Iterator[Path]:
    yield folder
    while folder != top:
        folder = folder.parent
        yield folder


def _free(folder: Path, files: _Files) -> int | None:
    """Return the bytes that one group leaves; None where the group has no limit."""
    # v2 slows a group down above `memory.high`, which v1 does not have
    limits = (_number(folder / name) for name in (files.limit, "memory.high"))
    limit = min((value for value in limits if value is not None), default=None)
    usage = _number(folder / files.usage)
    if limit is None or usage is None:
        return None
    stat = dict(line.split(maxsplit=1) for line in _lines(folder / "memory.stat") if " " in line)
    # v1 says here what a group above, which a container does not see, allows
    limit = min(limit, _parse(stat.get("hierarchical_memory_limit", "")) or limit)
    if limit >= _NO_LIMIT:
        return None
    return max(0, limit - usage + (_parse(stat.get(files.inactive, "")) or 0))


def _parse(text: str) -> int | None:
    """Return the number that a text is; None for any other text, such as `max`."""
    return int(text) if text.strip().isdecimal() else None


def _number(path: Path) -> int | None:
    """Return the number in a file; None where it says `max` or is not there."""
    lines = _lines(path)
    return _parse(lines[0]) if lines else None


def _lines(path: Path) -> list[str]:
    """Return the lines of a file; none where it is not there or cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return []
