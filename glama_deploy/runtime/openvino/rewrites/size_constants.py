"""A rewrite of OpenVINO models of one size: constants for all values that the size alone decides.

Such values are shapes, and the resampling matrices of a network of two stages. A device that computes in fp16 would
lose their digits, so OpenVINO computes them here, in fp32. Weights stay in the type that they are stored in.
"""

from __future__ import annotations

from typing import Any


def rewrite(model: Any) -> int:
    """Replace nodes that compute with shapes by constants.

    Args:
        model: An `openvino.Model` whose inputs have fixed shapes. The model is changed.

    Returns:
        The number of constants.
    """
    from openvino import opset13
    from openvino.passes import ConstantFolding, Manager

    folded = model.clone()
    passes = Manager()
    passes.register_pass(ConstantFolding())
    passes.run_passes(folded)
    values = {node.get_friendly_name(): node for node in folded.get_ops() if node.get_type_name() == "Constant"}
    decided: set[str] = set()
    count = 0
    for node in model.get_ordered_ops():
        name = node.get_friendly_name()
        sources = {value.get_node().get_friendly_name() for value in node.input_values()}
        if node.get_type_name() != "ShapeOf" and not sources & decided:
            continue
        decided.add(name)
        if name not in values or node.get_output_size() != 1:
            continue
        constant = opset13.constant(values[name].data)
        constant.set_friendly_name(name)
        for reader in node.output(0).get_target_inputs():
            reader.replace_source_output(constant.output(0))
        count += 1
    model.validate_nodes_and_infer_types()
    return count
