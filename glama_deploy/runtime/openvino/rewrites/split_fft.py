"""A rewrite of OpenVINO models: Fourier transforms in split form, at sizes where that form is cheaper.

A graph of any size has its transforms as products with one matrix a side, whose work for each element grows with the
side. The split form (:mod:`glama_deploy.fourier.split`) needs a fixed size.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from glama_deploy.fourier import split
from glama_deploy.node_names import DEINTERLEAVE, INTERLEAVE, INVERSE_SUFFIX, IRFFT, RFFT, ROW


def rewrite(model: Any) -> int:
    """Rewrite the Fourier units for which the split form is cheaper.

    Args:
        model: An `openvino.Model` of static shapes, which is changed.

    Returns:
        The number of Fourier units that were rewritten. A unit of which a node is not found stays as it is.
    """
    nodes = {node.get_friendly_name(): node for node in model.get_ordered_ops()}
    bases: dict[tuple[int, int], dict[str, Any]] = {}
    count = 0
    for name, row in nodes.items():
        if not name.endswith(f"/{RFFT}/{ROW}") or row.get_type_name() != "MatMul":
            continue
        unit, x = name.removesuffix(f"/{RFFT}/{ROW}"), row.input_value(0)
        forward, inverse = f"{unit}/{RFFT}/", f"{unit}/{IRFFT}/"
        _, channels, height, width = list(x.get_shape())
        last, first, back = (
            nodes.get(end) for end in (f"{forward}{INTERLEAVE}", f"{inverse}{DEINTERLEAVE}", f"{inverse}{ROW}")
        )
        if last is None or first is None or back is None or not split.is_cheaper(height, width):
            continue
        if (height, width) not in bases:
            bases[height, width] = _make_bases(height, width)
        size, z = (height, width), first.input_value(0)
        _replace_node(last, x, split.list_forward_steps(size, channels), bases[size], forward)
        _update_shapes(z, back_to=last.get_friendly_name())
        _replace_node(back, z, split.list_inverse_steps(size, channels), bases[size], inverse)
        count += 1
    if count:
        model.validate_nodes_and_infer_types()
    return count


def _make_bases(height: int, width: int) -> dict[str, Any]:
    """Return the bases of a (height, width) as fp32 constants of OpenVINO, by name."""
    from openvino import opset13

    bases = split.compute_bases(height, width)
    return {name: opset13.constant(np.ascontiguousarray(basis, np.float32)) for name, basis in bases.items()}


def _replace_node(node: Any, x: Any, steps: Iterable[split.Step], bases: dict[str, Any], prefix: str) -> None:
    """Compute the steps from the value `x` and connect the result to all readers of `node`."""
    from openvino import opset13

    readers = node.output(0).get_target_inputs()
    for step in steps:
        if step.kind == "product":
            x = opset13.matmul(bases[step.name], x, transpose_a=False, transpose_b=False)
        elif step.kind == "reshape":
            x = opset13.reshape(x, np.array(step.shape, np.int64), special_zero=False)
        else:
            x = opset13.transpose(x, np.array(step.shape, np.int64))
        x.set_friendly_name(f"{prefix}{step.name.removesuffix(INVERSE_SUFFIX)}")
    for reader in readers:
        reader.replace_source_output(x.output(0))


def _update_shapes(value: Any, back_to: str) -> None:
    """Infer the shapes again between the node called `back_to` and `value`: the split spectrum has more columns."""
    node, behind = value.get_node(), []
    while node.get_friendly_name() != back_to:
        behind.append(node)
        node = node.input_value(0).get_node()
    for node in reversed(behind):
        node.validate_and_infer_types()
