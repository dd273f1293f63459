"""The options that choose an engine, its precision, its threads and its device."""

from __future__ import annotations

from typing import Annotated

from glama_deploy.catalogue import join_names, requested_precisions
from glama_deploy.cli.entry import option
from glama_deploy.cli.options.completion import list_backends
from glama_deploy.runtime.base import MAX_THREADS

EngineName = Annotated[str, option("--backend", list_values=list_backends, help="Engine, as glama-inpaint takes it.")]

PrecisionName = Annotated[
    str,
    option("--precision", list_values=requested_precisions, help=f"Precision: {join_names(requested_precisions())}."),
]

ThreadCount = Annotated[
    int | None, option("--threads", help="CPU threads (all cores by default).", min=1, max=MAX_THREADS)
]

DeviceName = Annotated[
    str | None,
    option(
        "--device",
        help="Where the engine computes: cpu; cuda or cuda:N (NVIDIA); GPU, GPU.N, NPU or AUTO (OpenVINO, on Intel's). "
        "GPU is also for the providers of ONNX Runtime that compute on GPUs of any vendor. Without --device the engine "
        "chooses.",
    ),
]
