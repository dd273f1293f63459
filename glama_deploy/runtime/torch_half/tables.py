"""What the layers of one input size read beside their weights: the bases of the transforms, and the indices of pads.

A CUDA graph reads these tensors at the addresses that it was captured with. Whoever keeps the graph keeps the tables.
"""

from __future__ import annotations

import math
from collections.abc import Hashable

import numpy as np
import torch
from torch import Tensor

from glama_deploy.fourier.bases import column_basis, inverse_row_basis


class Transforms:
    """The FFT and its inverse as two matrix products each, for maps with the channels last.

    With F = W//2 + 1, and the channels as the columns of each product:

        forward    rows of columns    [2H, H] @ [B, H, W·C]        → [B, H, 2W, C], rows (re/im, w)
                   columns of rows    [2F, 2W] @ [B·H, 2W, C]      → [B, H, F, 2C], channels (re, im)
        inverse    columns of rows    [2W, 2F] @ [B·H, 2F, C]      → [B, 2H, W·C], rows (h, cos/sin)
                   rows of columns    [H, 2H] @ [B, 2H, W·C]       → [B, H, W·C]

    Every reshape between the products is free, and the spectrum has the layout that a 1×1 convolution takes. Bases are
    computed in float64 and rounded once. The transforms are orthonormal but for `scale`, a power of two.

    The spectrum's first value is at most √(HW) times the mean of the map, which may be beyond fp16's range. `scale` is
    near (HW)^(−1/4), so it takes half of this factor's exponent off all values of the spectrum. The inverse puts the
    scale back.

    Args:
        height: H.
        width: W.
        like: A tensor of the type and on the device of the bases.
    """

    def __init__(self, height: int, width: int, like: Tensor) -> None:
        #: The factor of the forward transform beside the orthonormal one, a power of two.
        self.scale = 2.0 ** -round(math.log2(height * width) / 4)
        columns, rows, inverse = column_basis(height), column_basis(width), inverse_row_basis(width)
        half = width // 2 + 1
        # column_basis maps (h, re/im) to (re/im, h'); a real map has re alone
        forward = columns[:, 0::2].reshape(2, height, height).swapaxes(0, 1).reshape(2 * height, height)
        by_part = rows.reshape(2, width, width, 2)[:, :half]  # [p, f, w, t]
        across = by_part.transpose(1, 0, 3, 2).reshape(2 * half, 2 * width)  # [(f, p), (t, w)]
        real, imaginary = inverse.reshape(2, half, width)  # weight·cos, −weight·sin
        back = np.array([[real, imaginary], [imaginary, -real]])  # [t, p, f, w]
        back = back.transpose(0, 3, 2, 1).reshape(2 * width, 2 * half)  # [(t, w), (f, p)]
        self._forward_columns = _round(forward * self.scale, like)
        self._forward_rows = _round(across, like)
        self._inverse_rows = _round(back, like)
        self._inverse_columns = _round(columns[:height] / self.scale, like)

    def forward(self, x: Tensor) -> Tensor:
        """Transform a map.

        Args:
            x: [B, H, W, C], contiguous.

        Returns:
            The spectrum times `scale`, [B, H, F, 2C]; the first C channels are the real parts.
        """
        b, h, w, c = x.shape
        columns = torch.bmm(self._forward_columns.expand(b, -1, -1), x.view(b, h, w * c))
        spectrum = torch.bmm(self._forward_rows.expand(b * h, -1, -1), columns.view(b * h, 2 * w, c))
        return spectrum.view(b, h, -1, 2 * c)

    def add_inverse(self, x: Tensor, spectrum: Tensor) -> Tensor:
        """Add the inverse transform of a spectrum to a map.

        As in NumPy's irfft2, the part of the spectrum's first column, and for even W of its last column, that no real
        map has is not read.

        Args:
            x: [B, H, W, C], contiguous.
            spectrum: A spectrum times `scale`, as :meth:`forward` returns it.

        Returns:
            [B, H, W, C].
        """
        b, h, w, c = x.shape
        rows = torch.bmm(self._inverse_rows.expand(b * h, -1, -1), spectrum.view(b * h, -1, c))
        columns = rows.view(b, 2 * h, w * c)
        added = torch.baddbmm(x.view(b, h, w * c), self._inverse_columns.expand(b, -1, -1), columns)
        return added.view(b, h, w, c)


class Tables:
    """The tensors of one input size, each made when it is first read.

    Args:
        like: A tensor of the type and on the device of the tables.
    """

    def __init__(self, like: Tensor) -> None:
        self._like = like
        self._transforms: dict[tuple[int, int], Transforms] = {}
        self._pads: dict[tuple[int, int, int, int], Tensor] = {}
        self._shifts: dict[tuple[Hashable, int, int], Tensor] = {}

    def get_transforms(self, height: int, width: int) -> Transforms:
        """Return the transforms of a size.

        Args:
            height: Height of the map.
            width: Width of the map.

        Returns:
            The transforms.
        """
        key = height, width
        if key not in self._transforms:
            self._transforms[key] = Transforms(height, width, self._like)
        return self._transforms[key]

    def get_shift(self, owner: Hashable, shift: Tensor, factor: float, height: int, width: int) -> Tensor:
        """Return the shift of a convolution on spectra of a size.

        Args:
            owner: The layer.
            shift: The layer's shift for orthonormal transforms, float32 [2C].
            factor: What the shift is multiplied by.
            height: Height of the map.
            width: Width of the map.

        Returns:
            The product in the tables' type, [2C].
        """
        key = owner, height, width
        if key not in self._shifts:
            self._shifts[key] = (shift * factor).to(self._like.dtype)
        return self._shifts[key]

    def pad(self, x: Tensor, padding: int) -> Tensor:
        """Pad a map by reflection. PyTorch's own operator has no CUDA kernel for channels that come last.

        Args:
            x: [B, H, W, C]. The channels may be a part of a wider map's.
            padding: Pixels on each side, less than H and W.

        Returns:
            [B, H + 2·padding, W + 2·padding, C], contiguous.
        """
        b, h, w, c = x.shape
        if not padding:
            return x.contiguous()
        key = b, h, w, padding
        if key not in self._pads:
            self._pads[key] = _list_reflected_pixels(b, h, w, padding).to(self._like.device)
        padded = x.flatten(0, 2).index_select(0, self._pads[key])
        return padded.view(b, h + 2 * padding, w + 2 * padding, c)


def _round(basis: np.ndarray, like: Tensor) -> Tensor:
    """Return a float64 basis [M, N] as a batch of one in the type and on the device of `like`.

    Rows begin at multiples of 8 values, which tensor cores read fastest (cuBLAS, "Tensor Core Usage").
    """
    rows, columns = basis.shape
    aligned = np.zeros((rows, -(-columns // 8) * 8))
    aligned[:, :columns] = basis
    return torch.from_numpy(aligned).to(like.dtype).to(like.device)[None, :, :columns]


def _list_reflected_pixels(batch: int, height: int, width: int, padding: int) -> Tensor:
    """Return the number of the pixel that each padded pixel shows, int32 [B·(H + 2p)·(W + 2p)]."""
    rows, columns = (np.pad(np.arange(side, dtype=np.int64), padding, mode="reflect") for side in (height, width))
    pixels = rows[:, None] * width + columns
    numbers = np.arange(batch, dtype=np.int64)[:, None, None] * (height * width) + pixels
    return torch.from_numpy(numbers.astype(np.int32).ravel())
