"""Write the repository of OpenVINO Model Server: `config.json`, and a model folder with the version folder `1`.

The model takes what the server decodes from PNG and JPEG files: `image` uint8 [N, H, W, 3] with the channels in the
order BGR, and `mask` uint8 [N, H, W, 1]. `inpainted` has the layout and order of `image`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from glama_deploy.catalogue import OPENVINO
from glama_deploy.engines.repositories.openvino_model import write_model
from glama_deploy.engines.repositories.served_model import ServedModel
from glama_deploy.node_names import IMAGE, INPAINTED, MASK
from glama_deploy.remote.description import Color

CONFIG = "config.json"


def write_openvino_model(model: ServedModel, color: Color) -> None:
    """Write the files of a model.

    Args:
        model: The model.
        color: The order of the channels of images.

    Raises:
        BundleError: The bundle does not have the engine, or has other tensors than bytes.
        EngineError: OpenVINO is not installed, or cannot write its files.
    """
    engine = model.find_engine(OPENVINO)
    source, _ = model.bundle.files(OPENVINO.name)
    description = model.describe(engine.sizes, engine.precision, color)
    write_model(source, model.version_folder / "model.xml", description, has_mask_channel=True)


def write_config(repository: Path, model: ServedModel) -> None:
    """Write the configuration of the server.

    Args:
        repository: The folder of the repository.
        model: The model.
    """
    streams: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
    if model.instances > 1:
        streams = {"NUM_STREAMS": model.instances}
    config = {
        "name": model.name,
        "base_path": model.name,  # relative to this file
        "target_device": "CPU",
        "layout": dict.fromkeys((IMAGE, MASK, INPAINTED), "NHWC"),
        "model_version_policy": {"latest": {"num_versions": 1}},
        "nireq": model.instances,
        # CPUs that compute bf16 would take it. The parity of the bundle was measured in fp32.
        "plugin_config": {"INFERENCE_PRECISION_HINT": "f32", **streams},
    }
    text = json.dumps({"model_config_list": [{"config": config}]}, indent=2)
    (repository / CONFIG).write_text(f"{text}\n", encoding="utf-8")
