"""The CPU's model, maker and instruction sets, as the operating system or the CPU itself tells them."""

from __future__ import annotations

import platform
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

#: Names of the lines of /proc/cpuinfo that list features, on x86 and on Arm.
_FEATURE_LINES = ("flags", "Features")

#: Names of the lines of /proc/cpuinfo that name the CPU.
_MODEL_LINES = ("model name", "Hardware", "Model")

#: Name of the line of /proc/cpuinfo that names the maker of an x86 CPU.
_MAKER_LINE = "vendor_id"


@dataclass(frozen=True)
class CpuIdentity:
    """What a CPU is.

    Attributes:
        model: the name of the model, for example `AMD EPYC 9B14`; empty where the system does not tell.
        maker: the maker of an x86 CPU, for example `GenuineIntel`; empty where the system does not tell.
        features: the instruction sets by Linux's names, for example `avx2`; empty where the system does not tell.
    """

    model: str
    maker: str
    features: frozenset[str]


@cache
def read_identity() -> CpuIdentity:
    """Read what this machine's CPU is.

    Returns:
        The identity. Linux tells it in `/proc/cpuinfo`. On Windows and macOS the package archspec asks the CPU.
    """
    return read_cpuinfo(Path("/proc/cpuinfo")) if sys.platform == "linux" else ask_archspec()


def read_cpuinfo(path: Path) -> CpuIdentity:
    """Read a file in the format of Linux's `/proc/cpuinfo`.

    Args:
        path: the file.

    Returns:
        The identity; all fields are empty where the file cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:  # a sandbox that hides the system's files
        lines = []
    parts = (line.partition(":") for line in lines)
    fields = [(name.strip(), text.strip()) for name, _, text in parts]
    return CpuIdentity(
        model=next((text for name, text in fields if name in _MODEL_LINES and text), platform.processor()),
        maker=next((text for name, text in fields if name == _MAKER_LINE), ""),
        features=frozenset(word for name, text in fields if name in _FEATURE_LINES for word in text.split()),
    )


def ask_archspec() -> CpuIdentity:
    """Ask the package archspec, which reads `cpuid` on Windows and `sysctl` on macOS.

    archspec 0.2.7 does not list `avx_ne_convert` and `avx_vnni_int8`. For a chip of Apple archspec lists the features
    of the chip's generation.

    Returns:
        The identity, with the features by Linux's names.
    """
    from archspec.cpu import brand_string, host
    from archspec.cpu.detect import detected_info

    found = detected_info()
    return CpuIdentity(
        model=(brand_string() or platform.processor()).strip(),
        maker=found.vendor,
        features=frozenset(found.features | host().features),
    )
