"""Rewrites of ONNX models for providers that lack operators or need fixed shapes. The results stay the same.

WebGPU's provider has no kernel that rounds, and none that moves booleans. A graph of bytes ends in both, so ONNX
Runtime would copy whole images to the CPU and back in the middle of a run. Other operators say the same:

    Round(x) = (x + 2²³) − 2²³                  exact for 0 ≤ x < 2²³ in float32, halves to the even number
    Where(m > ½, a, b) = m·a + (1 − m)·b        exact for m of 0 and 1, and finite a and b

DirectML and CoreML need fixed shapes. The window of a graph of any size is an input, from which such shapes follow.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from glama_deploy.node_names import COMPOSE, WINDOW
from glama_deploy.runtime.onnxruntime.model_file import GraphEditor

#: From this number on, float32 has no digits behind the point.
_WHOLE_NUMBERS = np.array(2**23, np.float32)

_ONE = np.array(1, np.float32)


def fix_window(model: Any) -> None:
    """Make the default window, which is the whole picture, a constant.

    Args:
        model: The message `Model` (:mod:`glama_deploy.runtime.onnxruntime.model_file`), which is changed.
    """
    inputs = model.graph.input
    for place in [place for place, value in enumerate(inputs) if value.name == WINDOW]:
        del inputs[place]


def replace_byte_operators(model: Any) -> int:
    """Replace the operators at the end of a graph of bytes that WebGPU lacks.

    Args:
        model: The message `Model`, which is changed.

    Returns:
        The number of nodes that were replaced.
    """
    editor = GraphEditor(model)
    inputs = {node.name: node.input for node in model.graph.node}
    replaced = 0
    for node in [*model.graph.node]:
        name = node.output[0]
        if name == f"{COMPOSE}/filled" and node.op_type == "Round":
            whole = editor.store("edited/whole_numbers", _WHOLE_NUMBERS)
            editor.add("Sub", [editor.add("Add", [node.input[0], whole], f"{name}/raised"), whole], name)
        elif name == f"{COMPOSE}/composed" and node.op_type == "Where":
            missing, filled, image = node.input
            mask = inputs[missing][0]
            known = editor.add("Sub", [editor.store("edited/one", _ONE), mask], f"{name}/is_known")
            parts = (("Mul", [mask, filled], f"{name}/filled"), ("Mul", [known, image], f"{name}/known"))
            editor.add("Add", [editor.add(*part) for part in parts], name)
        else:
            editor.keep(node)
            continue
        replaced += 1
    editor.finish()
    return replaced
