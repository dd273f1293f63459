"""Try one engine in a process of its own, because a broken package may end its process without an exception.

python -m glama_deploy.doctor.probe onnxruntime:cuda
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time

import numpy as np

from glama_deploy import catalogue
from glama_deploy.errors import GlamaError
from glama_deploy.frozen import FrozenModel

#: Seconds after which an engine is taken to hang. A machine under load may be a hundred times as slow as a quiet one.
_MAX_SECONDS = 300

#: The largest exit code that a program chooses. Larger ones are Windows's reasons, which it documents in hexadecimal.
_MAX_EXIT_CODE = 255

#: Height and width of the image that is filled.
_SIDE_PIXELS = 64


class EngineReport(FrozenModel):
    """Whether an engine runs here.

    Attributes:
        name: what `glama_deploy.load` takes as `backend`, or the name of a TensorRT engine.
        runs: whether the engine filled an image here. A TensorRT engine is built for each bundle, so its package and
            the GPU are tried alone.
        description: engine, version, device and precision of an engine that runs.
        precisions: the precisions that the engine computes in on this machine.
        devices: the devices that OpenVINO finds, with their names; none of other engines.
        reason: why the engine does not run, with the remedy.
        seconds: seconds from opening the engine to the filled image; None for an engine that does not run.
    """

    name: str
    runs: bool
    description: str = ""
    precisions: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    reason: str = ""
    seconds: float | None = None


def list_engines() -> list[str]:
    """List the names of all engines that can be tried.

    Returns:
        The names, in the catalogue's order: one for each device of ONNX Runtime, and PyTorch at the end.
    """
    names = []
    for record in catalogue.ENGINES.values():
        if record.devices == ("cuda",):
            names.append(record.name)
        else:
            names += [f"{record.backend}:{device}" for device in record.providers] or [record.backend]
    return [*names, "torch"]


def probe_engine(name: str) -> EngineReport:
    """Try an engine in a process of its own.

    Args:
        name: the name, as `list_engines` has it.

    Returns:
        Whether the engine runs, and why not.
    """
    command = [sys.executable, "-m", "glama_deploy.doctor.probe", name]
    # files of the current folder are no modules; the child's Python prints UTF-8, and native libraries anything
    environment = {**os.environ, "PYTHONSAFEPATH": "1", "PYTHONUTF8": "1"}
    try:
        child = subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", timeout=_MAX_SECONDS, env=environment
        )
    except subprocess.TimeoutExpired:
        return EngineReport(name=name, runs=False, reason=f"the engine did not answer within {_MAX_SECONDS} s")
    if child.returncode == 0:
        return EngineReport.model_validate_json(child.stdout.splitlines()[-1])
    if child.returncode < 0:
        end = f"was ended by {signal.Signals(-child.returncode).name}"
    else:  # Windows ends a process that crashes with a code such as 0xc0000005, an access violation
        code = child.returncode
        end = f"ended with exit code {code:#x}" if code > _MAX_EXIT_CODE else f"ended with exit code {code}"
    last = (child.stderr.strip().splitlines() or ["nothing was printed"])[-1]
    reason = f"the process of the engine {end} ({last}); reinstall the engine's package"
    return EngineReport(name=name, runs=False, reason=reason)


def try_engine(name: str) -> EngineReport:
    """Try an engine in this process.

    Args:
        name: the name, as `list_engines` has it.

    Returns:
        Whether the engine runs, and why not.
    """
    record = catalogue.ENGINES.get(name)
    try:
        if record is not None and record.devices == ("cuda",):
            return _try_package(record)
        return _fill_image(name)
    except GlamaError as error:
        return EngineReport(name=name, runs=False, reason=str(error))


def _fill_image(name: str) -> EngineReport:
    """Fill an image with the embedded network."""
    import glama_deploy

    start = time.perf_counter()
    inpainter = glama_deploy.load("default", name, compile_sizes=False)
    mask = np.zeros((_SIDE_PIXELS, _SIDE_PIXELS), bool)
    mask[24:40, 24:40] = True
    inpainter(np.full((_SIDE_PIXELS, _SIDE_PIXELS, 3), 128, np.uint8), mask)
    return EngineReport(
        name=name,
        runs=True,
        description=inpainter.description,
        precisions=inpainter.precisions,
        seconds=round(time.perf_counter() - start, 3),
        devices=_list_devices(name),
    )


def _list_devices(name: str) -> tuple[str, ...]:
    """List the devices that an engine finds, if it is OpenVINO."""
    if name != catalogue.OPENVINO.backend:
        return ()
    from glama_deploy.runtime.openvino.devices import describe_devices

    return describe_devices()


def _try_package(record: catalogue.EngineRecord) -> EngineReport:
    """Import the package of a TensorRT engine, and open the GPU."""
    from glama_deploy.runtime.base import require
    from glama_deploy.runtime.cuda.device import open_device
    from glama_deploy.runtime.tensorrt.package import explain_install

    start = time.perf_counter()
    package = require(record.package, record.title, explain_install(record), "Runtime")
    open_device()
    return EngineReport(
        name=record.name,
        runs=True,
        description=f"{record.title} {package.__version__}, which runs the engines that are built here",
        precisions=tuple(record.precisions),
        seconds=round(time.perf_counter() - start, 3),
    )


if __name__ == "__main__":
    logging.getLogger("glama_deploy").addHandler(logging.NullHandler())
    print(json.dumps(try_engine(sys.argv[1]).model_dump(mode="json")))
