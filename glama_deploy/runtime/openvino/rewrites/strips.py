"""A rewrite of OpenVINO models of one size: layers of full resolution in horizontal strips.

The feature maps of the first and the last layers are the largest ones of a network: 1 GB for each layer of LaMa at
2048×2048. These layers are local, so they can compute one strip after the other. Each strip uses the memory of the
strip before. The strips read a few rows more than they give, so some rows are computed twice.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import reduce
from itertools import pairwise
from typing import Any

import numpy as np

from glama_deploy.network import NetworkConfig
from glama_deploy.node_names import DOWN, GLOBAL, LOCAL, WINDOW, get_encoder_map
from glama_deploy.runtime.openvino.rewrites.constants import is_constant, make_floats, make_ints, read_floats, read_ints

#: Pixels of the image in a strip. Feature maps of LaMa take 128 MB for so many pixels.
PIXELS_PER_STRIP = 512 * 1024

#: Axis of the rows of a feature map [B, C, H, W].
_ROWS = 2


def count_strips(pixels: int) -> int:
    """Return the number of strips in which the layers of full resolution are computed.

    Args:
        pixels: Pixels of all images of a batch.

    Returns:
        The number; 1 means that there are no strips.
    """
    return -(-pixels // PIXELS_PER_STRIP)


def split_encoder(model: Any, count: int, network: NetworkConfig) -> int:
    """Compute the layers before the blocks in strips.

    Args:
        model: An `openvino.Model` of static shapes, which is changed.
        count: The number of strips.
        network: The network.

    Returns:
        The number of feature maps that are put together from strips. Layers between others than convolutions, borders,
        biases and ReLUs are computed whole.
    """
    from openvino import opset13

    nodes = {node.get_friendly_name(): node for node in model.get_ordered_ops()}
    ends = [nodes[name] for name in _list_encoder_ends(network) if name in nodes]
    if not ends:
        return 0
    readers = [end.output(0).get_target_inputs() for end in ends]
    rows = [end.get_output_shape(0)[_ROWS] for end in ends]
    strips = [_Strip(*bounds) for bounds in _divide(rows[0], count)]
    parts = [
        [strip.compute(end.output(0), *strip.scale(each // rows[0])) for end, each in zip(ends, rows, strict=True)]
        for strip in strips
    ]
    for number, end in enumerate(ends):
        whole = opset13.concat([strip[number] for strip in parts], _ROWS)
        whole.set_friendly_name(f"{end.get_friendly_name()}/whole")
        for reader in readers[number]:
            reader.replace_source_output(whole.output(0))
    return len(ends)


def _list_encoder_ends(network: NetworkConfig) -> list[str]:
    """Return the names of the encoder's maps that layers behind the encoder read, those of the fewest rows first."""
    names = [f"{DOWN}{network.n_downsampling - 1}/{half}" for half in (LOCAL, GLOBAL)]
    if network.fine_blocks:
        names += [get_encoder_map(level) for level in reversed(range(network.n_downsampling))]
    return names


def _divide(rows: int, count: int) -> list[tuple[int, int]]:
    """Divide rows into strips: the first row of each, and the row behind the last."""
    ends = np.linspace(0, rows, min(count, rows) + 1).round().astype(int).tolist()
    return list(pairwise(ends))


@dataclass
class _Strip:
    """The rows of feature maps that one strip consists of.

    Attributes:
        first: The first row of the strip.
        behind: The row behind the last one.
    """

    first: int
    behind: int
    _known: dict[tuple[str, int, int], Any] = field(default_factory=dict)

    def scale(self, factor: int) -> tuple[int, int]:
        """Return the strip's bounds in a map of more rows.

        Args:
            factor: Rows of the map for each row of the strip.

        Returns:
            The first row, and the row behind the last one.
        """
        return self.first * factor, self.behind * factor

    def compute(self, value: Any, first: int, behind: int) -> Any:
        """Return rows of a value, computed from the rows of its sources that they depend on.

        Args:
            value: An output of a node, [B, C, H, W].
            first: The first row.
            behind: The row behind the last one.

        Returns:
            [B, C, behind - first, W].
        """
        from openvino import opset13

        name = value.get_node().get_name()
        for (other, top, bottom), made in self._known.items():
            if other == name and top <= first and behind <= bottom:
                if (top, bottom) == (first, behind):
                    return made
                cut = (make_ints(number) for number in (first - top, behind - top, 1, _ROWS))
                return opset13.slice(made, *cut).output(0)
        made = self._known[name, first, behind] = self._compute(value, first, behind)
        return made

    def _compute(self, value: Any, first: int, behind: int) -> Any:
        from openvino import opset13

        node = value.get_node()
        kind = node.get_type_name()
        if kind == "Relu":
            made = opset13.relu(self.compute(node.input_value(0), first, behind))
        elif kind == "Add" and _is_bias(node.input_value(1)):  # the bias's shape comes from the whole feature map
            bias = make_floats(read_floats(node.input_value(1)))
            made = opset13.add(self.compute(node.input_value(0), first, behind), bias)
        elif kind == "Convolution" and _is_plain(attributes := node.get_attributes()):
            kernel, strides = node.input_value(1), attributes["strides"]
            read = first * strides[0], (behind - 1) * strides[0] + kernel.get_shape()[_ROWS]
            made = opset13.convolution(
                self.compute(node.input_value(0), *read), kernel, strides, [0, 0], [0, 0], [1, 1]
            )
        elif kind == "Pad" and node.get_attributes()["pad_mode"] == "reflect":
            (top, left), (_, right) = (read_ints(node.input_value(side))[_ROWS:] for side in (1, 2))
            source = node.input_value(0)
            rows = source.get_shape()[_ROWS]
            inner = self.compute(source, max(first - top, 0), min(behind - top, rows))
            begins, ends = [0, 0, max(top - first, 0), left], [0, 0, max(behind - top - rows, 0), right]
            made = opset13.pad(inner, make_ints(*begins), make_ints(*ends), "reflect")
        else:
            made = opset13.slice(value, make_ints(first), make_ints(behind), make_ints(1), make_ints(_ROWS))
        made.set_friendly_name(f"{node.get_friendly_name()}/rows_{first}_{behind}")
        return made.output(0)


def _is_plain(convolution: dict[str, Any]) -> bool:
    """Return whether a convolution with these attributes has neither borders nor dilations of its own."""
    return convolution["pads_begin"] == convolution["pads_end"] == [0, 0] and convolution["dilations"] == [1, 1]


def _is_bias(value: Any) -> bool:
    """Return whether a value is a constant for each channel."""
    return is_constant(value) and value.get_partial_shape().is_static and list(value.get_shape())[_ROWS:] == [1, 1]


def split_decoder(model: Any, count: int, height: int, network: NetworkConfig, axis: int = _ROWS) -> int:
    """Compute all that depends on the window in strips. Each strip has a smaller window.

    Args:
        model: An `openvino.Model` with the input `window`, which is changed.
        count: The number of strips.
        height: Height of the image in pixels, a multiple of the network's reduction.
        network: The network.
        axis: Axis of the rows of the outputs.

    Returns:
        The number of outputs that are put together from strips.
    """
    from openvino import opset13

    window, reduction = _find_window(model), network.reduction
    # the values behind the last block that a strip needs beside its own rows (glama_deploy.inpainting.windows)
    rows_above = -(-network.decoder_reach // reduction) * reduction
    rows_below = (-(-(network.decoder_reach - 1) // reduction) + 1) * reduction
    top, left, bottom, right = opset13.split(window, opset13.constant(0, np.int64), 4).outputs()
    bottom = opset13.minimum(bottom, make_ints(height))
    step = _round_up(_divide_up(opset13.subtract(bottom, top), count), reduction)
    results = [(result, result.input_value(0)) for result in model.get_results()]
    done: list[Any] = []
    for _ in range(count):
        first = opset13.add(top, _count_rows(done, axis, reduction)) if done else top
        behind = opset13.minimum(opset13.add(first, step), bottom)
        above = opset13.maximum(opset13.subtract(first, make_ints(rows_above)), top)
        below = opset13.minimum(opset13.add(behind, make_ints(rows_below)), bottom)
        strip = _copy_with_window(model, opset13.concat([above, left, below, right], 0))
        cut = opset13.subtract(first, above), opset13.subtract(behind, above), make_ints(1), make_ints(axis)
        own = [opset13.slice(value, *cut) for value in strip]
        done = [opset13.concat(pair, axis) for pair in zip(done, own, strict=True)] if done else own
    for (result, value), whole in zip(results, done, strict=True):
        whole.set_friendly_name(f"{value.get_node().get_friendly_name()}/whole")
        names = value.get_names()
        value.get_tensor().set_names(set())
        result.input(0).replace_source_output(whole.output(0))
        whole.output(0).get_tensor().set_names(names)
    model.validate_nodes_and_infer_types()
    return len(results)


def _count_rows(done: list[Any], axis: int, reduction: int) -> Any:
    """Return the rows that are done, a multiple of `reduction`.

    The next strip begins there. So OpenVINO finishes all outputs of a strip before the next strip, which then uses the
    memory of the strip before.
    """
    from openvino import opset13

    rows = [opset13.gather(opset13.shape_of(one), make_ints(axis), opset13.constant(0, np.int64)) for one in done]
    return _round_up(reduce(opset13.maximum, rows), reduction)


def _round_up(value: Any, unit: int) -> Any:
    """Return the next multiple of `unit`."""
    from openvino import opset13

    return opset13.multiply(_divide_up(value, unit), make_ints(unit))


def _divide_up(value: Any, divisor: int) -> Any:
    """Return a quotient of whole numbers, rounded up."""
    from openvino import opset13

    return opset13.divide(opset13.add(value, make_ints(divisor - 1)), make_ints(divisor))


def _find_window(model: Any) -> Any:
    """Return the input `window` of a model."""
    return next(node for node in model.get_parameters() if node.get_friendly_name() == WINDOW)


def _copy_with_window(model: Any, window: Any) -> list[Any]:
    """Return the outputs of a copy of all that depends on the window, with another window in its place.

    Args:
        model: An `openvino.Model`, which is not changed.
        window: A node, whose output replaces the input `window` of the copy.

    Returns:
        The values of the model's results, in their order.
    """
    copy = model.clone()
    copies = {node.get_friendly_name(): node for node in copy.get_ordered_ops()}
    dependent = {WINDOW}
    for node in model.get_ordered_ops():
        names = [value.get_node().get_friendly_name() for value in node.input_values()]
        if dependent.isdisjoint(names):
            continue
        dependent.add(node.get_friendly_name())
        for name, value, port in zip(
            names, node.input_values(), copies[node.get_friendly_name()].inputs(), strict=True
        ):
            if _is_bias(value):  # OpenVINO adds a bias in the convolution where no other layer reads the bias
                port.replace_source_output(make_floats(read_floats(value)).output(0))
            elif name == WINDOW:
                port.replace_source_output(window.output(0))
            elif name not in dependent:
                port.replace_source_output(value)
    return [result.input_value(0) for result in copy.get_results()]
