"""A rewrite of OpenVINO models of one size: residual blocks with the channels last.

The rewrite keeps feature maps as [B, P, C], P pixels in an order that suits the convolutions
(:mod:`.pixel_order`). Three kinds of layers gain:

- 3×3 convolutions make a half or a quarter of the multiplications (:mod:`.winograd`). In fp32, where the outputs of two
  convolutions are summed, the sum comes before the products with Aᵀ, which are then computed once.
- The Fourier transforms are products without transpositions or reorders (:mod:`.fourier_units`).
- The 1×1 convolutions of these tensors need no reorders.

Transpositions between [B, C, H, W] and [B, H, W, C] move no data: OpenVINO's convolutions store the channels innermost.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from glama_deploy.node_names import COLUMN, IRFFT, MASK, RFFT, ROW, SPECTRUM
from glama_deploy.runtime.openvino.rewrites import fourier_units, winograd
from glama_deploy.runtime.openvino.rewrites.constants import is_constant, make_floats, make_ints, read_floats
from glama_deploy.runtime.openvino.rewrites.layers import Found, can_add_channels_last, get_key, is_pointwise
from glama_deploy.runtime.openvino.rewrites.pixel_order import PixelOrder, by_columns, by_rows

#: Products of a Fourier unit, there and back, that :mod:`.column_convolutions` would rewrite in a unit that is not
#: rewritten here.
LEFT_PRODUCTS_PER_UNIT = 2

_Size = tuple[int, int]


def rewrite(model: Any, *, half: bool = False, convolutions: bool = True, units: bool = True) -> Found:
    """Rewrite the convolutions that Winograd's method suits, and the Fourier units.

    Args:
        model: An `openvino.Model` of static shapes, which is changed.
        half: Whether the model will compute in a half type.
        convolutions: Whether to rewrite convolutions.
        units: Whether to rewrite Fourier units.

    Returns:
        What was rewritten.
    """
    return _Rewriter(model, half=half, convolutions=convolutions, units=units).run()


@dataclass
class _Value:
    """A tensor of the rewritten model, in one of three forms.

    Attributes:
        tensor: [B, P, C] if `form` is `last`. [B, C, *order.grid] if `form` is `first`: the output of a 1×1
            convolution, which OpenVINO fuses with its bias and ReLU. The output of a convolution with groups if `form`
            is `products`, [B, groups·C, …] or as blocks.
        form: `last`, `first` or `products`.
        order: The order of the pixels.
        channels: C.
        bias: Of the form `products`: what is still to be added, [C].
        name: Of the form `products`: the name of the convolution.
    """

    tensor: Any
    form: str
    order: PixelOrder
    channels: int
    bias: np.ndarray | None = None
    name: str = ""


class _Rewriter:
    """Rewrites the nodes in order.

    Sums and ReLUs of rewritten tensors, and 1×1 convolutions of these, are computed with the channels last too. All
    other readers get [B, C, H, W].
    """

    def __init__(self, model: Any, *, half: bool, convolutions: bool, units: bool) -> None:
        """Prepare a model's rewrite.

        Args:
            model: An `openvino.Model` of static shapes.
            half: Whether the model will compute in a half type.
            convolutions: Whether to rewrite convolutions.
            units: Whether to rewrite Fourier units.
        """
        from openvino import opset13

        self._op, self._model, self._half = opset13, model, half
        self._convolutions = {
            node.get_friendly_name(): list(node.get_output_shape(0))[2:]
            for node in (model.get_ordered_ops() if convolutions else ())
            if winograd.is_suited(node)
        }
        self._units = fourier_units.find_units(model) if units else {}
        sizes = {(height, width) for height, width in self._convolutions.values()}
        self._tilings = {size: winograd.make_tiling(*size, along_both=not half) for size in sizes}
        # by a node's output
        self._values: dict[tuple[str, int], _Value] = {}
        self._transformed_inputs: dict[tuple[str, int], Any] = {}
        # constants that layers share
        self._orders: dict[tuple[str, _Size], PixelOrder] = {}
        self._constants: dict[object, Any] = {}  # those of matrices and indices by `id`; tilings and bases keep them
        self._zero: Any = None

    def run(self) -> Found:
        rewriters: dict[str, Callable[[Any], _Value | None]] = {
            "Convolution": self._rewrite_convolution,
            "MatMul": self._rewrite_unit,
            "Relu": self._rewrite_relu,
            "Add": self._rewrite_sum,
        }
        for node in self._model.get_ordered_ops():
            if (rewriter := rewriters.get(node.get_type_name())) and (value := rewriter(node)):
                self._replace(node, value)
        return Found(tuple(self._convolutions), tuple(unit.name for unit in self._units.values()))

    # ------------------------------------------------------------ layers

    def _rewrite_convolution(self, node: Any) -> _Value | None:
        source = node.input_value(0)
        if node.get_friendly_name() in self._convolutions:
            return self._convolve(node)
        if get_key(source) not in self._values or not is_pointwise(node):
            return None
        kernel = read_floats(node.input_value(1))
        value = self._get(source)
        return self._convolve_pixels(value, kernel[:, :, 0, 0], node.get_friendly_name())

    def _convolve(self, node: Any) -> _Value:
        """Return a 3×3 convolution's products."""
        op, source, kernel = self._op, node.input_value(0).get_node().input_value(0), read_floats(node.input_value(1))
        _, channels, height, width = list(source.get_shape())
        tiling, name = self._tilings[height, width], node.get_friendly_name().removesuffix("/WithoutBiases")
        if (key := get_key(source)) not in self._transformed_inputs:
            blocks = self._gather(self._as_last(self._get(source)), tiling.blocks, name=f"{name}/blocks")
            blocks = self._reshape(blocks, -1, tiling.enter.shape[1], channels)
            values = self._multiply(tiling.enter, blocks, f"{name}/enter")
            values = self._reshape(values, source.get_shape()[0], *tiling.grid, tiling.groups * channels)
            self._transformed_inputs[key] = op.transpose(values, make_ints(0, 3, 1, 2))
        weights = make_floats(tiling.transform_kernel(kernel))
        products = op.group_convolution(self._transformed_inputs[key], weights, [1, 1], [0, 0], [0, 0], [1, 1])
        products.set_friendly_name(f"{name}/products")
        return _Value(products, "products", tiling.order, len(kernel), name=name)

    def _convolve_pixels(self, value: _Value, kernel: np.ndarray, name: str) -> _Value:
        """Return a 1×1 convolution with the weights [O, C]."""
        kernels = make_floats(kernel[:, :, None, None])
        y = self._op.convolution(self._as_first(value), kernels, [1, 1], [0, 0], [0, 0], [1, 1])
        y.set_friendly_name(f"{name}/pixels")
        return _Value(y, "first", value.order, len(kernel))

    def _rewrite_unit(self, node: Any) -> _Value | None:
        """Return the result of the Fourier unit that ends with a node."""
        op, unit = self._op, self._units.get(node.get_friendly_name())
        if unit is None:
            return None
        batch, channels, height, width = list(unit.source.get_shape())
        bases, half = self._get_bases(height, width), width // 2 + 1
        order = self._get_order("columns", (height, width))
        forward, inverse = f"{unit.name}/{RFFT}", f"{unit.name}/{IRFFT}"
        x = self._as_last(self._get(unit.source), order)
        x = self._multiply(bases.rows, self._reshape(x, batch, width, height * channels), f"{forward}/{ROW}")
        x = self._multiply(bases.columns, self._reshape(x, batch, half, 2 * height, channels), f"{forward}/{COLUMN}")
        x = self._reshape(x, batch, half * height, 2 * channels)
        spectrum = _Value(x, "last", self._get_order("rows", (half, height)), 2 * channels)
        spectrum = self._convolve_pixels(spectrum, unit.kernel, f"{unit.name}/{SPECTRUM}")
        y = op.relu(op.add(spectrum.tensor, make_floats(unit.bias[:, None, None])))
        spectrum = _Value(y, "first", spectrum.order, 2 * channels)
        y = self._reshape(self._as_last(spectrum), batch, half, 2 * height, channels)
        y = self._multiply(bases.columns_inverse, y, f"{inverse}/{COLUMN}")
        y = self._multiply(bases.rows_inverse, self._reshape(y, batch, 2 * half, height * channels), f"{inverse}/{ROW}")
        return _Value(self._reshape(y, batch, width * height, channels), "last", order, channels)

    def _rewrite_relu(self, node: Any) -> _Value | None:
        source = node.input_value(0)
        if get_key(source) not in self._values:
            return None
        value = self._get(source)
        form = "first" if value.form == "first" else "last"
        tensor = self._as_first(value) if form == "first" else self._as_last(value)
        return _Value(self._op.relu(tensor), form, value.order, value.channels)

    def _rewrite_sum(self, node: Any) -> _Value | None:
        sources = node.input_values()
        if not any(get_key(source) in self._values for source in sources):
            return None
        total = node.get_output_partial_shape(0)
        if not all(can_add_channels_last(source, total) for source in sources):
            return None
        constants = [read_floats(source).ravel() for source in sources if is_constant(source)]
        values = [self._get(source) for source in sources if not is_constant(source)]
        if constants:
            return self._add_bias(values[0], constants[0])
        return self._add(*values)

    def _add_bias(self, value: _Value, bias: np.ndarray) -> _Value:
        bias = np.broadcast_to(bias, value.channels)
        if value.form == "products":
            total = bias if value.bias is None else value.bias + bias
            return _Value(value.tensor, "products", value.order, value.channels, total, value.name)
        shaped = bias[:, None, None] if value.form == "first" else bias
        return _Value(self._op.add(value.tensor, make_floats(shaped)), value.form, value.order, value.channels)

    def _add(self, one: _Value, other: _Value) -> _Value:
        """Return a sum with the channels last.

        A convolution that OpenVINO fuses with the sum of its output and another tensor is followed by a real
        transposition. So the sum comes behind the transposition, which then moves no data. In a half type, sums of
        products would round once more: of LaMa's output 2.5 % more.
        """
        if one.form == other.form == "products" and one.order is other.order and not self._half:
            biases = [value.bias for value in (one, other) if value.bias is not None]
            total = sum(biases[1:], biases[0]) if biases else None
            products = self._op.add(self._as_blocks(one), self._as_blocks(other))
            products.set_friendly_name(f"{one.name}/sum")
            return _Value(products, "products", one.order, one.channels, total, one.name)
        order = self._get_own_order(one.order.size)
        first, rest = (one, other) if one.form == "first" else (other, one)
        if first.form == "first" and rest.form == "products" and rest.bias is not None:
            first = self._add_bias(first, rest.bias)  # a convolution is fused with its bias
            rest = _Value(rest.tensor, "products", rest.order, rest.channels, None, rest.name)
        tensors = self._as_last(first, order), self._as_last(rest, order)
        return _Value(self._op.add(*tensors), "last", order, one.channels)

    # ------------------------------------------------------------ forms

    def _get(self, source: Any) -> _Value:
        """Return the value of an output of the model, which may be [B, C, H, W]."""
        if (key := get_key(source)) not in self._values:
            batch, channels, height, width = list(source.get_shape())
            last = self._op.transpose(source, make_ints(0, 2, 3, 1))
            last.set_friendly_name(f"{key[0]}/reorder")
            value = _Value(
                self._reshape(last, batch, height * width, channels),
                "last",
                self._get_order("rows", (height, width)),
                channels,
            )
            order = self._get_own_order((height, width))
            self._values[key] = _Value(self._as_last(value, order), "last", order, channels)
        return self._values[key]

    def _as_last(self, value: _Value, order: PixelOrder | None = None) -> Any:
        """Return a tensor [B, P, C] in an order, by default in the value's own."""
        if value.form == "products":
            self._finish(value)
        tensor = value.tensor
        if value.form == "first":
            batch = tensor.get_output_shape(0)[0]
            last = self._op.transpose(tensor, make_ints(0, 2, 3, 1))
            tensor = self._reshape(last, batch, value.order.pixels.size, value.channels)
        if order is None or np.array_equal(order.pixels, value.order.pixels):
            return tensor
        return self._gather(tensor, order.index_from(value.order), key=(order, value.order))

    def _as_first(self, value: _Value) -> Any:
        """Return a tensor [B, C, *grid] in the value's own order."""
        if value.form == "first":
            return value.tensor
        last = self._as_last(value)
        last = self._reshape(last, last.get_output_shape(0)[0], *value.order.grid, value.channels)
        return self._op.transpose(last, make_ints(0, 3, 1, 2))

    def _as_blocks(self, value: _Value) -> Any:
        """Return products as [blocks, values of a block, C]."""
        tensor, shape = value.tensor, value.tensor.get_output_shape(0)
        if len(shape) == 4:
            tensor = self._op.transpose(tensor, make_ints(0, 2, 3, 1))
        return self._reshape(tensor, -1, self._tilings[value.order.size].leave.shape[1], value.channels)

    def _finish(self, value: _Value) -> None:
        """Turn products into the convolution's output."""
        tiling, pixels = self._tilings[value.order.size], value.order.pixels.size
        y = self._multiply(tiling.leave, self._as_blocks(value), f"{value.name}/leave")
        y = self._reshape(y, -1, pixels, value.channels)
        if value.bias is not None:
            y = self._op.add(y, make_floats(value.bias))
        value.tensor, value.form, value.bias = y, "last", None

    def _replace(self, node: Any, value: _Value) -> None:
        """Connect a value to all readers of `node`."""
        op, name = self._op, node.get_friendly_name()
        self._values[name, 0] = value
        batch, channels, height, width = list(node.get_output_shape(0))
        last = self._as_last(_copy(value), self._get_order("rows", (height, width)))
        usual = op.transpose(self._reshape(last, batch, height, width, channels), make_ints(0, 3, 1, 2))
        usual.set_friendly_name(name)
        if value.form != "products":
            value.tensor.set_friendly_name(f"{name}/last")
        for reader in node.output(0).get_target_inputs():
            reader.replace_source_output(usual.output(0))

    # ------------------------------------------------------------ nodes

    def _multiply(self, matrix: np.ndarray, x: Any, name: str) -> Any:
        """Return the product of a constant matrix and x [..., N, C]."""
        if id(matrix) not in self._constants:
            self._constants[id(matrix)] = self._make_left_factor(matrix)
        y = self._op.matmul(self._constants[id(matrix)], x, transpose_a=False, transpose_b=False)
        y.set_friendly_name(name)
        return y

    def _make_left_factor(self, matrix: np.ndarray) -> Any:
        """Return a matrix as the left factor of products.

        OpenVINO computes products with a constant on the left in fp32, and the conversions cost more than the products.
        In a half type the matrix is therefore not a constant: zero times a mask pixel is added to it.
        """
        op, constant = self._op, make_floats(matrix)
        if not self._half:
            return constant
        if self._zero is None:
            mask = op.convert(self._model.input(MASK), "f32")
            flat = op.reshape(mask, make_ints(-1), special_zero=False)
            first = op.gather(flat, op.constant(np.int64(0)), make_ints(0))
            self._zero = op.multiply(first, op.constant(np.float32(0)))
        return op.add(constant, self._zero)

    def _gather(self, x: Any, index: np.ndarray, name: str = "", key: object = None) -> Any:
        """Return the pixels of x [B, P, C] at `index`; `key` identifies the index among those that are used."""
        key = key or id(index)
        if key not in self._constants:
            self._constants[key] = self._op.constant(index)
        y = self._op.gather(x, self._constants[key], make_ints(1))
        if name:
            y.set_friendly_name(name)
        return y

    def _reshape(self, x: Any, *shape: int) -> Any:
        return self._op.reshape(x, make_ints(*shape), special_zero=False)

    def _get_order(self, kind: str, size: _Size) -> PixelOrder:
        if (kind, size) not in self._orders:
            self._orders[kind, size] = (by_rows if kind == "rows" else by_columns)(*size)
        return self._orders[kind, size]

    def _get_own_order(self, size: _Size) -> PixelOrder:
        """Return the order that the convolutions of a size read and write, or else the order by rows."""
        return self._tilings[size].order if size in self._tilings else self._get_order("rows", size)

    def _get_bases(self, height: int, width: int) -> fourier_units.Bases:
        if (key := ("bases", height, width)) not in self._constants:
            self._constants[key] = fourier_units.make_bases(height, width)
        return self._constants[key]


def _copy(value: _Value) -> _Value:
    return _Value(value.tensor, value.form, value.order, value.channels, value.bias, value.name)
