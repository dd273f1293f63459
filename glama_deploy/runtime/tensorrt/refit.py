"""Weights for an engine that was built without weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from glama_deploy.errors import EngineError
from glama_deploy.text.excerpts import MAX_ENGINE_LINE, first_line


def refit(trt: Any, logger: Any, engine: Any, graph: Path, remedy: str) -> None:
    """Put the weights of an ONNX model into an engine.

    Args:
        trt: The module `tensorrt` or `tensorrt_rtx`.
        logger: A logger of that module.
        engine: The deserialized engine, which is changed.
        graph: The ONNX model from which the engine was built.
        remedy: What to do, at the end of error messages.

    Raises:
        EngineError: the engine does not accept weights, or these weights do not fit.
    """
    try:
        refitter = trt.Refitter(engine, logger)
    except TypeError as error:  # the bindings show a null pointer so
        raise EngineError(f"the engine was built without weights and takes none; {remedy}") from error
    parser = trt.OnnxParserRefitter(refitter, logger)
    if not parser.refit_from_file(str(graph)):
        reason = parser.get_error(0).desc() if parser.num_errors else "the log above says why"
        shown = first_line(RuntimeError(reason), MAX_ENGINE_LINE)
        raise EngineError(f"the weights of {graph} do not fit the engine ({shown}); {remedy}")
    if not refitter.refit_cuda_engine():
        missing = refitter.get_missing_weights()
        raise EngineError(f"{graph} lacks {len(missing)} of the engine's weights; {remedy}")
