"""OpenVINO's 3×3 convolutions with half of the multiplications.

Four neighbours of a row, of a convolution whose kernel is three wide, take six products where twelve are the obvious
way (Winograd's F(4, 3); Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, CVPR 2016, equation 5):

    y = Aᵀ [(G g) · (Bᵀ x)],    x six neighbours, g the kernel's row, y four sums.

Across the width alone: along the height the convolution stays what it is, three rows of six groups of channels, one for
each product. So 27 multiplications become 13.5 a pixel and pair of channels, and what surrounds them is little: Bᵀ and
Aᵀ are applied to `BLOCK` columns at once as one small product, with the channels innermost, as OpenVINO's convolutions
have them. Nothing is transposed but between the two ways to name the axes, which moves no data.

The six values are those of polynomials at 0, ±3/4, ±3/2 and infinity. What bf16 rounds there is 1.3 times as much as
in the obvious way (1.45 with the usual 0, ±1, ±2; Barabasz et al., Error Analysis and Improving the Accuracy of
Winograd Convolution for Deep Neural Networks, 2020, on what points do).
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from glama_deploy.node_names import MASK

#: Where the polynomials are evaluated, infinity besides.
POINTS = (0.0, 0.75, -0.75, 1.5, -1.5)

#: Outputs of one application, and of one product with Bᵀ or Aᵀ.
TILE, BLOCK = 4, 8

#: Channels, in and out, from which on it pays: at half of them it won 7 % in fp32 and lost 18 % in bf16, with these 9 %
#: in both, and with LaMa's 128 to 384 25 and 19 %.
CHANNELS = 64

_VALUES = TILE + 2


@cache
def matrices() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Aᵀ [4, 6], G [6, 3] and Bᵀ [6, 6], float64: Aᵀ and G evaluate polynomials, Bᵀ is interpolation transposed. What
    interpolation divides by is in G, so that the others have few digits and are exact in bf16."""

    def evaluated(coefficients: int) -> np.ndarray:
        finite = np.vander(POINTS, coefficients, increasing=True)
        return np.vstack([finite, np.eye(1, coefficients, coefficients - 1)])

    others = [np.array([point - other for other in POINTS if other != point]) for point in POINTS]
    divisors = np.array([*(np.prod(differences) for differences in others), 1.0])
    interpolation = np.linalg.inv(evaluated(_VALUES)).T * divisors[:, None]
    return evaluated(TILE).T, evaluated(3) / divisors[:, None], interpolation.round(12)


@cache
def _block() -> tuple[np.ndarray, np.ndarray]:
    """Bᵀ and Aᵀ for `BLOCK` columns: [values, BLOCK + 2] and [BLOCK, values], the values in the order (tile, value)."""
    out, _, into = matrices()
    tiles = BLOCK // TILE
    enter, leave = np.zeros((tiles, _VALUES, BLOCK + 2)), np.zeros((BLOCK, tiles, _VALUES))
    for tile in range(tiles):
        enter[tile, :, tile * TILE : tile * TILE + _VALUES] = into
        leave[tile * TILE : (tile + 1) * TILE, tile] = out
    return enter.reshape(-1, BLOCK + 2), leave.reshape(BLOCK, -1)


def _places(height: int, width: int) -> np.ndarray:
    """Which pixels of an image the blocks consist of, with its border, as places among its height·width: int32. What
    lies behind the border, in the last block, nobody reads."""
    rows, columns = (np.pad(np.arange(side), 1, mode="reflect") for side in (height, width))
    first = np.arange(0, width, BLOCK)[:, None]
    across = columns[np.minimum(first + np.arange(BLOCK + 2), width + 1)]
    return (rows[:, None, None] * width + across).astype(np.int32).ravel()


def count_served(model: Any) -> int:
    """Return how many convolutions of an `openvino.Model` :func:`rewrite` would rewrite."""
    return sum(map(_is_served, model.get_ordered_ops()))


def rewrite(model: Any, *, half: bool = False) -> list[str]:
    """Rewrite an `openvino.Model` of static shapes in place, which will compute in fp32 or in a half type: those of its
    3×3 convolutions that work on a reflected border of one pixel, with a stride of one, in floating point and on
    `CHANNELS` at least. Gives their names."""
    return _Rewriting(model, half=half).run()


class _Rewriting:
    """Goes through the nodes in order. What is rewritten has its channels last, [B, H, W, C]; sums and ReLUs of such
    tensors are made there, too, and only what reads them elsewhere gets them as [B, C, H, W]."""

    def __init__(self, model: Any, *, half: bool) -> None:
        from openvino import opset13

        self._op, self._model = opset13, model
        self._into, self._out = (self._left(matrix, half=half) for matrix in _block())
        self._last: dict[tuple[str, int], Any] = {}  # by nodes' outputs: the same with the channels last
        self._entered: dict[tuple[str, int], Any] = {}
        self._constants: dict[tuple[int, int], Any] = {}  # places, by the size: all layers read one

    def run(self) -> list[str]:
        found = []
        for node in self._model.get_ordered_ops():
            kind, name = node.get_type_name(), node.get_friendly_name()
            if _is_served(node):
                self._replace(node, self._convolved(node))
                found.append(name)
            elif kind == "Relu" and self._is_last(node.input_value(0)):
                self._replace(node, self._op.relu(self._channels_last(node.input_value(0))))
            elif (
                kind == "Add"
                and any(map(self._is_last, node.input_values()))
                and all(map(_is_known, node.input_values()))
            ):
                self._replace(node, self._op.add(*map(self._channels_last, node.input_values())))
        return found

    def _left(self, matrix: np.ndarray, *, half: bool) -> Any:
        """A matrix for the left of products. Those with a constant there OpenVINO computes in fp32 in any case, with
        conversions there and back that cost more than they do: so in a half type it is none."""
        op, constant = self._op, _floats(matrix)
        if not half:
            return constant
        mask = op.convert(self._model.input(MASK), "f32")
        first = op.gather(op.reshape(mask, _ints(-1), special_zero=False), op.constant(np.int64(0)), _ints(0))
        return op.add(constant, op.multiply(first, op.constant(np.float32(0))))

    def _convolved(self, node: Any) -> Any:
        """[B, H, W, C] of a convolution's output."""
        op, source, kernel = self._op, node.input_value(0).get_node().input_value(0), node.input_value(1)
        outputs, channels = list(kernel.get_shape())[:2]
        x = self._channels_last(source)
        key, name = _key(source), node.get_friendly_name().removesuffix("/WithoutBiases")
        if key not in self._entered:
            self._entered[key] = self._enter(x, channels, name)
        g = op.matmul(
            op.reshape(kernel, _ints(-1, 3), special_zero=False),
            _floats(matrices()[1]),
            transpose_a=False,
            transpose_b=True,
        )
        g = op.reshape(g, _ints(outputs, channels, 3, _VALUES, 1), special_zero=False)
        g = op.transpose(g, _ints(3, 0, 1, 2, 4))
        y = op.group_convolution(self._entered[key], g, [1, 1], [0, 0], [0, 0], [1, 1])
        y.set_friendly_name(f"{name}/products")
        batch, height, width, _ = list(x.get_output_shape(0))
        values = _ints(-1, BLOCK // TILE * _VALUES, outputs)
        y = op.reshape(op.transpose(y, _ints(0, 2, 3, 1)), values, special_zero=False)
        y = op.matmul(self._out, y, transpose_a=False, transpose_b=False)
        y.set_friendly_name(f"{name}/leave")
        y = op.reshape(y, _ints(batch, height, -1, outputs), special_zero=False)
        y = op.slice(y, _ints(0), _ints(width), _ints(1), _ints(2))
        y.set_friendly_name(f"{name}/columns")
        return y

    def _enter(self, x: Any, channels: int, name: str) -> Any:
        """Bᵀ x of x [B, H, W, C], with its border: [B, 6 C, H + 2, tiles]."""
        op = self._op
        batch, height, width, _ = list(x.get_output_shape(0))
        pixels = op.reshape(x, _ints(batch, height * width, channels), special_zero=False)
        if (height, width) not in self._constants:
            self._constants[height, width] = op.constant(_places(height, width))
        blocks = op.gather(pixels, self._constants[height, width], _ints(1))
        blocks.set_friendly_name(f"{name}/blocks")
        blocks = op.reshape(blocks, _ints(-1, BLOCK + 2, channels), special_zero=False)
        values = op.matmul(self._into, blocks, transpose_a=False, transpose_b=False)
        values.set_friendly_name(f"{name}/enter")
        y = op.reshape(values, _ints(batch, height + 2, -1, _VALUES * channels), special_zero=False)
        return op.transpose(y, _ints(0, 3, 1, 2))

    def _is_last(self, value: Any) -> bool:
        return _key(value) in self._last

    def _channels_last(self, value: Any) -> Any:
        """A tensor [B, C, H, W], or what is added to one, with the channels last. A 1×1 convolution becomes a product
        of its input so."""
        op, node = self._op, value.get_node()
        name, key = node.get_friendly_name(), _key(value)
        if key not in self._last:
            if _is_constant(value):
                return op.reshape(value, _ints(-1), special_zero=False)
            if node.get_type_name() == "Convolution" and _is_pointwise(node):
                kernel = op.reshape(node.input_value(1), _ints(*list(node.input_value(1).get_shape())[:2]), False)
                x = self._channels_last(node.input_value(0))
                self._last[key] = op.matmul(x, kernel, transpose_a=False, transpose_b=True)
                self._last[key].set_friendly_name(f"{name}/last")
            else:
                _, channels, height, width = list(value.get_shape())
                flat = op.reshape(value, _ints(0, channels, -1), special_zero=True)
                pixels = op.transpose(flat, _ints(0, 2, 1))
                pixels.set_friendly_name(f"{name}/reorder")
                self._last[key] = op.reshape(pixels, _ints(0, height, width, channels), special_zero=True)
        return self._last[key]

    def _replace(self, node: Any, last: Any) -> None:
        """Give the readers of a node what was made of it."""
        name = node.get_friendly_name()
        self._last[name, 0] = last
        if last.get_type_name() in ("Add", "Relu"):
            last.set_friendly_name(f"{name}/last")
        usual = self._op.transpose(last, _ints(0, 3, 1, 2))
        usual.set_friendly_name(name)
        for reader in node.output(0).get_target_inputs():
            reader.replace_source_output(usual.output(0))


def _is_served(node: Any) -> bool:
    if node.get_type_name() != "Convolution":
        return False
    attributes, kernel, source = node.get_attributes(), node.input_value(1), node.input_value(0).get_node()
    plain = attributes["strides"] == attributes["dilations"] == [1, 1] and attributes["pads_begin"] == [0, 0]
    outputs, channels, *sides = list(kernel.get_shape())
    if not plain or sides != [3, 3] or min(outputs, channels) < CHANNELS or not _is_constant(kernel):
        return False
    if source.get_type_name() != "Pad" or source.get_attributes()["pad_mode"] != "reflect":
        return False
    return all(_integers(source.input_value(side)) == [0, 0, 1, 1] for side in (1, 2))


def _is_known(value: Any) -> bool:
    """Whether what is added is a tensor, or a constant for each channel."""
    return not _is_constant(value) or [side for side in value.get_shape() if side != 1] in ([], [value.get_shape()[1]])


def _is_constant(value: Any) -> bool:
    """Whether it is a constant, maybe stored in another type or shape; not one in int8, which has a scale."""
    node = value.get_node()
    while node.get_type_name() in ("Convert", "Reshape"):
        node = node.input_value(0).get_node()
    return bool(node.get_type_name() == "Constant") and node.get_element_type().is_real()


def _is_pointwise(node: Any) -> bool:
    shape = list(node.input_value(1).get_shape())
    return shape[2:] == [1, 1] and _is_constant(node.input_value(1)) and node.get_attributes()["strides"] == [1, 1]


def _key(value: Any) -> tuple[str, int]:
    return value.get_node().get_friendly_name(), value.get_index()


def _integers(value: Any) -> list[int]:
    node = value.get_node()
    return [int(v) for v in node.data] if node.get_type_name() == "Constant" else []


def _ints(*values: int) -> Any:
    from openvino import opset13

    return opset13.constant(np.array(values, np.int64))


def _floats(values: np.ndarray) -> Any:
    from openvino import opset13

    return opset13.constant(np.ascontiguousarray(values, dtype=np.float32))
