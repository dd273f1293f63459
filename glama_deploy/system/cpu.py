"""What this machine's CPU computes with."""

from __future__ import annotations

import os
import platform
from functools import cache
from pathlib import Path

#: What `ONEDNN_MAX_CPU_ISA` may be set to that leaves OpenVINO without AVX2.
_BELOW_AVX2 = ("SSE41", "AVX")

#: How x86 and Arm name the lines of /proc/cpuinfo that list features.
_FEATURE_LINES = ("flags", "Features")


@cache
def features() -> frozenset[str]:
    """Return the CPU's features as Linux names them (for example `avx2`); empty on other systems."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return frozenset()
    named = (line.partition(":") for line in lines)
    return frozenset(word for name, _, words in named if name.strip() in _FEATURE_LINES for word in words.split())


def lacks_avx2() -> bool:
    """Return whether OpenVINO computes on an x86 CPU without AVX2; False where the system does not name features."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    asked = os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper()
    return asked in _BELOW_AVX2 or (bool(features()) and "avx2" not in features())
