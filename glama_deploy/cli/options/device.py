"""The option that chooses the device, for all commands that open engines."""

from __future__ import annotations

from typing import Annotated

from glama_deploy.cli.entry import option

DeviceName = Annotated[
    str | None,
    option(
        "--device",
        help="Where the engine computes: cpu; cuda or cuda:N (NVIDIA); GPU, GPU.N, NPU or AUTO (OpenVINO, on Intel's). "
        "GPU is also for the providers of ONNX Runtime that compute on GPUs of any vendor. Without --device the engine "
        "chooses.",
    ),
]
