"""The window of an OpenVINO model: an input that says which part of the picture is computed.

A graph of any size has the input with a default (`glama_deploy.export.graph.window`), which OpenVINO reads as a
constant. Here the constant becomes an input again.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from glama_deploy.node_names import WINDOW
from glama_deploy.runtime.base import Window


def open_window(model: Any) -> Window | None:
    """Make the window of a model an input.

    Args:
        model: An `openvino.Model`, which is changed.

    Returns:
        The window that stands for the whole picture; None where the model has no window, and is as before.
    """
    from openvino import opset13

    constants = [node for node in model.get_ops() if node.get_friendly_name() == WINDOW]
    if not constants or constants[0].get_type_name() != "Constant":
        return None
    (constant,) = constants
    parameter = opset13.parameter([4], np.int64, name=WINDOW)
    parameter.output(0).get_tensor().set_names({WINDOW})
    top, left, bottom, right = map(int, constant.data)
    for reader in constant.output(0).get_target_inputs():
        reader.replace_source_output(parameter.output(0))
    model.add_parameters([parameter])
    model.validate_nodes_and_infer_types()
    return top, left, bottom, right
