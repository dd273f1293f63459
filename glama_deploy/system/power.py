"""What limits the clocks of this machine: a Jetson's power mode and the CPU's governor. Neither needs root."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

#: The first line of this file names the release of Jetson Linux.
_RELEASE = Path("/etc/nv_tegra_release")

#: The tool that prints a Jetson's power mode, and the line of its output that names the mode.
_TOOL, _TOOL_LINE = "nvpmodel", r"^NV Power Mode: *(\S.*)$"

#: The files that the tool reads: the number of the active mode, and the names of all modes.
_STATUS, _MODES = Path("/var/lib/nvpmodel/status"), Path("/etc/nvpmodel.conf")

#: Folder of the first CPU's clock, and of its files the governor, the lowest and the highest clock in kHz.
_CLOCK = Path("/sys/devices/system/cpu/cpu0/cpufreq")
_GOVERNOR, _LOWEST, _HIGHEST = "scaling_governor", "scaling_min_freq", "scaling_max_freq"

#: The device tree's name of a board, which ends with a zero byte.
_BOARD = Path("/proc/device-tree/model")

#: Seconds after which the tool is taken to hang.
_MAX_SECONDS = 10


def describe_power() -> dict[str, str]:
    """Describe the board and what limits its clocks, as far as the system tells.

    Returns:
        Texts by name: `board`, `Jetson Linux`, `power mode` and `CPU clock`. A name that the system does not tell is
        left out.
    """
    found = {
        "board": _read(_BOARD).strip("\0\n "),
        "Jetson Linux": next(iter(_read(_RELEASE).splitlines()), "").lstrip("# "),
        "power mode": read_power_mode(),
        "CPU clock": read_cpu_clock(),
    }
    return {name: text for name, text in found.items() if text}


def read_power_mode() -> str:
    """Read the active power mode of a Jetson.

    `nvpmodel -q` prints the mode. In a container the tool is missing, but its files may be mounted.

    Returns:
        The mode's name, such as `15W` or `MAXN`; `mode 2` where only the number is known. Empty on other machines.
    """
    tool = shutil.which(_TOOL)
    if tool is not None:
        try:
            said = subprocess.run(
                [tool, "-q"], capture_output=True, encoding="utf-8", errors="replace", timeout=_MAX_SECONDS
            ).stdout
        except (OSError, subprocess.TimeoutExpired):
            said = ""
        if named := re.search(_TOOL_LINE, said, re.MULTILINE):
            return named[1].strip()
    number = re.search(r"pmode:0*(\d+)", _read(_STATUS))
    if number is None:
        return ""
    named = re.search(rf"POWER_MODEL\s+ID={number[1]}\s+NAME=(\S+)", _read(_MODES))
    return named[1] if named else f"mode {number[1]}"


def read_cpu_clock() -> str:
    """Read the governor and the clock limits of the first CPU.

    Returns:
        For example `schedutil, 0.73 to 1.51 GHz`, or `performance, fixed at 1.51 GHz` after `jetson_clocks`. Empty
        where the system hides the clock, as virtual machines do.
    """
    governor, low, high = (_read(_CLOCK / name).strip() for name in (_GOVERNOR, _LOWEST, _HIGHEST))
    if not (low.isdecimal() and high.isdecimal()):
        return governor
    lowest, highest = (f"{int(kilohertz) / 1e6:.2f}" for kilohertz in (low, high))
    limits = f"fixed at {highest} GHz" if low == high else f"{lowest} to {highest} GHz"
    return f"{governor}, {limits}" if governor else limits


def _read(path: Path) -> str:
    """Return the text of a file; empty where the file is missing or hidden."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
