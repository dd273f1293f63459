"""3×3 convolutions with a half or a quarter of the multiplications (Winograd's method).

A kernel row of three weights gives four neighbouring outputs with six products instead of twelve (F(4, 3); Lavin and
Gray, Fast Algorithms for Convolutional Neural Networks, CVPR 2016, equation 5):

    y = Aᵀ [(G g) · (Bᵀ x)],    x six neighbouring inputs, g the kernel's row, y four outputs.

Applied along both sides, the method gives a tile of 4×4 outputs with 36 products instead of 144: each pixel and pair of
channels takes 2.25 multiplications instead of 9. Applied along the width only, it takes 4.5; the convolution then has
three rows. Rounding grows with each side, so models in a half type apply it along the width only.

The products are a convolution with groups of channels, one for each of the 36 or 6 values. The products with Bᵀ and Aᵀ
cost little: each is one small matrix product for a block of pixels, with the channels innermost, as OpenVINO's
convolutions store them. :mod:`.channels_last` builds the nodes from a :class:`Tiling`.

:mod:`glama_deploy.runtime.winograd_matrices` has the matrices.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from glama_deploy.node_names import is_in_decoder
from glama_deploy.runtime.openvino.rewrites.constants import is_constant, read_ints
from glama_deploy.runtime.openvino.rewrites.pixel_order import PixelOrder, by_tiles
from glama_deploy.runtime.winograd_matrices import OUTPUTS_PER_TILE, VALUES_PER_TILE, make_matrices

#: Outputs of one matrix product with Bᵀ or Aᵀ, where the method is applied along the width only.
COLUMNS_PER_BLOCK = 8

#: Input and output channels from which on the method is faster. With 32 channels it won 7 % in fp32 and lost 18 % in
#: bf16, with 64 it won 9 % in both, with LaMa's 128 to 384 it won 25 % and 19 %.
MIN_CHANNELS = 64


@dataclass(frozen=True, eq=False)
class Tiling:
    """The method for images of one size, in matrices and indices.

    The input [B, P, C] has the pixels in the tiling's order. The pixels at `blocks` are [B·N, M, C], N blocks of M
    pixels. `enter` turns them into values, which are [B, rows, columns, groups·C]. A convolution with `groups` groups
    and the kernels of :meth:`transform_kernel` gives [B, rows', columns, groups·O]. `leave` turns this, as blocks, into
    the output [B, P, O].

    Attributes:
        order: The order of the pixels of input and output.
        groups: Products of one application of the method.
        blocks: The positions of the pixels of all blocks, int32 [N·M]. The blocks include the reflected border.
        enter: [values of a block, M].
        grid: (rows, columns) of the convolution's input.
        leave: [output pixels of a block, values of a block].
        kernel_transform: [groups·rows of the convolution's kernel, 9], for the kernel's 9 weights by rows.
    """

    order: PixelOrder
    groups: int
    blocks: np.ndarray
    enter: np.ndarray
    grid: tuple[int, int]
    leave: np.ndarray
    kernel_transform: np.ndarray

    def transform_kernel(self, kernel: np.ndarray) -> np.ndarray:
        """Return the kernels of the convolution with groups.

        Args:
            kernel: Float32 [O, C, 3, 3].

        Returns:
            Float32 [groups, O, C, rows, 1].
        """
        outputs, channels, *_ = kernel.shape
        weights, transform = kernel.reshape(outputs * channels, 9).T, self.kernel_transform.astype(np.float32)
        rows = len(transform) // self.groups
        values = np.empty((self.groups, outputs * channels, rows), np.float32)
        for row in range(rows):
            np.matmul(transform[row::rows], weights, out=values[..., row])
        return values.reshape(self.groups, outputs, channels, rows, 1)


def make_tiling(height: int, width: int, *, along_both: bool) -> Tiling:
    """Return the method for images of one size.

    Args:
        height: Height of the feature maps.
        width: Width of the feature maps.
        along_both: Whether the method is applied along both sides, or along the width only.

    Returns:
        The tiling.
    """
    return _make_square_tiling(height, width) if along_both else _make_row_tiling(height, width)


def _make_square_tiling(height: int, width: int) -> Tiling:
    out, kernel, into = make_matrices()
    order = by_tiles(height, width, (OUTPUTS_PER_TILE, OUTPUTS_PER_TILE))
    rows, columns = (_list_windows(side, OUTPUTS_PER_TILE) for side in (height, width))
    pixels = rows[:, None, :, None] * width + columns[None, :, None, :]
    return Tiling(
        order=order,
        groups=VALUES_PER_TILE**2,
        blocks=order.positions[pixels.ravel()],
        enter=np.kron(into, into),
        grid=(len(rows), len(columns)),
        leave=np.kron(out, out),
        kernel_transform=np.kron(kernel, kernel),
    )


def _make_row_tiling(height: int, width: int) -> Tiling:
    out, kernel, into = make_matrices()
    order = by_tiles(height, width, (1, COLUMNS_PER_BLOCK))
    columns, tiles = _list_windows(width, COLUMNS_PER_BLOCK), COLUMNS_PER_BLOCK // OUTPUTS_PER_TILE
    rows = np.pad(np.arange(height), 1, mode="reflect")
    pixels = rows[:, None, None] * width + columns
    enter, leave = (
        np.zeros((tiles, VALUES_PER_TILE, COLUMNS_PER_BLOCK + 2)),
        np.zeros((COLUMNS_PER_BLOCK, tiles, VALUES_PER_TILE)),
    )
    for tile in range(tiles):
        first = tile * OUTPUTS_PER_TILE
        enter[tile, :, first : first + VALUES_PER_TILE] = into
        leave[first : first + OUTPUTS_PER_TILE, tile] = out
    return Tiling(
        order=order,
        groups=VALUES_PER_TILE,
        blocks=order.positions[pixels.ravel()],
        enter=enter.reshape(-1, COLUMNS_PER_BLOCK + 2),
        grid=(height + 2, len(columns) * tiles),
        leave=leave.reshape(COLUMNS_PER_BLOCK, -1),
        kernel_transform=np.einsum("vj,ri->vrij", kernel, np.eye(3)).reshape(-1, 9),
    )


def _list_windows(side: int, outputs: int) -> np.ndarray:
    """Return the pixels that each block reads along one side, with the reflected border: [blocks, outputs + 2].

    Pixels behind the border in the last block are not used.
    """
    padded, first = np.pad(np.arange(side), 1, mode="reflect"), np.arange(0, side, outputs)[:, None]
    return padded[np.minimum(first + np.arange(outputs + 2), side + 1)]


def count_served(model: Any) -> int:
    """Return how many convolutions of a model the method suits.

    Args:
        model: An `openvino.Model`, which is not changed.

    Returns:
        The number of convolutions.
    """
    return sum(map(is_suited, model.get_ordered_ops()))


def is_suited(node: Any) -> bool:
    """Return whether a node is a convolution that the method suits.

    Such a convolution has a 3×3 kernel, a stride of one, a reflected border of one pixel, floating-point weights, and
    at least `MIN_CHANNELS` input and output channels. The decoder, whose window changes from run to run, has none.

    Args:
        node: A node of an `openvino.Model`.

    Returns:
        True for such a convolution.
    """
    if node.get_type_name() != "Convolution" or is_in_decoder(node.get_friendly_name()):
        return False
    attributes, kernel, source = node.get_attributes(), node.input_value(1), node.input_value(0).get_node()
    plain = attributes["strides"] == attributes["dilations"] == [1, 1] and attributes["pads_begin"] == [0, 0]
    outputs, channels, *sides = list(kernel.get_shape())
    if not plain or sides != [3, 3] or min(outputs, channels) < MIN_CHANNELS or not is_constant(kernel):
        return False
    if source.get_type_name() != "Pad" or source.get_attributes()["pad_mode"] != "reflect":
        return False
    return all(read_ints(source.input_value(side)) == [0, 0, 1, 1] for side in (1, 2))
