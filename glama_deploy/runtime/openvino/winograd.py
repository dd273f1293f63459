"""A rewrite of OpenVINO models: 3×3 convolutions with half of the multiplications (Winograd's method).

A kernel row of three weights gives four neighbouring outputs with six products instead of twelve (F(4, 3); Lavin and
Gray, Fast Algorithms for Convolutional Neural Networks, CVPR 2016, equation 5):

    y = Aᵀ [(G g) · (Bᵀ x)],    x six neighbouring inputs, g the kernel's row, y four outputs.

The method is applied along the width only. Along the height the convolution stays: it has three rows, and six groups of
channels, one for each product. So each pixel and pair of channels takes 4.5 multiplications instead of 9. The products
with Bᵀ and Aᵀ cost little: each is one small matrix product for `COLUMNS_PER_BLOCK` columns, with the channels
innermost, as OpenVINO's convolutions store them. The transpositions between [B, C, H, W] and [B, H, W, C] move no data.

The six values are those of polynomials at 0, ±3/4, ±3/2 and infinity. Their rounding error in bf16 is 1.3 times that
of a direct convolution. With the usual points 0, ±1, ±2 it is 1.45 times (on the choice of points: Barabasz et al.,
Error Analysis and Improving the Accuracy of Winograd Convolution for Deep Neural Networks, 2020).
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from glama_deploy.node_names import MASK

#: The points at which the polynomials are evaluated. Infinity is the sixth point.
EVALUATION_POINTS = (0.0, 0.75, -0.75, 1.5, -1.5)

#: Outputs of one application of the method.
OUTPUTS_PER_TILE = 4

#: Outputs of one matrix product with Bᵀ or Aᵀ.
COLUMNS_PER_BLOCK = 8

#: Input and output channels from which on the method is faster. With 32 channels it won 7 % in fp32 and lost 18 % in
#: bf16, with 64 it won 9 % in both, with LaMa's 128 to 384 it won 25 % and 19 %.
MIN_CHANNELS = 64

_VALUES_PER_TILE = OUTPUTS_PER_TILE + 2


@cache
def make_matrices() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the method's matrices.

    Aᵀ and G evaluate polynomials, Bᵀ is interpolation transposed. The divisors of the interpolation are in G, so the
    two others have few digits and are exact in bf16.

    Returns:
        Aᵀ [4, 6], G [6, 3] and Bᵀ [6, 6], float64.
    """

    def evaluate(coefficients: int) -> np.ndarray:
        finite = np.vander(EVALUATION_POINTS, coefficients, increasing=True)
        return np.vstack([finite, np.eye(1, coefficients, coefficients - 1)])

    others = [np.array([point - other for other in EVALUATION_POINTS if other != point]) for point in EVALUATION_POINTS]
    divisors = np.array([*(np.prod(differences) for differences in others), 1.0])
    interpolation = np.linalg.inv(evaluate(_VALUES_PER_TILE)).T * divisors[:, None]
    return evaluate(OUTPUTS_PER_TILE).T, evaluate(3) / divisors[:, None], interpolation.round(12)


@cache
def _make_block_matrices() -> tuple[np.ndarray, np.ndarray]:
    """Return the matrices Bᵀ and Aᵀ of a block.

    Returns:
        Bᵀ [values, COLUMNS_PER_BLOCK + 2] and Aᵀ [COLUMNS_PER_BLOCK, values]; the values are in the order (tile,
        value).
    """
    out, _, into = make_matrices()
    tiles = COLUMNS_PER_BLOCK // OUTPUTS_PER_TILE
    enter, leave = (
        np.zeros((tiles, _VALUES_PER_TILE, COLUMNS_PER_BLOCK + 2)),
        np.zeros((COLUMNS_PER_BLOCK, tiles, _VALUES_PER_TILE)),
    )
    for tile in range(tiles):
        enter[tile, :, tile * OUTPUTS_PER_TILE : tile * OUTPUTS_PER_TILE + _VALUES_PER_TILE] = into
        leave[tile * OUTPUTS_PER_TILE : (tile + 1) * OUTPUTS_PER_TILE, tile] = out
    return enter.reshape(-1, COLUMNS_PER_BLOCK + 2), leave.reshape(COLUMNS_PER_BLOCK, -1)


def _make_pixel_indices(height: int, width: int) -> np.ndarray:
    """Return the indices, among an image's height·width pixels, of the pixels in all blocks: int32 [N].

    The blocks include the reflected border of one pixel. Values behind the border in the last block are not used.
    """
    rows, columns = (np.pad(np.arange(side), 1, mode="reflect") for side in (height, width))
    first = np.arange(0, width, COLUMNS_PER_BLOCK)[:, None]
    across = columns[np.minimum(first + np.arange(COLUMNS_PER_BLOCK + 2), width + 1)]
    return (rows[:, None, None] * width + across).astype(np.int32).ravel()


def count_served(model: Any) -> int:
    """Return how many convolutions of a model :func:`rewrite` would rewrite.

    Args:
        model: An `openvino.Model`, which is not changed.

    Returns:
        The number of convolutions.
    """
    return sum(map(_is_suited, model.get_ordered_ops()))


def rewrite(model: Any, *, half: bool = False) -> list[str]:
    """Rewrite the 3×3 convolutions that the method suits.

    These have a stride of one, a reflected border of one pixel, floating-point weights, and at least `MIN_CHANNELS`
    input and output channels.

    Args:
        model: An `openvino.Model` of static shapes, which is changed.
        half: Whether the model will compute in a half type.

    Returns:
        The names of the convolutions that were rewritten.
    """
    return _Rewriter(model, half=half).run()


class _Rewriter:
    """Rewrites the nodes in order.

    The rewritten convolutions give tensors with the channels last, [B, H, W, C]. Sums and ReLUs of such tensors are
    computed with the channels last too. All other readers get [B, C, H, W].
    """

    def __init__(self, model: Any, *, half: bool) -> None:
        """Prepare a model's rewrite.

        Args:
            model: An `openvino.Model` of static shapes.
            half: Whether the model will compute in a half type.
        """
        from openvino import opset13

        self._op, self._model = opset13, model
        self._into, self._out = (self._make_left_factor(matrix, half=half) for matrix in _make_block_matrices())
        # by a node's output: the output with the channels last, and Bᵀ x of the output
        self._channels_last_values: dict[tuple[str, int], Any] = {}
        self._transformed_inputs: dict[tuple[str, int], Any] = {}
        self._pixel_indices: dict[tuple[int, int], Any] = {}  # by (height, width); all layers of a size share one

    def run(self) -> list[str]:
        found = []
        for node in self._model.get_ordered_ops():
            kind, name = node.get_type_name(), node.get_friendly_name()
            if _is_suited(node):
                self._replace(node, self._convolve(node))
                found.append(name)
            elif kind == "Relu" and self._has_channels_last(node.input_value(0)):
                self._replace(node, self._op.relu(self._get_channels_last(node.input_value(0))))
            elif (
                kind == "Add"
                and any(map(self._has_channels_last, node.input_values()))
                and all(map(_can_add_channels_last, node.input_values()))
            ):
                self._replace(node, self._op.add(*map(self._get_channels_last, node.input_values())))
        return found

    def _make_left_factor(self, matrix: np.ndarray, *, half: bool) -> Any:
        """Return a matrix as the left factor of products.

        OpenVINO computes products with a constant on the left in fp32, and the conversions cost more than the products.
        In a half type the matrix is therefore not a constant: zero times a mask pixel is added to it.
        """
        op, constant = self._op, _make_floats(matrix)
        if not half:
            return constant
        mask = op.convert(self._model.input(MASK), "f32")
        first = op.gather(op.reshape(mask, _make_ints(-1), special_zero=False), op.constant(np.int64(0)), _make_ints(0))
        return op.add(constant, op.multiply(first, op.constant(np.float32(0))))

    def _convolve(self, node: Any) -> Any:
        """Return a convolution's output [B, H, W, C]."""
        op, source, kernel = self._op, node.input_value(0).get_node().input_value(0), node.input_value(1)
        outputs, channels = list(kernel.get_shape())[:2]
        x = self._get_channels_last(source)
        key, name = _get_key(source), node.get_friendly_name().removesuffix("/WithoutBiases")
        if key not in self._transformed_inputs:
            self._transformed_inputs[key] = self._transform_input(x, channels, name)
        g = op.matmul(
            op.reshape(kernel, _make_ints(-1, 3), special_zero=False),
            _make_floats(make_matrices()[1]),
            transpose_a=False,
            transpose_b=True,
        )
        g = op.reshape(g, _make_ints(outputs, channels, 3, _VALUES_PER_TILE, 1), special_zero=False)
        g = op.transpose(g, _make_ints(3, 0, 1, 2, 4))
        y = op.group_convolution(self._transformed_inputs[key], g, [1, 1], [0, 0], [0, 0], [1, 1])
        y.set_friendly_name(f"{name}/products")
        batch, height, width, _ = list(x.get_output_shape(0))
        values = _make_ints(-1, COLUMNS_PER_BLOCK // OUTPUTS_PER_TILE * _VALUES_PER_TILE, outputs)
        y = op.reshape(op.transpose(y, _make_ints(0, 2, 3, 1)), values, special_zero=False)
        y = op.matmul(self._out, y, transpose_a=False, transpose_b=False)
        y.set_friendly_name(f"{name}/leave")
        y = op.reshape(y, _make_ints(batch, height, -1, outputs), special_zero=False)
        y = op.slice(y, _make_ints(0), _make_ints(width), _make_ints(1), _make_ints(2))
        y.set_friendly_name(f"{name}/columns")
        return y

    def _transform_input(self, x: Any, channels: int, name: str) -> Any:
        """Return Bᵀ x of x [B, H, W, C] with its border: [B, 6 C, H + 2, tiles]."""
        op = self._op
        batch, height, width, _ = list(x.get_output_shape(0))
        pixels = op.reshape(x, _make_ints(batch, height * width, channels), special_zero=False)
        if (height, width) not in self._pixel_indices:
            self._pixel_indices[height, width] = op.constant(_make_pixel_indices(height, width))
        blocks = op.gather(pixels, self._pixel_indices[height, width], _make_ints(1))
        blocks.set_friendly_name(f"{name}/blocks")
        blocks = op.reshape(blocks, _make_ints(-1, COLUMNS_PER_BLOCK + 2, channels), special_zero=False)
        values = op.matmul(self._into, blocks, transpose_a=False, transpose_b=False)
        values.set_friendly_name(f"{name}/enter")
        y = op.reshape(values, _make_ints(batch, height + 2, -1, _VALUES_PER_TILE * channels), special_zero=False)
        return op.transpose(y, _make_ints(0, 3, 1, 2))

    def _has_channels_last(self, value: Any) -> bool:
        return _get_key(value) in self._channels_last_values

    def _get_channels_last(self, value: Any) -> Any:
        """Return a tensor [B, C, H, W], or a constant that is added to one, with the channels last.

        The output of a 1×1 convolution becomes a matrix product of the convolution's input.
        """
        op, node = self._op, value.get_node()
        name, key = node.get_friendly_name(), _get_key(value)
        if key not in self._channels_last_values:
            if _is_constant(value):
                return op.reshape(value, _make_ints(-1), special_zero=False)
            if node.get_type_name() == "Convolution" and _is_pointwise(node):
                kernel = op.reshape(node.input_value(1), _make_ints(*list(node.input_value(1).get_shape())[:2]), False)
                x = self._get_channels_last(node.input_value(0))
                self._channels_last_values[key] = op.matmul(x, kernel, transpose_a=False, transpose_b=True)
                self._channels_last_values[key].set_friendly_name(f"{name}/last")
            else:
                _, channels, height, width = list(value.get_shape())
                flat = op.reshape(value, _make_ints(0, channels, -1), special_zero=True)
                pixels = op.transpose(flat, _make_ints(0, 2, 1))
                pixels.set_friendly_name(f"{name}/reorder")
                self._channels_last_values[key] = op.reshape(
                    pixels, _make_ints(0, height, width, channels), special_zero=True
                )
        return self._channels_last_values[key]

    def _replace(self, node: Any, last: Any) -> None:
        """Connect the rewritten output `last` [B, H, W, C] to all readers of `node`."""
        name = node.get_friendly_name()
        self._channels_last_values[name, 0] = last
        if last.get_type_name() in ("Add", "Relu"):
            last.set_friendly_name(f"{name}/last")
        usual = self._op.transpose(last, _make_ints(0, 3, 1, 2))
        usual.set_friendly_name(name)
        for reader in node.output(0).get_target_inputs():
            reader.replace_source_output(usual.output(0))


def _is_suited(node: Any) -> bool:
    """Return whether a node is a convolution that the method suits."""
    if node.get_type_name() != "Convolution":
        return False
    attributes, kernel, source = node.get_attributes(), node.input_value(1), node.input_value(0).get_node()
    plain = attributes["strides"] == attributes["dilations"] == [1, 1] and attributes["pads_begin"] == [0, 0]
    outputs, channels, *sides = list(kernel.get_shape())
    if not plain or sides != [3, 3] or min(outputs, channels) < MIN_CHANNELS or not _is_constant(kernel):
        return False
    if source.get_type_name() != "Pad" or source.get_attributes()["pad_mode"] != "reflect":
        return False
    return all(_read_integers(source.input_value(side)) == [0, 0, 1, 1] for side in (1, 2))


def _can_add_channels_last(value: Any) -> bool:
    """Return whether a summand is a tensor, or a constant with one value for each channel."""
    return not _is_constant(value) or [side for side in value.get_shape() if side != 1] in ([], [value.get_shape()[1]])


def _is_constant(value: Any) -> bool:
    """Return whether a value is a floating-point constant, maybe stored in another type or shape.

    Weights in int8 are not constants: they are multiplied by a scale.
    """
    node = value.get_node()
    while node.get_type_name() in ("Convert", "Reshape"):
        node = node.input_value(0).get_node()
    return bool(node.get_type_name() == "Constant") and node.get_element_type().is_real()


def _is_pointwise(node: Any) -> bool:
    shape = list(node.input_value(1).get_shape())
    return shape[2:] == [1, 1] and _is_constant(node.input_value(1)) and node.get_attributes()["strides"] == [1, 1]


def _get_key(value: Any) -> tuple[str, int]:
    return value.get_node().get_friendly_name(), value.get_index()


def _read_integers(value: Any) -> list[int]:
    node = value.get_node()
    return [int(v) for v in node.data] if node.get_type_name() == "Constant" else []


def _make_ints(*values: int) -> Any:
    from openvino import opset13

    return opset13.constant(np.array(values, np.int64))


def _make_floats(values: np.ndarray) -> Any:
    from openvino import opset13

    return opset13.constant(np.ascontiguousarray(values, dtype=np.float32))
