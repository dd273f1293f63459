"""A rewrite of OpenVINO models of any size: residual blocks as products of matrices with the channels last.

Feature maps are matrices [P, C] of P pixels of all images. All layers of the blocks become products of matrices, sums,
and the collection of rows:

- 3×3 convolutions make a quarter of the multiplications (:mod:`.winograd`).
- 1×1 convolutions are products with the weights [C, O].
- The Fourier transforms are products without transpositions (:mod:`.fourier_units`).

A convolution in OpenVINO wants its pixels in another order in memory than a product does, and transpositions between
the two move data where shapes are not fixed. Therefore no convolution is left in the blocks.

The model's inputs tell all that depends on the size: which pixels lie in which tile, the bases of the transforms, and
sides. :func:`compute_inputs` computes them.

The kernels G g Gᵀ of Winograd's method have four times the values of the weights. Each run computes them anew, layer by
layer. This takes 2 % of the time at 552×552, and less than reading and packing as many stored values in the first run.

The pixels lie in the order of their places in tiles: by place (row, column) in the tile, by image, by tile. The values
of one place of all tiles are then one matrix, and so are those of one of the 36 products.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from glama_deploy.node_names import COLUMN, IRFFT, RFFT, ROW, SPECTRUM
from glama_deploy.runtime.openvino.rewrites import fourier_units, winograd
from glama_deploy.runtime.openvino.rewrites.constants import is_constant, make_floats, make_ints, read_floats
from glama_deploy.runtime.openvino.rewrites.layers import Found, can_add_channels_last, get_key, is_pointwise
from glama_deploy.runtime.winograd_matrices import OUTPUTS_PER_TILE, VALUES_PER_TILE, make_matrices

#: Places of a tile's outputs, products of a tile, and weights of a kernel.
_PLACES, _PRODUCTS, _TAPS = OUTPUTS_PER_TILE**2, VALUES_PER_TILE**2, 9

#: Inputs with positions, int32: the pixels that products read, and how to come from one order of pixels to another.
_READ, _ROWS_TO_TILES, _TILES_TO_ROWS = "tiles/read", "tiles/from_rows", "tiles/to_rows"
_TILES_TO_COLUMNS, _COLUMNS_TO_TILES = "tiles/to_columns", "tiles/from_columns"

#: Inputs with the first sides of shapes, int64. The last side is -1.
_SIDES = "sides/"
_IMAGE_SIDES, _COLUMN_SIDES, _KERNEL_SIDES = f"{_SIDES}image", f"{_SIDES}columns", f"{_SIDES}kernel"
_SPECTRUM_SIDES, _HALF_SIDES = f"{_SIDES}spectrum", f"{_SIDES}half"

#: Inputs with matrices, float32.
_ROWS, _COLUMNS = "bases/rows", "bases/columns"
_ROWS_INVERSE, _COLUMNS_INVERSE = "bases/rows_inverse", "bases/columns_inverse"
_KERNEL_TRANSFORM = "kernel_transform"

#: The least height and width of feature maps.
_LEAST_SIZE = (2, 2)

#: Sizes whose inputs are kept. Those of an image of 1024×1024 pixels take 1 MB.
_MAX_SIZES = 8


def rewrite(model: Any) -> Found:
    """Rewrite the convolutions that Winograd's method suits, the Fourier units, and the layers between.

    Args:
        model: An `openvino.Model` of any size that will compute in fp32, which is changed. All of its Fourier units and
            these convolutions read feature maps of one size. Inputs that no node reads any more are removed.

    Returns:
        What was rewritten.
    """
    return _Rewriter(model).run()


@lru_cache(_MAX_SIZES)
def compute_inputs(batch: int, height: int, width: int) -> dict[str, np.ndarray]:
    """Compute the inputs that :func:`rewrite` adds.

    Args:
        batch: Number of images.
        height: Height of the feature maps.
        width: Width of the feature maps.

    Returns:
        The values by the input's name. The arrays are shared and must not be changed.
    """
    tiling, half = winograd.make_tiling(height, width, along_both=True), width // 2 + 1
    tiles, pixels = len(tiling.blocks) // _PRODUCTS, height * width
    images = np.arange(batch)[:, None]

    def by_place(positions: np.ndarray) -> np.ndarray:  # of one image by tiles, [N], to [batch, N]
        tile, place = np.divmod(positions, _PLACES)
        return np.asarray((place * batch + images) * tiles + tile)

    def in_tiles(values: np.ndarray, per_tile: int) -> np.ndarray:  # [batch, tiles · N] to [N · batch · tiles]
        return values.reshape(batch, tiles, per_tile).transpose(2, 0, 1).ravel()

    columns = np.arange(pixels).reshape(width, height).T.ravel()  # the place of each pixel in the order by columns
    rows = by_place(tiling.order.positions)
    positions = {
        _READ: in_tiles(by_place(tiling.blocks), _PRODUCTS),
        _ROWS_TO_TILES: in_tiles(tiling.order.pixels + images * pixels, _PLACES),
        _TILES_TO_ROWS: rows.ravel(),
        _TILES_TO_COLUMNS: rows.reshape(batch, height, width).swapaxes(1, 2).ravel(),
        _COLUMNS_TO_TILES: in_tiles(columns[tiling.order.pixels] + images * pixels, _PLACES),
    }
    sides = {
        _IMAGE_SIDES: (batch, height, -1),
        _COLUMN_SIDES: (batch, width, -1),
        _SPECTRUM_SIDES: (batch, half, -1),
        _HALF_SIDES: (batch, 2 * half, -1),
        _KERNEL_SIDES: (_TAPS, -1),
    }
    bases = fourier_units.make_bases(height, width)
    matrices = {
        _ROWS: bases.rows,
        _COLUMNS: bases.columns,
        _COLUMNS_INVERSE: bases.columns_inverse,
        _ROWS_INVERSE: bases.rows_inverse,
        _KERNEL_TRANSFORM: tiling.kernel_transform,
    }
    return {
        **{name: value.astype(np.int32) for name, value in positions.items()},
        **{name: np.array(value, np.int64) for name, value in sides.items()},
        **{name: np.ascontiguousarray(value, np.float32) for name, value in matrices.items()},
    }


@dataclass(frozen=True)
class _Value:
    """A tensor of the rewritten model.

    Attributes:
        tensor: [P, C] pixels, or [36, B·tiles, C] products.
        channels: C.
        is_products: Whether the tensor has products.
        bias: Of products: what is still to be added to the pixels, [C].
        name: Of products: the name of the convolution.
    """

    tensor: Any
    channels: int
    is_products: bool = False
    bias: np.ndarray | None = None
    name: str = ""


class _Rewriter:
    """Rewrites the nodes in order.

    Sums and ReLUs of rewritten tensors, and 1×1 convolutions of these, are rewritten too. All other readers get
    [B, C, H, W].
    """

    def __init__(self, model: Any) -> None:
        """Prepare a model's rewrite.

        Args:
            model: An `openvino.Model`.
        """
        from openvino import opset13

        self._op, self._model = opset13, model
        self._convolutions = [node.get_friendly_name() for node in model.get_ordered_ops() if winograd.is_suited(node)]
        self._units = fourier_units.find_units(model)
        self._values: dict[tuple[str, int], _Value] = {}
        self._transformed_inputs: dict[tuple[str, int], Any] = {}
        self._inputs: dict[str, Any] = {}
        self._constants: dict[str, Any] = {}

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
        # nodes that were replaced still read inputs, but are no part of the model
        read = {get_key(value) for node in self._model.get_ordered_ops() for value in node.input_values()}
        for parameter in self._model.get_parameters():
            if get_key(parameter.output(0)) not in read:
                self._model.remove_parameter(parameter)
        self._model.add_parameters(list(self._inputs.values()))
        self._model.validate_nodes_and_infer_types()
        return Found(tuple(self._convolutions), tuple(unit.name for unit in self._units.values()))

    # ------------------------------------------------------------ layers

    def _rewrite_convolution(self, node: Any) -> _Value | None:
        if node.get_friendly_name() in self._convolutions:
            return self._convolve(node)
        source = node.input_value(0)
        if get_key(source) not in self._values or not is_pointwise(node):
            return None
        kernel, name = read_floats(node.input_value(1))[:, :, 0, 0], node.get_friendly_name()
        return _Value(self._weigh(self._get(source).tensor, kernel, f"{name}/pixels"), len(kernel))

    def _convolve(self, node: Any) -> _Value:
        """Return a 3×3 convolution's products."""
        source, kernel = node.input_value(0).get_node().input_value(0), read_floats(node.input_value(1))
        name, (outputs, channels) = node.get_friendly_name().removesuffix("/WithoutBiases"), kernel.shape[:2]
        if (key := get_key(source)) not in self._transformed_inputs:
            read = self._reshape(self._gather(self._get(source).tensor, _READ, f"{name}/read"), _PRODUCTS, -1)
            values = self._multiply(self._get_matrix("enter", make_matrices()[2]), read, f"{name}/enter")
            self._transformed_inputs[key] = self._reshape(values, _PRODUCTS, -1, channels)
        # the sides are an input, so that OpenVINO cannot compute the kernels beforehand
        taps = make_floats(kernel.transpose(2, 3, 1, 0).reshape(_TAPS, channels * outputs))
        taps = self._op.reshape(taps, self._get_input(_KERNEL_SIDES), special_zero=False)
        kernels = self._multiply(self._get_input(_KERNEL_TRANSFORM), taps, f"{name}/kernels")
        kernels = self._reshape(kernels, _PRODUCTS, channels, outputs)
        products = self._multiply(self._transformed_inputs[key], kernels, f"{name}/products")
        return _Value(products, outputs, is_products=True, name=name)

    def _rewrite_unit(self, node: Any) -> _Value | None:
        """Return the result of the Fourier unit that ends with a node."""
        unit = self._units.get(node.get_friendly_name())
        if unit is None:
            return None
        x, channels = self._get(unit.source), len(unit.bias) // 2
        forward, inverse, spectrum = f"{unit.name}/{RFFT}", f"{unit.name}/{IRFFT}", f"{unit.name}/{SPECTRUM}"
        y = self._shape(self._gather(x.tensor, _TILES_TO_COLUMNS), _COLUMN_SIDES)
        y = self._multiply(self._get_input(_ROWS), y, f"{forward}/{ROW}")
        y = self._shape(y, _SPECTRUM_SIDES, channels)
        y = self._multiply(self._get_input(_COLUMNS), y, f"{forward}/{COLUMN}")
        y = self._weigh(self._reshape(y, -1, 2 * channels), unit.kernel, f"{spectrum}/pixels")
        y = self._op.relu(self._op.add(y, make_floats(unit.bias)))
        y = self._shape(y, _SPECTRUM_SIDES, channels)
        y = self._multiply(self._get_input(_COLUMNS_INVERSE), y, f"{inverse}/{COLUMN}")
        y = self._multiply(self._get_input(_ROWS_INVERSE), self._shape(y, _HALF_SIDES), f"{inverse}/{ROW}")
        return _Value(self._gather(self._reshape(y, -1, channels), _COLUMNS_TO_TILES), channels)

    def _rewrite_relu(self, node: Any) -> _Value | None:
        source = node.input_value(0)
        if get_key(source) not in self._values:
            return None
        value = self._get(source)
        return _Value(self._op.relu(value.tensor), value.channels)

    def _rewrite_sum(self, node: Any) -> _Value | None:
        sources = node.input_values()
        if not any(get_key(source) in self._values for source in sources):
            return None
        total = node.get_output_partial_shape(0)
        if not all(can_add_channels_last(source, total) for source in sources):
            return None
        constants = [read_floats(source).ravel() for source in sources if is_constant(source)]
        keys = [get_key(source) for source in sources if not is_constant(source)]
        values = [self._values[key] for key in keys if key in self._values]
        if constants:
            return self._add_bias(values[0], constants[0])
        if len(values) == len(sources) and all(value.is_products for value in values):
            return self._add_products(*values)
        one, other = (self._get(source) for source in sources)
        return _Value(self._op.add(one.tensor, other.tensor), one.channels)

    def _add_bias(self, value: _Value, bias: np.ndarray) -> _Value:
        bias = np.broadcast_to(bias, value.channels)
        if value.is_products:
            return replace(value, bias=bias if value.bias is None else value.bias + bias)
        return replace(value, tensor=self._op.add(value.tensor, make_floats(bias)))

    def _add_products(self, one: _Value, other: _Value) -> _Value:
        """Return the sum of two convolutions, before the product with Aᵀ."""
        total = self._op.add(one.tensor, other.tensor)
        total.set_friendly_name(f"{one.name}/sum")
        summed = replace(one, tensor=total)
        return summed if other.bias is None else self._add_bias(summed, other.bias)

    # ------------------------------------------------------------ forms

    def _get(self, source: Any) -> _Value:
        """Return the pixels of an output of the model, which may be [B, C, H, W]."""
        key = get_key(source)
        if key not in self._values:
            channels = source.get_partial_shape()[1].get_length()
            last = self._op.transpose(source, make_ints(0, 2, 3, 1))
            last.set_friendly_name(f"{key[0]}/reorder")
            rows = self._reshape(last, -1, channels)
            self._values[key] = _Value(self._gather(rows, _ROWS_TO_TILES), channels)
        if self._values[key].is_products:
            self._values[key] = self._leave(self._values[key])
        return self._values[key]

    def _leave(self, value: _Value) -> _Value:
        """Return the pixels of products."""
        leave, values = self._get_matrix("leave", make_matrices()[0]), self._reshape(value.tensor, _PRODUCTS, -1)
        y = self._reshape(self._multiply(leave, values, f"{value.name}/leave"), -1, value.channels)
        if value.bias is not None:
            y = self._op.add(y, make_floats(value.bias))
        return _Value(y, value.channels)

    def _replace(self, node: Any, value: _Value) -> None:
        """Connect a value to all readers of `node`, in the form [B, C, H, W]. Rewritten readers read the value."""
        name = node.get_friendly_name()
        self._values[name, 0] = value
        pixels = self._leave(value) if value.is_products else value
        last = self._shape(self._gather(pixels.tensor, _TILES_TO_ROWS), _IMAGE_SIDES, value.channels)
        usual = self._op.transpose(last, make_ints(0, 3, 1, 2))
        usual.set_friendly_name(name)
        for reader in node.output(0).get_target_inputs():
            reader.replace_source_output(usual.output(0))

    # ------------------------------------------------------------ nodes

    def _weigh(self, x: Any, weights: np.ndarray, name: str) -> Any:
        """Return the product of x [P, C] and the weights [O, C]."""
        y = self._op.matmul(x, make_floats(weights), transpose_a=False, transpose_b=True)
        y.set_friendly_name(name)
        return y

    def _multiply(self, left: Any, right: Any, name: str) -> Any:
        y = self._op.matmul(left, right, transpose_a=False, transpose_b=False)
        y.set_friendly_name(name)
        return y

    def _get_matrix(self, name: str, factor: np.ndarray) -> Any:
        """Return M ⊗ M, which applies M to the rows and columns of a tile at once."""
        if name not in self._constants:
            self._constants[name] = make_floats(np.kron(factor, factor))
        return self._constants[name]

    def _get_input(self, name: str) -> Any:
        """Return an input of the model that :func:`compute_inputs` computes."""
        if name not in self._inputs:
            value = compute_inputs(1, *_LEAST_SIZE)[name]  # any size has the types and ranks
            shape = list(value.shape) if name.startswith(_SIDES) else [-1] * value.ndim  # sides tell the rank
            parameter = self._op.parameter(shape, value.dtype.type, name=name)
            parameter.output(0).get_tensor().set_names({name})
            self._inputs[name] = parameter
        return self._inputs[name]

    def _gather(self, x: Any, positions: str, name: str = "") -> Any:
        """Return the rows of x [P, C] at the positions of an input."""
        y = self._op.gather(x, self._get_input(positions), self._op.constant(np.int64(0)))
        if name:
            y.set_friendly_name(name)
        return y

    def _reshape(self, x: Any, *shape: int) -> Any:
        return self._op.reshape(x, make_ints(*shape), special_zero=False)

    def _shape(self, x: Any, sides: str, channels: int | None = None) -> Any:
        """Return x with the sides of an input, followed by the channels where they are given."""
        shape = self._get_input(sides)
        if channels is not None:
            key = f"{sides}/{channels}"
            if key not in self._constants:
                self._constants[key] = self._op.concat([shape, make_ints(channels)], 0)
            shape = self._constants[key]
        return self._op.reshape(x, shape, special_zero=False)
