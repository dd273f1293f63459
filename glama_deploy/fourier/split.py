"""The FFT of one fixed size in split form: each side N = a·b takes two steps.

The work for each element is O(a + b) instead of O(N). With n = b·i + j and k = p + a·q (i, p < a and j, q < b; Cooley
and Tukey 1965)

    W_N^(n·k) = W_a^(i·p) · W_N^(j·(p + a·q)),      W_N = e^(−2πi/N)

First the data is multiplied by one a×a matrix over i, then by one of a matrices b×b over j. These b×b matrices contain
the twiddle factors, which therefore take no pass over the data. The frequencies have the order (p, q) and are not
sorted. The order does not matter: all operations between the two transforms are pointwise in frequency, and the inverse
takes the same order.

The width is transformed first. Its values are real, so only k ≤ W/2 is needed, and q has b//2 + 1 values. At most a − 1
frequencies above W/2 are computed as well; their weight in the inverse is 0. In each product the transformed digit
stands on the left, and all other digits form one wide matrix on the right. Transposes bring the next digit to the left.
The real and the imaginary part count as a digit (r). For x [B, C, H, W], H = c·d, with the digits u, v of the vertical
frequency:

    x [B,C,(l m),(i j)]  → transpose → [B,C,i,(j l m)] → A → [B,C,(p r),(j l m)] = [B,C,p,(r j),(l m)]
    → T → [B,C,p,(q r),(l m)] → transpose → [B,C,(l r),(m p q)] → A′ → [B,C,(u r),(m p q)] = [B,C,u,(r m),(p q)]
    → T′ → [B,C,u,(r v),(p q)] → transpose → [B,2C,(u v),(p q)]

The spectrum is [B, 2C, H, a·(b//2+1)]. The inverse takes the same steps backwards. The exporter writes ONNX graphs from
these steps, and the OpenVINO runtime rewrites a model with them when it compiles one size.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from glama_deploy.node_names import (
    COLUMN_MAJOR,
    COLUMN_MINOR,
    DEINTERLEAVE,
    INTERLEAVE,
    INVERSE_SUFFIX,
    PARTS_FIRST,
    ROW_MAJOR,
    ROW_MINOR,
)


def find_factors(n: int) -> tuple[int, int]:
    """Find the two factors of a side with the smallest sum.

    Args:
        n: Height or width of the feature map, at least 1.

    Returns:
        (a, b) with a·b = n and a ≤ b.
    """
    a = max(d for d in range(1, int(n**0.5) + 1) if n % d == 0)
    return a, n // a


def count_columns(n: int) -> int:
    """Count the columns of the spectrum.

    Args:
        n: Width of the feature map, at least 1.

    Returns:
        a·(b//2 + 1), at most a − 1 more than n//2 + 1.
    """
    a, b = find_factors(n)
    return a * (b // 2 + 1)


#: Names of the two bases whose shapes give the size of the feature map.
MINOR = (COLUMN_MINOR, ROW_MINOR)


def find_size(column_minor: tuple[int, ...], row_minor: tuple[int, ...]) -> tuple[int, int]:
    """Find the size of the feature map for which bases were made.

    Args:
        column_minor: Shape of the basis `column_minor`.
        row_minor: Shape of the basis `row_minor`.

    Returns:
        (height, width).
    """
    return column_minor[0] * column_minor[2] // 2, row_minor[0] * row_minor[2] // 2


def compute_bases(height: int, width: int) -> dict[str, np.ndarray]:
    """Compute the matrices of all products for one size.

    Every matrix is orthonormal, so the values stay in the range of fp16 and bf16 after each step.

    Args:
        height: Height of the feature map, at least 1.
        width: Width of the feature map, at least 1.

    Returns:
        The matrices by name, float64. The names of the inverse's matrices end in `_inverse`.
    """
    (a, b), (c, d) = find_factors(width), find_factors(height)
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
    forward = {ROW_MAJOR: row_major, ROW_MINOR: row_minor}
    forward |= {COLUMN_MAJOR: column_major, COLUMN_MINOR: column_minor}
    inverse = {ROW_MAJOR: row_major.T, ROW_MINOR: weighted.swapaxes(1, 2)}
    inverse |= {COLUMN_MAJOR: column_major.T, COLUMN_MINOR: column_minor.swapaxes(1, 2)}
    return forward | {f"{name}{INVERSE_SUFFIX}": values for name, values in inverse.items()}


def _minor(a: int, outputs: int, b: int, n: int) -> np.ndarray:
    """Return the matrices [p, q, j, r′, r] of the second step, with twiddle factors, for the first `outputs` of q."""
    p, q, j = np.arange(a)[:, None, None], np.arange(outputs)[:, None], np.arange(b)
    return _rotation(j * (p + a * q), n) * np.sqrt(n / b)


def _rotation(product: np.ndarray, n: int) -> np.ndarray:
    """Return exp(−2πi·product/n)/√n as real 2×2 matrices on (re, im): [..., r′, r]."""
    angle = 2 * np.pi * (product % n) / n
    cos, sin = np.cos(angle) / np.sqrt(n), np.sin(angle) / np.sqrt(n)
    return np.stack([np.stack([cos, sin], axis=-1), np.stack([-sin, cos], axis=-1)], axis=-2)


@dataclass(frozen=True)
class Step:
    """One step of a transform.

    Attributes:
        kind: `reshape`, `transpose` or `product`.
        name: Name of the step. For a product, also the name of its basis, which stands on the left.
        shape: New shape of a reshape, or order of the axes of a transpose.
    """

    kind: str
    name: str
    shape: tuple[int, ...] = ()


def list_forward_steps(size: tuple[int, int], channels: int) -> Iterator[Step]:
    """Yield the steps of the forward transform: [B, C, H, W] to [B, 2C, H, count_columns(W)].

    Args:
        size: (H, W) of the feature map.
        channels: C.

    Yields:
        The steps, in order. The frequencies of the spectrum have the order of their digits.
    """
    (height, width), (a, b), (c, d) = size, find_factors(size[1]), find_factors(size[0])
    half, f = b // 2 + 1, count_columns(width)
    yield Step("transpose", "width_first", (0, 1, 3, 2))
    yield Step("reshape", "row_digits", (-1, a, b * height))
    yield Step("product", ROW_MAJOR)
    yield Step("reshape", "row_parts", (-1, a, 2 * b, height))
    yield Step("product", ROW_MINOR)
    yield Step("reshape", "column_digits", (-1, a, half, 2, c, d))
    yield Step("transpose", "height_first", (0, 4, 3, 5, 1, 2))
    yield Step("reshape", "column_wide", (-1, 2 * c, d * f))
    yield Step("product", COLUMN_MAJOR)
    yield Step("reshape", "column_parts", (-1, c, 2 * d, f))
    yield Step("product", COLUMN_MINOR)
    yield Step("reshape", "parts", (-1, c, 2, d * f))
    yield Step("transpose", PARTS_FIRST, (0, 2, 1, 3))
    yield Step("reshape", INTERLEAVE, (-1, 2 * channels, height, f))


def list_inverse_steps(size: tuple[int, int], channels: int) -> Iterator[Step]:
    """Yield the steps of the inverse transform: [B, 2C, H, count_columns(W)] to [B, C, H, W].

    Args:
        size: (H, W) of the feature map.
        channels: C.

    Yields:
        The steps, in order.
    """
    (height, width), (a, b), (c, d) = size, find_factors(size[1]), find_factors(size[0])
    half, f = b // 2 + 1, count_columns(width)
    yield Step("reshape", DEINTERLEAVE, (-1, 2, c, d * f))
    yield Step("transpose", "parts_by_digit", (0, 2, 1, 3))
    yield Step("reshape", "column_parts", (-1, c, 2 * d, f))
    yield Step("product", COLUMN_MINOR + INVERSE_SUFFIX)
    yield Step("reshape", "column_wide", (-1, 2 * c, d * f))
    yield Step("product", COLUMN_MAJOR + INVERSE_SUFFIX)
    yield Step("reshape", "column_digits", (-1, c, 2, d, a, half))
    yield Step("transpose", "width_first", (0, 4, 5, 2, 1, 3))
    yield Step("reshape", "row_parts", (-1, a, 2 * half, height))
    yield Step("product", ROW_MINOR + INVERSE_SUFFIX)
    yield Step("reshape", "row_digits", (-1, 2 * a, b * height))
    yield Step("product", ROW_MAJOR + INVERSE_SUFFIX)
    yield Step("reshape", "columns", (-1, channels, width, height))
    yield Step("transpose", "height_by_width", (0, 1, 3, 2))


# ---------------------------------------------------------------- cost

#: The smallest cost of a pass over the data (a product or a transpose), in multiply-adds for each written element. The
#: value was fitted on a CPU by benchmarks/speed/fourier.py (OpenVINO, float32, 192 channels, 128×128 to 256×256), which
#: gave 53 to 60. No value was measured on a GPU.
MIN_PASS_MULTIPLY_ADDS = 56


@dataclass(frozen=True)
class Pass:
    """One pass over the data of one channel.

    Attributes:
        written: Number of written elements.
        products: Multiply-adds for each written element.
    """

    written: int
    products: int

    @property
    def cost(self) -> int:
        """Cost of the pass in multiply-adds."""
        return self.written * max(self.products, MIN_PASS_MULTIPLY_ADDS)


def list_passes(fft: str, height: int, width: int) -> list[Pass]:
    """List the passes of the forward transform. The inverse has the same passes backwards.

    Args:
        fft: The lowering: `matmul` (one matrix for each side), `split`, `dft` or `plugin`.
        height: Height of the feature map.
        width: Width of the feature map.

    Returns:
        The passes. The list is empty for `dft` and `plugin`, whose products a library computes.
    """
    half = width // 2 + 1
    if fft == "matmul":
        return [Pass(2 * height * half, width), Pass(2 * height * half, 2 * height)]
    if fft != "split":
        return []
    (a, b), (c, d), f = find_factors(width), find_factors(height), count_columns(width)
    return [
        Pass(height * width, 0),
        Pass(2 * height * width, a),
        *(Pass(2 * height * f, products) for products in (2 * b, 0, 2 * c, 2 * d, 0)),
    ]


def is_cheaper(height: int, width: int) -> bool:
    """Tell whether the split form is cheaper than one matrix for each side.

    Args:
        height: Height of the feature map.
        width: Width of the feature map.

    Returns:
        True where `split` costs less than `matmul`.
    """
    whole, parts = (sum(each.cost for each in list_passes(kind, height, width)) for kind in ("matmul", "split"))
    return parts < whole
