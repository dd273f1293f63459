"""The names of this machine's NVIDIA GPUs, by the driver's management library (NVML).

The library comes with the driver. A call of the library opens no CUDA context, which would hinder processes that are
forked later.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator

#: The library's file.
_LIBRARY = "nvml.dll" if sys.platform == "win32" else "libnvidia-ml.so.1"

#: NVML_DEVICE_NAME_V2_BUFFER_SIZE: bytes that hold any name.
_NAME_BYTES = 96


def read_names() -> tuple[str, ...]:
    """Read the names of all NVIDIA GPUs of this machine or container.

    Returns:
        The names in the driver's order. Empty without a GPU or a driver.
    """
    try:
        library = ctypes.CDLL(_LIBRARY)
    except OSError:
        return ()
    if library.nvmlInit_v2():
        return ()
    try:
        return tuple(_list_names(library))
    finally:
        library.nvmlShutdown()


def _list_names(library: ctypes.CDLL) -> Iterator[str]:
    """Yield the name of each GPU that answers."""
    count = ctypes.c_uint()
    if library.nvmlDeviceGetCount_v2(ctypes.byref(count)):
        return
    for number in range(count.value):
        device, name = ctypes.c_void_p(), ctypes.create_string_buffer(_NAME_BYTES)
        if not library.nvmlDeviceGetHandleByIndex_v2(number, ctypes.byref(device)) and not library.nvmlDeviceGetName(
            device, name, _NAME_BYTES
        ):
            yield name.value.decode(errors="replace")
