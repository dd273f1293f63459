"""ONNX to the toy engine's file, which is the model backwards."""

from __future__ import annotations

import onnxruntime

from glama_deploy.bundle import Engine
from glama_deploy.engines.base import BuildTask


def build(task: BuildTask) -> Engine:
    (file,) = task.files
    file.write_bytes(task.graph.read_bytes()[::-1])
    return task.entry({"onnxruntime": onnxruntime.__version__})
