"""The compute capability of GPUs, by their names. A TensorRT-RTX engine is built for compute capabilities.

The table is NVIDIA's public one, Turing and later (https://developer.nvidia.com/cuda-gpus).
"""

from __future__ import annotations

import ctypes
import difflib
import os
import re

from glama_deploy.errors import GlamaError
from glama_deploy.runtime.cuda.driver import load_driver
from glama_deploy.runtime.devices import check_gpu_index
from glama_deploy.system.gpus import read_names

#: The environment variable by which CUDA shows GPUs to a process: their numbers or UUIDs.
_VISIBLE_VARIABLE = "CUDA_VISIBLE_DEVICES"

_NAMES_BY_CAPABILITY = {
    "7.5": "t4 titan-rtx rtx-2060 rtx-2070 rtx-2080 rtx-2080-ti gtx-1650 gtx-1650-ti gtx-1660 gtx-1660-ti "
    "quadro-rtx-3000 quadro-rtx-4000 quadro-rtx-5000 quadro-rtx-6000 quadro-rtx-8000 t400 t500 t600 t1000 t1200",
    "8.0": "a30 a100 a800",
    "8.6": "a2 a10 a10g a16 a40 rtx-a400 rtx-a500 rtx-a1000 rtx-a2000 rtx-a3000 rtx-a4000 rtx-a4500 rtx-a5000 "
    "rtx-a5500 rtx-a6000 rtx-2050 rtx-3050 rtx-3050-ti rtx-3060 rtx-3060-ti rtx-3070 rtx-3070-ti rtx-3080 rtx-3080-ti "
    "rtx-3090 rtx-3090-ti",
    "8.7": "orin jetson-orin jetson-agx-orin jetson-orin-nx jetson-orin-nano",
    "8.9": "l4 l40 l40s rtx-4050 rtx-4060 rtx-4060-ti rtx-4070 rtx-4070-ti rtx-4080 rtx-4090 rtx-500-ada rtx-1000-ada "
    "rtx-2000-ada rtx-3000-ada rtx-3500-ada rtx-4000-ada rtx-4500-ada rtx-5000-ada rtx-5880-ada rtx-6000-ada",
    "9.0": "h20 h100 h200 h800 gh200",
    "10.0": "b200 gb200",
    "10.3": "b300 gb300",
    "11.0": "thor jetson-thor jetson-t4000 jetson-t5000",
    "12.0": "rtx-5050 rtx-5060 rtx-5060-ti rtx-5070 rtx-5070-ti rtx-5080 rtx-5090 rtx-pro-500-blackwell "
    "rtx-pro-1000-blackwell rtx-pro-2000-blackwell rtx-pro-3000-blackwell rtx-pro-4000-blackwell "
    "rtx-pro-4500-blackwell rtx-pro-5000-blackwell rtx-pro-6000-blackwell",
    "12.1": "gb10 dgx-spark",
}

#: Compute capability by the name of the GPU.
GPUS = {name: capability for capability, names in _NAMES_BY_CAPABILITY.items() for name in names.split()}

#: The compute capabilities that only Jetsons have: Orin and Thor.
JETSON_CAPABILITIES = ("8.7", "11.0")

#: Words of a product name that do not change the compute capability: brands, editions, form factors.
_IGNORED_WORDS = re.compile(
    r"nvidia|geforce|tesla|super|d|laptop|mobile|gpu|nvgpu|max|q|with|design|generation|workstation|server|edition|sff"
    r"|developer|kit|pcie|nvl|sxm\d?|hbm\de?"
)

#: The size of the memory in a product name.
_MEMORY_SIZE = re.compile(r"\b\d+ ?gi?b?\b")

#: The attributes of cuDeviceGetAttribute for the two numbers of the compute capability.
_MAJOR_ATTRIBUTE, _MINOR_ATTRIBUTE = 75, 76


def find_capability(gpu: str) -> str:
    """Find the compute capability of a GPU.

    Args:
        gpu: A name, or a compute capability. `rtx-4090`, `RTX 4090` and `NVIDIA GeForce RTX 4090 Laptop GPU` are the
            same, and so are `a100` and `NVIDIA A100-SXM4-80GB`.

    Returns:
        The compute capability, such as `8.9`.

    Raises:
        GlamaError: The name is not in the table. The message has the nearest names.
    """
    if re.fullmatch(r"\d{1,2}\.\d", gpu):
        return gpu
    words = re.findall(r"[a-z0-9]+", _MEMORY_SIZE.sub(" ", gpu.lower()))
    name = "-".join(word for word in words if not _IGNORED_WORDS.fullmatch(word))
    if name not in GPUS:
        near = difflib.get_close_matches(name, GPUS, n=3, cutoff=0.5)
        found = f"near to it: {', '.join(near)}" if near else "such as rtx-4090 or jetson-orin"
        raise GlamaError(
            f"no GPU is known as {gpu!r} ({found}); `gpus` takes a compute capability such as 8.9, too "
            "(nvidia-smi --query-gpu=compute_cap --format=csv prints it)"
        )
    return GPUS[name]


def split_capability(capability: str) -> tuple[int, int]:
    """Split a compute capability into numbers, for sorting and comparing: `8.9` comes before `12.0`.

    Args:
        capability: The compute capability, such as `8.9`.

    Returns:
        The major and the minor number.
    """
    major, _, minor = capability.partition(".")
    return int(major), int(minor)


def choose_gpu(index: int) -> None:
    """Let this process see one GPU alone, so that engines are built and checked there.

    TensorRT builds on the GPU that is current, and CUDA reads the variable `CUDA_VISIBLE_DEVICES` once. So this
    function is called before all others that use CUDA.

    Args:
        index: The GPU's number among those that the variable names; without the variable, among all.

    Raises:
        EngineError: No GPU has the number.
    """
    visible = os.environ.get(_VISIBLE_VARIABLE)
    # without the driver's library of names, as on a Jetson, CUDA itself says whether the GPU exists
    count = len(read_names()) or index + 1
    there = [str(number) for number in range(count)] if visible is None else visible.split(",")
    check_gpu_index(index, len(there))
    os.environ[_VISIBLE_VARIABLE] = there[index]


def find_local_capability() -> str | None:
    """Find the compute capability of this machine's first GPU.

    The CUDA driver says it. TensorRT needs the driver too, so no Python package of CUDA is needed.

    Returns:
        The compute capability, such as `8.9`; None without a driver or a GPU.
    """
    driver = load_driver()
    if driver is None:
        return None
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    calls = (
        lambda: driver.cuInit(0),
        lambda: driver.cuDeviceGet(ctypes.byref(device), 0),
        lambda: driver.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR_ATTRIBUTE, device),
        lambda: driver.cuDeviceGetAttribute(ctypes.byref(minor), _MINOR_ATTRIBUTE, device),
    )
    if any(call() for call in calls):  # each returns 0 on success
        return None
    return f"{major.value}.{minor.value}"
