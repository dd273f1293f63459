"""The devices that OpenVINO finds on this machine: their names, what they compute in, and their free memory."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from glama_deploy import catalogue, memory
from glama_deploy.errors import EngineError
from glama_deploy.runtime.base import DeviceKind
from glama_deploy.runtime.devices import Device
from glama_deploy.runtime.openvino.core import core

#: OpenVINO's name of the CPU.
CPU_NAME = "CPU"

#: The kinds of OpenVINO's devices, by the first part of their names.
_KINDS: dict[str, DeviceKind] = {CPU_NAME: "cpu", "GPU": "gpu", "NPU": "npu"}

#: Settings of AUTO. Without the first one it would begin on the CPU and change to another device between two runs.
_AUTO_SETTINGS = {"ENABLE_STARTUP_FALLBACK": False, "PERFORMANCE_HINT": "LATENCY"}


def find_device(device: Device | None) -> str:
    """Find the device that computes.

    AUTO is asked with a small model, once: the engine then stays on the device that AUTO has chosen.

    Args:
        device: the device that the user named; None: the CPU.

    Returns:
        OpenVINO's name of the device, such as `GPU.1`.

    Raises:
        EngineError: OpenVINO does not find the device here, which is most often a missing driver.
    """
    if device is None or device.kind == "cpu":
        return CPU_NAME
    name, there = str(device), core().available_devices
    if device.kind == "auto":
        return _ask_auto(name, there)
    if not any(found == name or found.startswith(f"{name}.") or f"{found}.0" == name for found in there):
        raise EngineError(
            f"`device` is {name}, and OpenVINO finds {catalogue.join_names(there, 'and')} here alone; install the "
            "driver of the device, or give another `device`"
        )
    return name


def _ask_auto(name: str, there: list[str]) -> str:
    """Return the device that AUTO chooses. Raise EngineError where AUTO opens none."""
    from openvino import Model, opset13

    image = opset13.parameter([1, 1, 8, 8], np.float32)
    try:
        compiled = core().compile_model(Model([opset13.relu(image)], [image]), name, _AUTO_SETTINGS)
        chosen = compiled.get_property("EXECUTION_DEVICES")
    except RuntimeError as error:
        raise EngineError(
            f"`device` is {name}, and AUTO can use none of these devices; OpenVINO finds "
            f"{catalogue.join_names(there, 'and')} here"
        ) from error
    return str(chosen[0] if isinstance(chosen, list) else chosen).strip("()")


def read_kind(name: str) -> DeviceKind:
    """Return the kind of a device.

    Args:
        name: OpenVINO's name of the device.

    Returns:
        The kind.
    """
    return _KINDS[name.partition(".")[0]]


def describe_devices() -> tuple[str, ...]:
    """Describe the devices that OpenVINO finds here, for people.

    Returns:
        The name of each device, and its maker's name where OpenVINO knows it.
    """
    return tuple(f"{name} ({_read(name, 'FULL_DEVICE_NAME') or 'unknown'})" for name in core().available_devices)


def read_free_memory(name: str) -> int | None:
    """Read the free memory that a GPU or an NPU can take.

    A GPU reports its memory and what this process holds of it, not what other processes hold. Integrated devices share
    the main memory, so they cannot take more than is free there.

    Args:
        name: OpenVINO's name of the device.

    Returns:
        Bytes; None if the number is not known.
    """
    main = memory.available()
    prefix = read_kind(name).upper()
    total = _read(name, f"{prefix}_DEVICE_TOTAL_MEM_SIZE")
    held = _read(name, "NPU_DEVICE_ALLOC_MEM_SIZE" if prefix == "NPU" else "GPU_MEMORY_STATISTICS")
    if total is None:
        return main
    used = sum(held.values()) if isinstance(held, dict) else held or 0
    free = max(0, int(total) - int(used))
    is_discrete = re.search("discrete", str(_read(name, "DEVICE_TYPE")), re.IGNORECASE) is not None
    return free if is_discrete or main is None else min(free, main)


def _read(name: str, key: str) -> Any:
    """Return a property of a device; None where the device's driver does not have it."""
    try:
        return core().get_property(name, key)
    except RuntimeError:
        return None
