"""Change the inputs and outputs of an OpenVINO model for a server.

- The output has free sides. OpenVINO computes bounds for the sides of a graph of any size, and the OpenVINO backend of
  Triton refuses a configuration of free sides for bounded ones.
- The output `predicted` is removed, because OpenVINO Model Server sends all outputs.
- OpenVINO Model Server decodes PNG and JPEG files to [N, H, W, C], with the channels in the order BGR. The model takes
  such images, and a mask with a fourth dimension.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from glama_deploy.errors import EngineError
from glama_deploy.node_names import IMAGE, INPAINTED, MASK
from glama_deploy.remote.description import DESCRIPTION, MODEL_INFO, Color, ModelDescription
from glama_deploy.runtime.openvino.core import core
from glama_deploy.text.excerpts import MAX_ENGINE_LINE, last_line

#: The axis of the channels of an image or a mask with four dimensions.
_CHANNEL_AXIS = 3


def write_model(source: Path, target: Path, description: ModelDescription, *, has_mask_channel: bool) -> None:
    """Write an OpenVINO model for a server.

    Args:
        source: The `model.xml` of a bundle with uint8 tensors. Its `model.bin` lies beside it.
        target: The `model.xml` to write. The `model.bin` is written beside it.
        description: What clients read of the model. Its `color` is the order of the channels.
        has_mask_channel: Whether the mask is [N, H, W, 1] instead of [N, H, W].

    Raises:
        EngineError: OpenVINO is not installed, cannot read the model, or cannot write its files.
    """
    try:
        model = core().read_model(str(source))
    except RuntimeError as error:
        raise EngineError(f"OpenVINO does not take {source}: {last_line(error, MAX_ENGINE_LINE)}") from error
    _keep_one_output(model)
    _free_sides(model, description.color)
    if has_mask_channel:
        _add_mask_channel(model)
    model.validate_nodes_and_infer_types()
    model.set_rt_info(description.model_dump_json(), [MODEL_INFO, DESCRIPTION])
    _save(model, target)


def _keep_one_output(model: Any) -> None:
    """Remove all outputs but `inpainted`."""
    for result in list(model.get_results()):
        if INPAINTED not in result.input_value(0).get_names():
            model.remove_result(result)


def _free_sides(model: Any, color: Color) -> None:
    """Give the output the sides of the image, and reverse the channels of image and output for BGR."""
    from openvino import opset13

    image = model.input(IMAGE)
    (result,) = model.get_results()
    source = filled = result.input_value(0)
    if color == "bgr":
        readers = list(image.get_target_inputs())
        rgb = _reverse_channels(image)
        for reader in readers:
            reader.replace_source_output(rgb)
        filled = _reverse_channels(source)
    shaped = opset13.reshape(filled, opset13.shape_of(image), special_zero=False).output(0)
    source.get_tensor().set_names(set())
    shaped.get_tensor().set_names({INPAINTED})
    result.input(0).replace_source_output(shaped)


def _reverse_channels(images: Any) -> Any:
    """Return the output of a node that reverses the channels of [N, H, W, 3]."""
    from openvino import opset13

    return opset13.gather(images, np.array([2, 1, 0]), np.array(_CHANNEL_AXIS)).output(0)


def _add_mask_channel(model: Any) -> None:
    """Give the mask a fourth dimension of length 1."""
    import openvino
    from openvino import opset13

    old = model.input(MASK).get_node()
    readers = list(old.output(0).get_target_inputs())
    shape = openvino.PartialShape([*old.get_partial_shape(), 1])
    mask = opset13.parameter(shape, openvino.Type.u8, name=MASK)
    plain = opset13.squeeze(mask, np.array([_CHANNEL_AXIS])).output(0)
    for reader in readers:
        reader.replace_source_output(plain)
    model.remove_parameter(old)
    mask.output(0).get_tensor().set_names({MASK})
    model.add_parameters([mask])


def _save(model: Any, target: Path) -> None:
    import openvino

    try:
        openvino.save_model(model, str(target), compress_to_fp16=False)  # fp16 weights stay as they are
    except RuntimeError as error:  # OpenVINO's stream errors do not give a reason
        free = shutil.disk_usage(target.parent).free / 1e6
        raise EngineError(f"OpenVINO could not write its files; {free:.0f} MB are free on that disk") from error
