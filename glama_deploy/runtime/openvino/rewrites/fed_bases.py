"""A rewrite of OpenVINO models of any size: the DFT bases become inputs of the model.

A graph of any size computes its bases from the size of the image in each run. In bf16 and fp16 the angles would lose
their digits. As inputs, the bases come from NumPy, which computes them in float64, once for each side.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from glama_deploy.fourier.bases import column_basis, inverse_row_basis, row_basis
from glama_deploy.node_names import COLUMN_BASIS, COLUMN_INVERSE_BASIS, ROW_BASIS, ROW_INVERSE_BASIS

_NAMES = (ROW_BASIS, COLUMN_BASIS, COLUMN_INVERSE_BASIS, ROW_INVERSE_BASIS)

#: Sides whose bases are kept. The bases of a side of 128 (an image of 1024 pixels) take 0.4 MB, those of 1024 take
#: 25 MB.
_MAX_SIDES = 8


#: Bases of a graph of any size. All Fourier units share them.
COUNT = len(_NAMES)


def rewrite(model: Any) -> int:
    """Replace the nodes that compute the bases by inputs with the names of these nodes.

    Args:
        model: An `openvino.Model`, which is changed if it computes all four bases.

    Returns:
        The number of bases that became inputs: `COUNT` or 0. A graph of one size has constants for bases, and a graph
        with DFT nodes has none.
    """
    from openvino import opset13

    nodes = {node.get_friendly_name(): node for node in model.get_ordered_ops()}
    bases = [nodes[name] for name in _NAMES if name in nodes and nodes[name].get_type_name() != "Constant"]
    if len(bases) < COUNT:
        return 0
    inputs = []
    for name, node in zip(_NAMES, bases, strict=True):
        basis = opset13.parameter([-1, -1], np.float32, name=name)
        for reader in node.output(0).get_target_inputs():
            reader.replace_source_output(basis.output(0))
        node.output(0).get_tensor().set_names(set())
        basis.output(0).get_tensor().set_names({name})
        inputs.append(basis)
    model.add_parameters(inputs)
    model.validate_nodes_and_infer_types()
    return COUNT


def fix(model: Any, height: int, width: int) -> None:
    """Replace the inputs that :func:`rewrite` made by the constants of one size.

    Args:
        model: An `openvino.Model`, which is changed.
        height: Height of the feature map that the transforms take.
        width: Width of the feature map.
    """
    from openvino import opset13

    values = compute(height, width)
    for parameter in [node for node in model.get_parameters() if node.get_friendly_name() in values]:
        name = parameter.get_friendly_name()
        basis = opset13.constant(values[name])
        for reader in parameter.output(0).get_target_inputs():
            reader.replace_source_output(basis.output(0))
        model.remove_parameter(parameter)
        basis.set_friendly_name(name)


def compute(height: int, width: int) -> dict[str, np.ndarray]:
    """Compute the bases of one size.

    Args:
        height: Height of the feature map that the transforms take.
        width: Width of the feature map.

    Returns:
        The bases as float32, by the name of their input. The arrays are shared and must not be changed.
    """
    row, row_inverse = _compute_row_bases(width)
    column, column_inverse = _compute_column_bases(height)
    return {
        ROW_BASIS: row,
        COLUMN_BASIS: column,
        COLUMN_INVERSE_BASIS: column_inverse,
        ROW_INVERSE_BASIS: row_inverse,
    }


@lru_cache(_MAX_SIDES)
def _compute_row_bases(width: int) -> tuple[np.ndarray, np.ndarray]:
    return _to_float32(row_basis(width)), _to_float32(inverse_row_basis(width))


@lru_cache(_MAX_SIDES)
def _compute_column_bases(height: int) -> tuple[np.ndarray, np.ndarray]:
    basis = column_basis(height)
    return _to_float32(basis), _to_float32(basis.T)


def _to_float32(basis: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(basis, np.float32)
