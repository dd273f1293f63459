"""Convert ONNX to OpenVINO IR."""

from __future__ import annotations

import shutil

from glama_deploy.bundle import Engine
from glama_deploy.catalogue import OPENVINO
from glama_deploy.engines.base import BuildTask
from glama_deploy.errors import EngineError
from glama_deploy.runtime.base import require
from glama_deploy.runtime.openvino.core import core
from glama_deploy.text.excerpts import MAX_ENGINE_LINE, last_line


def build(task: BuildTask) -> Engine:
    """Write `model.xml` and `model.bin`.

    In fp16, the file stores the weights in float16. The `precision` at load says what the CPU computes in.

    Args:
        task: The engine to build.

    Returns:
        The engine's entry for the manifest.

    Raises:
        EngineError: OpenVINO is not installed, cannot read the model, or cannot write its files.
    """
    openvino = require(OPENVINO.package, OPENVINO.title, "pip install openvino", "Core")
    try:
        model = core().read_model(str(task.graph))
    except RuntimeError as error:
        raise EngineError(f"OpenVINO does not take {task.graph}: {last_line(error, MAX_ENGINE_LINE)}") from error
    path, _ = task.files
    try:
        openvino.save_model(model, str(path), compress_to_fp16=task.precision == "fp16")
    except RuntimeError as error:  # OpenVINO's stream errors do not give a reason
        free = shutil.disk_usage(path.parent).free / 1e6
        raise EngineError(f"OpenVINO could not write its files; {free:.0f} MB are free on that disk") from error
    return task.entry({OPENVINO.package: openvino.__version__})
