"""The processors that this process may use."""

from __future__ import annotations

import psutil


def count_processors() -> int:
    """Count the processors that this process may use.

    Returns:
        The number of logical CPUs in the process's affinity, or of all CPUs where the system has no affinity.
    """
    process = psutil.Process()
    if hasattr(process, "cpu_affinity"):  # not on macOS
        return len(process.cpu_affinity())
    return psutil.cpu_count() or 1
