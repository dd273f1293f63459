"""Fourier units with the channels last: their layers in a model, and their matrices.

A Fourier unit transforms x [B, C, H, W], applies a 1×1 convolution and a ReLU to the spectrum, and transforms back.
With the channels last and the pixels by columns, x is [B, W, (H C)], and no product needs a transposition or a reorder:

    rows:     R [(F 2), W] @ x [W, (H C)]                    → [F, (2 H), C],   F = W//2 + 1
    columns:  K [(H 2), (2 H)] @ [(2 H), C], F times         → [F, H, (2 C)]

The result is the spectrum with the channels last. Its channels are all real parts, then all imaginary parts. The graph
has them in turns, so the convolution's weights get the other order. The inverse takes the same steps backwards.

:mod:`.channels_last` builds the nodes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from glama_deploy.node_names import COLUMN, DEINTERLEAVE, INTERLEAVE, IRFFT, RFFT, ROW
from glama_deploy.runtime.openvino.rewrites.constants import is_constant, read_floats


@dataclass(frozen=True, eq=False)
class FourierUnit:
    """A Fourier unit in a model.

    Attributes:
        name: The unit's name in the graph.
        source: The output that the forward transform reads, [B, C, H, W].
        last: The node that gives the unit's result, [B, C, H, W].
        kernel: The weights of the convolution on the spectrum, float32 [2C, 2C]. The channels are all real parts, then
            all imaginary parts.
        bias: The biases of this convolution, float32 [2C], in the same order.
    """

    name: str
    source: Any
    last: Any
    kernel: np.ndarray
    bias: np.ndarray


@dataclass(frozen=True)
class Bases:
    """The matrices of all products for one size, float64.

    Attributes:
        rows: [(F 2), W].
        columns: [(H 2), (2 H)].
        columns_inverse: [(2 H), (H 2)].
        rows_inverse: [W, (F 2)].
    """

    rows: np.ndarray
    columns: np.ndarray
    columns_inverse: np.ndarray
    rows_inverse: np.ndarray


def make_bases(height: int, width: int) -> Bases:
    """Return the matrices for one size.

    Args:
        height: Height of the feature maps.
        width: Width of the feature maps.

    Returns:
        The matrices.
    """
    half = width // 2 + 1
    across = _make_rotations(width)[:half, :, 0]  # [f, r′, w]: the input is real
    weight = np.where(2 * np.arange(half) % width == 0, 1.0, 2.0)
    down = _make_rotations(height)  # [k, r′, r, h]
    return Bases(
        rows=across.reshape(2 * half, width),
        columns=down.reshape(2 * height, 2 * height),
        columns_inverse=down.transpose(2, 3, 0, 1).reshape(2 * height, 2 * height),
        rows_inverse=(across * weight[:, None, None]).transpose(2, 0, 1).reshape(width, 2 * half),
    )


def _make_rotations(n: int) -> np.ndarray:
    """Return exp(−2πi·j·k/n)/√n as real 2×2 matrices on (re, im): [k, r′, r, j]."""
    angle = 2 * np.pi * (np.outer(np.arange(n), np.arange(n)) % n) / n
    cos, sin = np.cos(angle) / np.sqrt(n), np.sin(angle) / np.sqrt(n)
    return np.stack([np.stack([cos, sin], axis=1), np.stack([-sin, cos], axis=1)], axis=1)


def find_units(model: Any) -> dict[str, FourierUnit]:
    """Find the Fourier units whose transforms are products with one matrix for each side.

    Args:
        model: An `openvino.Model`.

    Returns:
        The units, by the name of the node that gives the unit's result. A unit of which a node is not found is left
        out.
    """
    nodes = {node.get_friendly_name(): node for node in model.get_ordered_ops()}
    starts = [name.removesuffix(f"/{RFFT}/{ROW}") for name in nodes if name.endswith(f"/{RFFT}/{ROW}")]
    units = (_read_unit(name, nodes) for name in starts)
    return {unit.last.get_friendly_name(): unit for unit in units if unit is not None}


def _read_unit(name: str, nodes: dict[str, Any]) -> FourierUnit | None:
    """Return the unit called `name`, or None where one of its nodes is not found."""
    words = (f"{RFFT}/{ROW}", f"{RFFT}/{COLUMN}", f"{IRFFT}/{COLUMN}", f"{IRFFT}/{ROW}")
    found = (nodes.get(f"{name}/{word}") for word in words)
    products = [node for node in found if node is not None and node.get_type_name() == "MatMul"]
    if len(products) != len(words):
        return None
    source, last = products[0].input_value(0), products[-1]
    first, end = (nodes.get(f"{name}/{word}") for word in (f"{RFFT}/{INTERLEAVE}", f"{IRFFT}/{DEINTERLEAVE}"))
    if first is None or end is None:
        return None
    relu = end.input_value(0).get_node()
    total = relu.input_value(0).get_node()
    if (relu.get_type_name(), total.get_type_name()) != ("Relu", "Add") or not is_constant(total.input_value(1)):
        return None
    convolution = total.input_value(0).get_node()
    if convolution.get_type_name() != "Convolution" or not is_constant(convolution.input_value(1)):
        return None
    kernel, bias = read_floats(convolution.input_value(1)), read_floats(total.input_value(1)).ravel()
    channels = source.get_partial_shape()[1].get_length()
    if kernel.shape != (2 * channels, 2 * channels, 1, 1) or bias.size != 2 * channels:
        return None
    if convolution.input_value(0).get_node().get_friendly_name() != first.get_friendly_name():
        return None
    order = np.arange(2 * channels).reshape(channels, 2).T.ravel()  # from (channel, part) to (part, channel)
    return FourierUnit(name, source, last, kernel[order][:, order, 0, 0], bias[order])
