"""The instruction sets of this machine's CPU."""

from __future__ import annotations

import os
import platform
from functools import cache
from pathlib import Path

#: Values of the variable `ONEDNN_MAX_CPU_ISA` with which OpenVINO does not use AVX2.
_BELOW_AVX2 = ("SSE41", "AVX")

#: Names of the lines of /proc/cpuinfo that list features, on x86 and on Arm.
_FEATURE_LINES = ("flags", "Features")


@cache
def features() -> frozenset[str]:
    """Read the CPU's features.

    Returns:
        The features by Linux's names, for example `avx2`. On other systems the set is empty.
    """
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return frozenset()
    named = (line.partition(":") for line in lines)
    return frozenset(word for name, _, words in named if name.strip() in _FEATURE_LINES for word in words.split())


def lacks_avx2() -> bool:
    """Tell whether OpenVINO computes without AVX2 on an x86 CPU.

    Returns:
        True without AVX2. False on other CPUs, and where the system does not list the features.
    """
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    asked = os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper()
    return asked in _BELOW_AVX2 or (bool(features()) and "avx2" not in features())
