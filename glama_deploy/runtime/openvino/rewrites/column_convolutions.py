"""A rewrite of OpenVINO models: the column transforms of the FFT as convolutions.

A column transform is a matrix product with a constant on the left. OpenVINO computes such products in fp32 also where
the model computes in bf16 or fp16, and converts the whole spectrum to fp32 and back. A convolution over the rows is the
same sum and computes in the half type.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from glama_deploy.node_names import is_in_transform


def rewrite(model: Any) -> int:
    """Rewrite the products of Fourier transforms whose left factor is a constant matrix.

    K [n, m] @ y [..., m, w] becomes a convolution from m to n channels, of width 1, over y as [-1, m, w]. Other
    products stay: a network of two stages resamples images with products, and their precision matters.

    Args:
        model: An `openvino.Model` of static shapes, which is changed.

    Returns:
        The number of products that were rewritten.
    """
    from openvino import opset13

    constants, count = _find_left_constants(model), 0
    for node in model.get_ordered_ops():
        matrix = constants.get(node.get_friendly_name())
        if matrix is None or node.get_type_name() != "MatMul":
            continue
        right = node.input_value(1)
        rows, width = list(right.get_shape())[-2:]
        flat = opset13.reshape(right, np.array([-1, rows, width]), special_zero=False)
        product = opset13.convolution(flat, opset13.constant(matrix[:, :, None]), [1], [0], [0], [1])
        shaped = opset13.reshape(product, np.array(list(node.get_output_shape(0))), special_zero=False)
        product.set_friendly_name(node.get_friendly_name())
        for reader in node.output(0).get_target_inputs():
            reader.replace_source_output(shaped.output(0))
        count += 1
    return count


def _find_left_constants(model: Any) -> dict[str, np.ndarray]:
    """Return the constant left factors [n, m] of the transforms' products, by the product's name.

    A graph of any size computes these matrices from its size, which is fixed here, so folding makes them constants.
    """
    from openvino.passes import ConstantFolding, Manager

    folded = model.clone()
    manager = Manager()
    manager.register_pass(ConstantFolding())
    manager.run_passes(folded)
    found = {}
    for node in folded.get_ordered_ops():
        if node.get_type_name() != "MatMul" or any(node.get_attributes()[f"transpose_{side}"] for side in "ab"):
            continue
        if not is_in_transform(node.get_friendly_name()):
            continue
        left, rank = node.input_value(0).get_node(), len(node.get_output_shape(0))
        if left.get_type_name() == "Constant" and left.data.ndim == 2 and rank > 2:
            found[node.get_friendly_name()] = left.data.astype(np.float32)
    return found
