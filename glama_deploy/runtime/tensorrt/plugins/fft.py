"""The nodes `glama::RFFT2` and `glama::IRFFT2`: the shapes of their outputs, and their results in numpy.

    RFFT2   x [B, C, H, W]                      → [B, C, H, W//2+1, 2]   unnormalised, last axis (re, im)
    IRFFT2  z [B, C, H, F, 2], like [B, C, H, W] → [B, C, H, W]           unnormalised; of `like` only the shape counts

All tensors are float32. Both sums run over H and W, without 1/N. The inverse is numpy's: a complex FFT over H, then a
real one over W that reads only the real part of the first column and, for even W, of the last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

NAMESPACE = "glama"
VERSION = "1"


@dataclass(frozen=True)
class Size:
    """Sides of real arrays and of their half spectra.

    Attributes:
        batch: Number of arrays, B·C.
        height: Rows of an array, and of its half spectrum.
        width: Columns of an array.
    """

    batch: int
    height: int
    width: int

    @property
    def half(self) -> int:
        """Columns of a half spectrum."""
        return self.width // 2 + 1

    @property
    def real_bytes(self) -> int:
        """Bytes of one real array in float32."""
        return 4 * self.height * self.width

    @property
    def spectrum_bytes(self) -> int:
        """Bytes of one half spectrum in complex64."""
        return 8 * self.height * self.half


def rfft2_shape(x: Sequence[int]) -> tuple[int, ...]:
    """Return the shape of RFFT2's output.

    Args:
        x: The input's shape [B, C, H, W].

    Returns:
        [B, C, H, W//2+1, 2].

    Raises:
        ValueError: x does not have four axes.
    """
    _check_axes("RFFT2", x, 4)
    return (*x[:3], x[3] // 2 + 1, 2)


def irfft2_shape(z: Sequence[int], like: Sequence[int]) -> tuple[int, ...]:
    """Return the shape of IRFFT2's output.

    Args:
        z: The spectrum's shape [B, C, H, W//2+1, 2].
        like: The shape [B, C, H, W] that the output takes.

    Returns:
        The shape `like`.

    Raises:
        ValueError: z is not the shape of such an array's spectrum.
    """
    _check_axes("IRFFT2", z, 5)
    if rfft2_shape(like) != tuple(z):
        raise ValueError(f"IRFFT2: {list(z)} is no spectrum of {list(like)}; {list(rfft2_shape(like))} is")
    return tuple(like)


def rfft2_size(x: Sequence[int]) -> Size:
    """Return the size of the arrays that RFFT2 transforms.

    Args:
        x: The input's shape [B, C, H, W].

    Returns:
        The size.

    Raises:
        ValueError: x does not have four axes.
    """
    _check_axes("RFFT2", x, 4)
    b, c, h, w = x
    return Size(b * c, h, w)


def irfft2_size(z: Sequence[int], like: Sequence[int]) -> Size:
    """Return the size of the arrays that IRFFT2 gives.

    Args:
        z: The spectrum's shape.
        like: The output's shape.

    Returns:
        The size.

    Raises:
        ValueError: z is not the shape of such an array's spectrum.
    """
    return rfft2_size(irfft2_shape(z, like))


def rfft2_symbols(x: Sequence[Any], builder: Any, operation: Any) -> list[Any]:
    """Return :func:`rfft2_shape` of dimension expressions.

    Args:
        x: The input's dimension expressions.
        builder: An object with constant(int) and operation(op, a, b), such as TensorRT's IExprBuilder.
        operation: An object with SUM and FLOOR_DIV, such as TensorRT's DimensionOperation.

    Returns:
        The output's dimension expressions.
    """
    one, two = builder.constant(1), builder.constant(2)
    half = builder.operation(operation.FLOOR_DIV, x[3], two)
    return [x[0], x[1], x[2], builder.operation(operation.SUM, half, one), two]


def irfft2_symbols(z: Sequence[Any], like: Sequence[Any]) -> list[Any]:
    """Return :func:`irfft2_shape` of dimension expressions: the width of `like`, all else of z.

    Args:
        z: The spectrum's dimension expressions.
        like: The dimension expressions that the output takes.

    Returns:
        The output's dimension expressions.
    """
    return [z[0], z[1], z[2], like[3]]


def rfft2(x: np.ndarray) -> np.ndarray:
    """Compute RFFT2 in float64.

    Args:
        x: float32 [B, C, H, W].

    Returns:
        float32 [B, C, H, W//2+1, 2].
    """
    spectrum = np.fft.rfft2(x.astype(np.float64))
    return np.stack([spectrum.real, spectrum.imag], axis=-1).astype(np.float32)


def irfft2(z: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Compute IRFFT2 in float64.

    Args:
        z: float32 [B, C, H, W//2+1, 2].
        like: An array [B, C, H, W], of which only the shape counts.

    Returns:
        float32 [B, C, H, W].
    """
    sides = irfft2_shape(z.shape, like.shape)[2:]
    spectrum = z[..., 0].astype(np.float64) + 1j * z[..., 1].astype(np.float64)
    return np.fft.irfft2(spectrum, sides, norm="forward").astype(np.float32)  # "forward": no 1/N on the way back


def _check_axes(node: str, shape: Sequence[int], axes: int) -> None:
    if len(shape) != axes:
        raise ValueError(f"{node}: an input of {axes} axes is expected, not {list(shape)}")
