"""Keep other packages from reporting their use over the network."""

from __future__ import annotations

import os
import sys


def opt_out_of_telemetry() -> None:
    """Turn off the telemetry of ONNX Runtime, OpenVINO, NNCF, huggingface_hub and Ray, before any of them is imported.

    ONNX Runtime and huggingface_hub read an environment variable when they are imported, and Ray when a cluster starts.
    Child processes inherit the variables. OpenVINO and NNCF have no such variable. They report through the package
    `openvino_telemetry`, and run without the package if its import fails. The import of a module fails if the module's
    entry in `sys.modules` is None. A variable that the user has set, and a package that the program has already
    imported, are not changed.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None is documented, not typed
