"""The process's one OpenVINO core."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from glama_deploy.runtime.openvino.package import require_openvino

_first_call_lock = threading.Lock()
_core: list[Any] = []


def core() -> Any:
    """Return the process's one OpenVINO core, which lives as long as the process.

    The core is made under a lock, together with the first conversions between NumPy arrays and OpenVINO tensors.
    OpenVINO's tables of types are C++ function-local statics whose initialisers run Python code. Two threads that enter
    an initialiser at once wait for each other for ever: one holds the static's guard, the other the interpreter.

    The CPU plugin gives the thread that loads it a signal stack, and takes that stack away with the last reference to
    the core (2026.4). If another thread holds the last reference, the first thread is left on unmapped memory. Its next
    signal, a Ctrl-C or the end of a child process, is then a segmentation fault.

    Returns:
        The `openvino.Core`.
    """
    with _first_call_lock:
        if not _core:
            openvino = require_openvino()
            # The tensor of an array reads one table, its `data` the other. Later calls initialise no more such statics.
            _ = openvino.Tensor(np.zeros(1, np.float32), shared_memory=True).data
            _core.append(openvino.Core())
    return _core[0]
