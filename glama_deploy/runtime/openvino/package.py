"""Import OpenVINO without its converter for models of other frameworks, which takes half of the import's time.

`import openvino` imports the package `openvino.tools.ovc` for one name, `convert_model`, and continues where that
import fails. The runner needs no converter. A program that uses OpenVINO beside this package finds
`openvino.convert_model` and `openvino.tools` as before: their first use imports them.
"""

from __future__ import annotations

import importlib
import sys
import threading
from types import ModuleType
from typing import Any

from glama_deploy.runtime.base import require

_CONVERTER = "openvino.tools.ovc"
_lock = threading.Lock()


def require_openvino() -> ModuleType:
    """Import OpenVINO, without its converter where this is the first import of OpenVINO.

    Returns:
        The module `openvino`.

    Raises:
        EngineError: OpenVINO is not installed, or fails when it is imported.
    """
    with _lock:
        is_first = not {"openvino", _CONVERTER} & set(sys.modules)
        if is_first:
            sys.modules[_CONVERTER] = None  # type: ignore[assignment]  # documented: an import of this name fails
        try:
            package = require("openvino", "OpenVINO", "pip install openvino", "Core")
        finally:
            if is_first:
                del sys.modules[_CONVERTER]
        if is_first and not hasattr(package, "convert_model"):
            package.__getattr__ = _import_converter  # type: ignore[method-assign]  # PEP 562
        return package


def _import_converter(name: str) -> Any:
    """Import the converter for the two attributes of `openvino` that come from this import.

    Raises:
        AttributeError: `openvino` does not have the attribute.
    """
    if name not in ("convert_model", "tools"):
        raise AttributeError(f"module 'openvino' has no attribute {name!r}")
    converter = importlib.import_module(_CONVERTER)  # which makes `tools` an attribute of `openvino`
    return converter.convert_model if name == "convert_model" else sys.modules["openvino.tools"]
