"""ONNX to OpenVINO IR."""

from __future__ import annotations

import shutil
from pathlib import Path

from glama_deploy.errors import EngineError
from glama_deploy.runtime.base import require
from glama_deploy.runtime.openvino.runner import core
from glama_deploy.text.excerpts import MAX_ENGINE_LINE, last_line


def build(onnx: Path, folder: Path, *, fp16_weights: bool) -> tuple[list[Path], dict[str, str]]:
    """Write `model.xml` and `model.bin` into `folder` (made here); give the files and the versions that made them.

    Weights are float32, or float16 with `fp16_weights` (the CPU still computes in what `precision` says at load).
    Raises EngineError where OpenVINO is not installed or does not take the model.
    """
    openvino = require("openvino", "OpenVINO", "pip install openvino", "Core")
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / "model.xml", folder / "model.bin"]
    try:
        model = core().read_model(str(onnx))
    except RuntimeError as error:
        raise EngineError(f"OpenVINO does not take {onnx}: {last_line(error, MAX_ENGINE_LINE)}") from error
    try:
        openvino.save_model(model, str(files[0]), compress_to_fp16=fp16_weights)
    except RuntimeError as error:  # its stream errors do not say why
        free = shutil.disk_usage(folder).free / 1e6
        raise EngineError(f"OpenVINO could not write its files; {free:.0f} MB are free on that disk") from error
    return files, {"openvino": openvino.__version__}
