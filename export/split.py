"""The FFT of one fixed size in split form: each side N = a·b in two steps, O(a + b) work an element instead of O(N).

With n = b·i + j and k = p + a·q (i, p < a and j, q < b; Cooley and Tukey 1965)

    W_N^(n·k) = W_a^(i·p) · W_N^(j·(p + a·q)),      W_N = e^(−2πi/N)

so a side is a product with one a×a matrix over i, then with one of a matrices b×b over j, into which the twiddle
factors are multiplied: no pass over the data for them. The frequencies come out in the order (p, q), not sorted. Nobody
minds: between the two transforms everything is pointwise in frequency, and the inverse takes the same order back.

Width first, of real values: k ≤ W/2 needs q ≤ b/2 only, so q has b//2 + 1 values; the few frequencies above W/2 that
come along (at most a − 1) have weight 0 in the inverse. Each product has the transformed digit on its left and all else
on its right, as one wide matrix; in between, transposes bring the next digit there. Real and imaginary parts count as a
digit (r). For x [B, C, H, W], H = c·d, with u, v the digits of the vertical frequency:

    x [B,C,(l m),(i j)]  → transpose → [B,C,i,(j l m)] → A → [B,C,(p r),(j l m)] = [B,C,p,(r j),(l m)]
    → T → [B,C,p,(q r),(l m)] → transpose → [B,C,(l r),(m p q)] → A′ → [B,C,(u r),(m p q)] = [B,C,u,(r m),(p q)]
    → T′ → [B,C,u,(r v),(p q)] → transpose → [B,2C,(u v),(p q)]

The spectrum is [B, 2C, H, a·(b//2+1)]; the inverse runs the same way backwards.
"""

from __future__ import annotations

import numpy as np

from glama_deploy.export.builder import GraphBuilder


def factors(n: int) -> tuple[int, int]:
    """(a, b) with a·b = n, a ≤ b and a + b least; the frequencies that come along in vain number at most a − 1."""
    a = max(d for d in range(1, int(n**0.5) + 1) if n % d == 0)
    return a, n // a


def columns(n: int) -> int:
    """Columns of the spectrum of a width n: n//2 + 1 and those that come along."""
    a, b = factors(n)
    return a * (b // 2 + 1)


#: The bases whose shapes tell the size that they were made for.
MINOR = ("fft/column_minor", "fft/row_minor")


def size_of(column_minor: tuple[int, ...], row_minor: tuple[int, ...]) -> tuple[int, int]:
    """(height, width) that bases of these shapes are for."""
    return column_minor[0] * column_minor[2] // 2, row_minor[0] * row_minor[2] // 2


def bases(height: int, width: int) -> dict[str, np.ndarray]:
    """The matrices of a size by name, float64. Each is orthonormal by itself, so that no step outgrows a half type."""
    (a, b), (c, d) = factors(width), factors(height)
    major = _rotation(np.outer(np.arange(a), np.arange(a)), a)  # [p, i, r′, r]
    row_major = major[..., 0].transpose(0, 2, 1).reshape(2 * a, a)
    half = b // 2 + 1
    minor = _minor(a, half, b, width)  # [p, q, j, r′, r]
    row_minor = minor.transpose(0, 1, 3, 4, 2).reshape(a, 2 * half, 2 * b)
    k = np.arange(a)[:, None] + a * np.arange(half)
    weight = np.where(2 * k > width, 0.0, np.where(2 * k % width == 0, 1.0, 2.0))
    weighted = row_minor * np.repeat(weight, 2, axis=1)[:, :, None]
    major = _rotation(np.outer(np.arange(c), np.arange(c)), c)  # [u, l, r′, r]
    column_major = major.transpose(0, 2, 1, 3).reshape(2 * c, 2 * c)
    column_minor = _minor(c, d, d, height).transpose(0, 3, 1, 4, 2).reshape(c, 2 * d, 2 * d)
    forward = {"row_major": row_major, "row_minor": row_minor}
    forward |= {"column_major": column_major, "column_minor": column_minor}
    inverse = {"row_major": row_major.T, "row_minor": weighted.swapaxes(1, 2)}
    inverse |= {"column_major": column_major.T, "column_minor": column_minor.swapaxes(1, 2)}
    return {f"fft/{k}": v for k, v in forward.items()} | {f"fft/{k}_inverse": v for k, v in inverse.items()}


def _minor(a: int, outputs: int, b: int, n: int) -> np.ndarray:
    """The second step with the twiddle factors in it: [p, q, j, r′, r] for the first `outputs` of q."""
    p, q, j = np.arange(a)[:, None, None], np.arange(outputs)[:, None], np.arange(b)
    return _rotation(j * (p + a * q), n) * np.sqrt(n / b)


def _rotation(product: np.ndarray, n: int) -> np.ndarray:
    """exp(−2πi·product/n)/√n as real 2×2 matrices on (re, im): [..., r′, r]."""
    angle = 2 * np.pi * (product % n) / n
    cos, sin = np.cos(angle) / np.sqrt(n), np.sin(angle) / np.sqrt(n)
    return np.stack([np.stack([cos, sin], axis=-1), np.stack([-sin, cos], axis=-1)], axis=-2)


class SplitFFT:
    """Emits the split transforms of one bottleneck size; all Fourier units share its bases."""

    def __init__(self, graph: GraphBuilder, size: tuple[int, int]) -> None:
        self._graph, self._size = graph, size
        self._bases = {
            name.removeprefix("fft/"): graph.constant(name, values.astype(np.float32))
            for name, values in bases(*size).items()
        }

    def forward(self, x: str, channels: int, name: str) -> str:
        """rfft2 of x [B, C, H, W]: [B, 2C, H, columns(W)], the frequencies in the order of their digits."""
        (height, width), (a, b), (c, d) = self._size, factors(self._size[1]), factors(self._size[0])
        half, f = b // 2 + 1, columns(width)
        y = self._transpose(x, (0, 1, 3, 2), f"{name}/width_first")
        y = self._product("row_major", self._reshape(y, (-1, a, b * height), f"{name}/row_digits"), name)
        y = self._product("row_minor", self._reshape(y, (-1, a, 2 * b, height), f"{name}/row_parts"), name)
        y = self._reshape(y, (-1, a, half, 2, c, d), f"{name}/column_digits")
        y = self._transpose(y, (0, 4, 3, 5, 1, 2), f"{name}/height_first")
        y = self._product("column_major", self._reshape(y, (-1, 2 * c, d * f), f"{name}/column_wide"), name)
        y = self._product("column_minor", self._reshape(y, (-1, c, 2 * d, f), f"{name}/column_parts"), name)
        y = self._reshape(y, (-1, c, 2, d * f), f"{name}/parts")
        y = self._transpose(y, (0, 2, 1, 3), f"{name}/parts_first")
        return self._reshape(y, (-1, 2 * channels, height, f), f"{name}/interleave")

    def inverse(self, z: str, channels: int, name: str, like: str) -> str:
        """irfft2 of z [B, 2C, H, columns(W)]: [B, C, H, W]."""
        (height, width), (a, b), (c, d) = self._size, factors(self._size[1]), factors(self._size[0])
        half, f = b // 2 + 1, columns(width)
        y = self._reshape(z, (-1, 2, c, d * f), f"{name}/deinterleave")
        y = self._transpose(y, (0, 2, 1, 3), f"{name}/parts_by_digit")
        y = self._product("column_minor_inverse", self._reshape(y, (-1, c, 2 * d, f), f"{name}/column_parts"), name)
        y = self._product("column_major_inverse", self._reshape(y, (-1, 2 * c, d * f), f"{name}/column_wide"), name)
        y = self._reshape(y, (-1, c, 2, d, a, half), f"{name}/column_digits")
        y = self._transpose(y, (0, 4, 5, 2, 1, 3), f"{name}/width_first")
        y = self._product("row_minor_inverse", self._reshape(y, (-1, a, 2 * half, height), f"{name}/row_parts"), name)
        y = self._product("row_major_inverse", self._reshape(y, (-1, 2 * a, b * height), f"{name}/row_digits"), name)
        y = self._reshape(y, (-1, channels, width, height), f"{name}/columns")
        return self._transpose(y, (0, 1, 3, 2), f"{name}/height_by_width")

    def _product(self, basis: str, y: str, name: str) -> str:
        return self._graph.add("MatMul", [self._bases[basis], y], f"{name}/{basis.removesuffix('_inverse')}")

    def _reshape(self, x: str, shape: tuple[int, ...], name: str) -> str:
        return self._graph.add("Reshape", [x, self._graph.ints(*shape)], name)

    def _transpose(self, x: str, order: tuple[int, ...], name: str) -> str:
        return self._graph.add("Transpose", [x], name, perm=list(order))
