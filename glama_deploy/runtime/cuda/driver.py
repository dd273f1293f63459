"""The NVIDIA driver's CUDA version, and the cuda-python that fits."""

from __future__ import annotations

import ctypes
import sys

#: The file of the NVIDIA driver's library.
LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"

#: The first cuda-python with the modules `cuda.bindings`. It runs on every driver of CUDA 12 (CUDA's minor version
#: compatibility).
_FIRST_CUDA_PYTHON = (12, 6)

#: Bytes that hold the name of any GPU.
_NAME_BYTES = 256

#: What is said on a machine without an NVIDIA driver.
NO_DRIVER = "no NVIDIA driver here; run this on the machine with the GPU"


def has_driver() -> bool:
    """Return whether the library of an NVIDIA driver can be loaded.

    Returns:
        True also if the driver does not work.
    """
    return load_driver() is not None


def find_driver_version() -> tuple[int, int] | None:
    """Find the newest CUDA version that the installed driver supports.

    Returns:
        (major, minor), such as (12, 6); None without a driver.
    """
    driver = load_driver()
    version = ctypes.c_int()
    if driver is None or driver.cuDriverGetVersion(ctypes.byref(version)) or not version.value:  # 0 on success
        return None
    return version.value // 1000, version.value % 1000 // 10


def list_gpus() -> tuple[str, ...]:
    """List the NVIDIA GPUs that this process sees, as `CUDA_VISIBLE_DEVICES` has them.

    The driver is initialized. A process that is forked later cannot use CUDA then.

    Returns:
        The name of each GPU, by its number in `cuda:N`; none without a driver or a GPU.
    """
    driver = load_driver()
    count, device, name = ctypes.c_int(), ctypes.c_int(), ctypes.create_string_buffer(_NAME_BYTES)
    if driver is None or driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):  # 0 on success
        return ()
    names = []
    for number in range(count.value):
        is_known = not driver.cuDeviceGet(ctypes.byref(device), number)
        is_known = is_known and not driver.cuDeviceGetName(name, _NAME_BYTES, device)
        names.append(name.value.decode(errors="replace") if is_known else "unknown")
    return tuple(names)


def load_driver() -> ctypes.CDLL | None:
    """Load the driver's library.

    Returns:
        The library; None without a driver.
    """
    try:
        return ctypes.CDLL(LIBRARY)
    except OSError:
        return None


def format_remedy(driver: tuple[int, int]) -> str:
    """Say which cuda-python runs on a driver.

    Args:
        driver: The CUDA version of the driver.

    Returns:
        The command that installs cuda-python, or the advice to update a driver that is too old for each of them.
    """
    if driver < (_FIRST_CUDA_PYTHON[0], 0):
        return f"update the driver to one of CUDA {_FIRST_CUDA_PYTHON[0]} or newer"
    major, minor = max(driver, _FIRST_CUDA_PYTHON)
    return f"pip install 'cuda-python=={major}.{minor}.*'"
