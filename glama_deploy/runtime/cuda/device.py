"""The choice of a CUDA package: cuda-python, or pycuda where cuda-python is not installed or does not work."""

from __future__ import annotations

from collections.abc import Callable

from glama_deploy.errors import EngineError
from glama_deploy.runtime.base import installed
from glama_deploy.runtime.cuda.cuda_python import CudaPythonDevice
from glama_deploy.runtime.cuda.driver import NO_DRIVER, has_driver
from glama_deploy.runtime.cuda.interface import Device
from glama_deploy.runtime.cuda.pycuda import PyCudaDevice


def open_device(index: int | None = None) -> Device:
    """Open a GPU through the first package that works.

    Args:
        index: The GPU's number, from 0; None: the current one, which is the first unless a program chose another.

    Returns:
        The GPU with a stream of its own.

    Raises:
        EngineError: neither package is installed, or there is no driver or no such GPU. Where both packages fail on a
            machine with a driver, the message has both reasons.
    """
    packages: tuple[tuple[str, str, Callable[[int | None], Device]], ...] = (
        ("cuda-python", "cuda.bindings.runtime", lambda number: CudaPythonDevice(index=number)),
        ("pycuda", "pycuda.driver", lambda number: PyCudaDevice(index=number)),
    )
    refused: dict[str, EngineError] = {}
    for package, module, open_package in packages:
        if not installed(module):
            continue
        try:
            return open_package(index)
        except EngineError as error:  # for example, a cuda-python that is newer than a Jetson's driver
            refused[package] = error
    if not refused:
        raise EngineError(
            "neither cuda-python nor pycuda is installed; pip install cuda-python "
            "(on JetPack 6: pip install 'cuda-python==12.6.*')"
        )
    if not has_driver():  # CUDA's own text would ask for a newer driver
        raise EngineError(NO_DRIVER)
    if len(refused) == 1:
        raise next(iter(refused.values()))
    raise EngineError("; ".join(f"{package}: {error}" for package, error in refused.items()))
