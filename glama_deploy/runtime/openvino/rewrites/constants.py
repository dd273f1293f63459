"""Constants of OpenVINO models: how the rewriters make and read them."""

from __future__ import annotations

from typing import Any

import numpy as np


def make_ints(*values: int) -> Any:
    """Make a constant of int64 values.

    Args:
        *values: The values.

    Returns:
        The constant of OpenVINO, [N].
    """
    from openvino import opset13

    return opset13.constant(np.array(values, np.int64))


def make_floats(values: np.ndarray) -> Any:
    """Make a constant of an array.

    Args:
        values: The array.

    Returns:
        The fp32 constant of OpenVINO, of the array's shape.
    """
    from openvino import opset13

    return opset13.constant(np.ascontiguousarray(values, dtype=np.float32))


def is_constant(value: Any) -> bool:
    """Return whether a value is a floating-point constant, maybe stored in another type or shape.

    Weights in int8 are not constants: they are multiplied by a scale.

    Args:
        value: An output of a node.

    Returns:
        True for a constant.
    """
    return _find_constant(value) is not None


def read_floats(value: Any) -> np.ndarray:
    """Return the values of a floating-point constant in fp32, in the shape of `value`.

    Args:
        value: An output for which :func:`is_constant` holds.

    Returns:
        The values, float32.
    """
    return _find_constant(value).get_data(dtype=np.float32).reshape(list(value.get_shape()))


def read_ints(value: Any) -> list[int]:
    """Return the values of an integer constant.

    Args:
        value: An output of a node.

    Returns:
        The values, or an empty list where `value` is not a constant.
    """
    node = value.get_node()
    return [int(v) for v in node.data] if node.get_type_name() == "Constant" else []


def _find_constant(value: Any) -> Any:
    """Return the constant node behind conversions and reshapes, or None."""
    node = value.get_node()
    while node.get_type_name() in ("Convert", "Reshape"):
        node = node.input_value(0).get_node()
    return node if node.get_type_name() == "Constant" and node.get_element_type().is_real() else None
