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

The spectrum is [B, 2C, H, a·(b//2+1)]; the inverse runs the same way backwards. ONNX graphs are written from this, and
OpenVINO's where a size is compiled.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np


def factors(n: int) -> tuple[int, int]:
    """(a, b) with a·b = n, a ≤ b and a + b least; the frequencies that come along in vain number at most a − 1."""
    a = max(d for d in range(1, int(n**0.5) + 1) if n % d == 0)
    return a, n // a


def columns(n: int) -> int:
    """Columns of the spectrum of a width n: n//2 + 1 and those that come along."""
    a, b = factors(n)
    return a * (b // 2 + 1)


#: The bases whose shapes tell the size that they were made for.
MINOR = ("column_minor", "row_minor")


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
    return forward | {f"{name}_inverse": values for name, values in inverse.items()}


def _minor(a: int, outputs: int, b: int, n: int) -> np.ndarray:
    """The second step with the twiddle factors in it: [p, q, j, r′, r] for the first `outputs` of q."""
    p, q, j = np.arange(a)[:, None, None], np.arange(outputs)[:, None], np.arange(b)
    return _rotation(j * (p + a * q), n) * np.sqrt(n / b)


def _rotation(product: np.ndarray, n: int) -> np.ndarray:
    """exp(−2πi·product/n)/√n as real 2×2 matrices on (re, im): [..., r′, r]."""
    angle = 2 * np.pi * (product % n) / n
    cos, sin = np.cos(angle) / np.sqrt(n), np.sin(angle) / np.sqrt(n)
    return np.stack([np.stack([cos, sin], axis=-1), np.stack([-sin, cos], axis=-1)], axis=-2)


@dataclass(frozen=True)
class Step:
    """Of a transform: `reshape` to `shape`, `transpose` by `shape`, or the `product` of the basis `name` with it."""

    kind: str
    name: str
    shape: tuple[int, ...] = ()


def forward(size: tuple[int, int], channels: int) -> Iterator[Step]:
    """rfft2 of x [B, C, H, W]: [B, 2C, H, columns(W)], the frequencies in the order of their digits."""
    (height, width), (a, b), (c, d) = size, factors(size[1]), factors(size[0])
    half, f = b // 2 + 1, columns(width)
    yield Step("transpose", "width_first", (0, 1, 3, 2))
    yield Step("reshape", "row_digits", (-1, a, b * height))
    yield Step("product", "row_major")
    yield Step("reshape", "row_parts", (-1, a, 2 * b, height))
    yield Step("product", "row_minor")
    yield Step("reshape", "column_digits", (-1, a, half, 2, c, d))
    yield Step("transpose", "height_first", (0, 4, 3, 5, 1, 2))
    yield Step("reshape", "column_wide", (-1, 2 * c, d * f))
    yield Step("product", "column_major")
    yield Step("reshape", "column_parts", (-1, c, 2 * d, f))
    yield Step("product", "column_minor")
    yield Step("reshape", "parts", (-1, c, 2, d * f))
    yield Step("transpose", "parts_first", (0, 2, 1, 3))
    yield Step("reshape", "interleave", (-1, 2 * channels, height, f))


def inverse(size: tuple[int, int], channels: int) -> Iterator[Step]:
    """irfft2 of z [B, 2C, H, columns(W)]: [B, C, H, W]."""
    (height, width), (a, b), (c, d) = size, factors(size[1]), factors(size[0])
    half, f = b // 2 + 1, columns(width)
    yield Step("reshape", "deinterleave", (-1, 2, c, d * f))
    yield Step("transpose", "parts_by_digit", (0, 2, 1, 3))
    yield Step("reshape", "column_parts", (-1, c, 2 * d, f))
    yield Step("product", "column_minor_inverse")
    yield Step("reshape", "column_wide", (-1, 2 * c, d * f))
    yield Step("product", "column_major_inverse")
    yield Step("reshape", "column_digits", (-1, c, 2, d, a, half))
    yield Step("transpose", "width_first", (0, 4, 5, 2, 1, 3))
    yield Step("reshape", "row_parts", (-1, a, 2 * half, height))
    yield Step("product", "row_minor_inverse")
    yield Step("reshape", "row_digits", (-1, 2 * a, b * height))
    yield Step("product", "row_major_inverse")
    yield Step("reshape", "columns", (-1, channels, width, height))
    yield Step("transpose", "height_by_width", (0, 1, 3, 2))


# ---------------------------------------------------------------- what it costs

#: Multiply-adds that an element could have had in the time in which it is written: what a pass over the data (a product
#: or a transpose) costs at least, however few products go into it. Fitted on a CPU (OpenVINO, float32, 192 channels,
#: 128×128 to 256×256, where it came out at 53 to 60; benchmarks/speed/fourier.py); a GPU's own is not known here.
MOVED = 56


@dataclass(frozen=True)
class Pass:
    """A pass over the data of one channel, forward: elements written, and multiply-adds for each."""

    written: int
    products: int

    @property
    def cost(self) -> int:
        return self.written * max(self.products, MOVED)


def passes(fft: str, height: int, width: int) -> list[Pass]:
    """The forward transform of a size; the inverse has the same passes backwards. `matmul` is the form that is not
    split. A library's transform (`dft`, `plugin`) has no products that could be counted: none."""
    half = width // 2 + 1
    if fft == "matmul":
        return [Pass(2 * height * half, width), Pass(2 * height * half, 2 * height)]
    if fft != "split":
        return []
    (a, b), (c, d), f = factors(width), factors(height), columns(width)
    return [
        Pass(height * width, 0),
        Pass(2 * height * width, a),
        *(Pass(2 * height * f, products) for products in (2 * b, 0, 2 * c, 2 * d, 0)),
    ]


def pays(height: int, width: int) -> bool:
    """Whether a transform of this size is cheaper in split form."""
    whole, parts = (sum(each.cost for each in passes(kind, height, width)) for kind in ("matmul", "split"))
    return parts < whole
