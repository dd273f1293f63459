"""The free memory within the limits of Linux's control groups, which containers and systemd services use.

A process is in one group, and the limits of all parent groups apply, too. The files are documented in "Control Group
v2" and "Memory Resource Controller" (v1) in the Linux kernel's administration guide, in cgroups(7), and in proc(5) for
mountinfo.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class _Files:
    """Names in one version of control groups.

    Attributes:
        limit: File of the group's limit in bytes.
        usage: File of the group's usage in bytes.
        inactive: Entry of `memory.stat` with the unused file cache in bytes.
    """

    limit: str
    usage: str
    inactive: str


#: Limits from this number of bytes on mean that no limit is set. Version 1 writes about 2**63 in this case.
_NO_LIMIT_BYTES = 2**62

_V1 = _Files("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_V2 = _Files("memory.max", "memory.current", "inactive_file")


def free_memory(root: Path = Path("/")) -> int | None:
    """Measure the memory that this process may still use.

    Files in a group's cache count as free, because the kernel drops them when memory is needed.

    Args:
        root: The folder that contains `proc` and the mounted control groups.

    Returns:
        Bytes within the tightest limit, at least 0, or None where no group limits the memory.
    """
    found = [_measure_free(folder, files) for folder, files in _list_groups(root)]
    return min((free for free in found if free is not None), default=None)


def _list_groups(root: Path) -> Iterator[tuple[Path, _Files]]:
    """Yield the folders of the process's memory groups, from its own group up to the topmost mounted group."""
    paths = _read_group_paths(root)
    for mounted, point, version in _read_mounts(root):
        path = paths.get(version)
        if path is None:
            continue
        inside = _make_relative(path, mounted)
        folder = root / point.lstrip("/")
        yield from ((each, _V2 if version == 2 else _V1) for each in _list_upwards(folder / inside, folder))


def _read_group_paths(root: Path) -> dict[int, str]:
    """Return the path of the process's group by version (1 and 2). Version 1 has a group for each controller."""
    found = {}
    for line in _read_lines(root / "proc/self/cgroup"):
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            found[2] = path
        elif "memory" in controllers.split(","):
            found[1] = path
    return found


def _read_mounts(root: Path) -> Iterator[tuple[str, str, int]]:
    """Yield (group at the top, mount point, version) of each mount of memory groups."""
    for line in _read_lines(root / "proc/self/mountinfo"):
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if len(fields) < 5 or len(kind) < 3:
            continue
        mounted, point = (field.replace("\\040", " ") for field in fields[3:5])  # a space is written in octal
        if kind[0] == "cgroup2":
            yield mounted, point, 2
        elif kind[0] == "cgroup" and "memory" in kind[2].split(","):
            yield mounted, point, 1


def _make_relative(path: str, mounted: str) -> str:
    """Return the group's path below the mount. For a group outside of the mount (`/../x`) this is the mount's top."""
    parts, above = Path(path).parts[1:], Path(mounted).parts[1:]
    if ".." in parts or parts[: len(above)] != above:
        return ""
    return "/".join(parts[len(above) :])


def _list_upwards(folder: Path, top: Path) -> Iterator[Path]:
    """Yield a folder and its parents up to `top`."""
    yield folder
    while folder != top:
        folder = folder.parent
        yield folder


def _measure_free(folder: Path, files: _Files) -> int | None:
    """Return the free bytes within one group's limit, or None where the group has no limit."""
    # above `memory.high`, which version 1 does not have, version 2 slows the group down
    limits = (_read_number(folder / name) for name in (files.limit, "memory.high"))
    limit = min((value for value in limits if value is not None), default=None)
    usage = _read_number(folder / files.usage)
    if limit is None or usage is None:
        return None
    stat = dict(line.split(maxsplit=1) for line in _read_lines(folder / "memory.stat") if " " in line)
    # this entry of version 1 includes the limits of parent groups, which a container does not see
    limit = min(limit, _parse(stat.get("hierarchical_memory_limit", "")) or limit)
    if limit >= _NO_LIMIT_BYTES:
        return None
    return max(0, limit - usage + (_parse(stat.get(files.inactive, "")) or 0))


def _parse(text: str) -> int | None:
    """Return the number in a text, or None for other text such as `max`."""
    return int(text) if text.strip().isdecimal() else None


def _read_number(path: Path) -> int | None:
    """Return the number in a file, or None where the file says `max` or does not exist."""
    lines = _read_lines(path)
    return _parse(lines[0]) if lines else None


def _read_lines(path: Path) -> list[str]:
    """Return the lines of a file. The list is empty where the file cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return []
