"""The two-dimensional real FFT as two matrix products in each direction, with reshapes between them.

For x [B, C, H, W], with F = W//2 + 1 columns of the half spectrum and orthonormal scaling:

    forward    y = x @ R              [B, C, H, 2F]    rows of x, then [re | im] along the last axis
               y = reshape(y)         [B, C, 2H, F]    free: rows are now (h, re/im)
               X = K @ y              [B, C, 2H, F]    columns; output rows are the re block, then the im block
               X = reshape(X)         [B, 2C, H, F]    free: channels interleave as c0.re, c0.im, c1.re, …
    inverse    the same backwards with Kᵀ and R′, whose rows have the half spectrum's weights (1, 2, …, 2, 1)

LaMa's spectral 1×1 convolution takes that interleaved layout, so the graph has no transposition and no complex type.
Bases of one size are constants, computed in float64 (:mod:`glama_deploy.fourier.bases`). The graph of any size computes
its bases once for all Fourier units. The product n·k mod N is computed in integers, so the angles are exact to one or
two roundings for every N.
"""

from __future__ import annotations

import numpy as np

from glama_deploy.export.graph.builder import GraphBuilder
from glama_deploy.fourier.bases import column_basis, inverse_row_basis, row_basis
from glama_deploy.node_names import (
    COLUMN,
    COLUMN_BASIS,
    COLUMN_INVERSE_BASIS,
    DEINTERLEAVE,
    FFT,
    INTERLEAVE,
    ROW,
    ROW_BASIS,
    ROW_INVERSE_BASIS,
)


class MatmulFFT:
    """Writes the transforms of one bottleneck size into a graph. All Fourier units share its bases."""

    def __init__(self, graph: GraphBuilder, size: tuple[int, int] | None, like: str) -> None:
        """Write the bases.

        Args:
            graph: The graph.
            size: The bottleneck's (height, width). None: the size of `like` at run time.
            like: A value [B, C, H, W] of the bottleneck's size.
        """
        self._graph = graph
        self._size = size
        if size is not None:
            h, w = size
            self._bases = {
                "row": graph.constant(ROW_BASIS, row_basis(w).astype(np.float32)),
                "column": graph.constant(COLUMN_BASIS, column_basis(h).astype(np.float32)),
                "column_inverse": graph.constant(COLUMN_INVERSE_BASIS, column_basis(h).T.astype(np.float32)),
                "row_inverse": graph.constant(ROW_INVERSE_BASIS, inverse_row_basis(w).astype(np.float32)),
            }
        else:
            self._bases = _DynamicBases(graph, like).write()

    def forward(self, x: str, channels: int, name: str) -> str:
        """Write the rfft2 of x [B, C, H, W].

        Args:
            x: The input value.
            channels: C.
            name: The prefix of the nodes' names.

        Returns:
            The spectrum [B, 2C, H, F], real and imaginary parts interleaved as channels.
        """
        y = self._graph.add("MatMul", [x, self._bases["row"]], f"{name}/{ROW}")
        y = self._reshape(y, 0, 1, f"{name}/rows_by_part")
        y = self._graph.add("MatMul", [self._bases["column"], y], f"{name}/{COLUMN}")
        return self._reshape(y, 2 * channels, 1, f"{name}/{INTERLEAVE}")

    def inverse(self, z: str, channels: int, name: str, like: str) -> str:
        """Write the irfft2 of z.

        Args:
            z: The spectrum [B, 2C, H, F].
            channels: C.
            name: The prefix of the nodes' names.
            like: Not used.

        Returns:
            The result [B, C, H, W].
        """
        y = self._reshape(z, channels, 1, f"{name}/{DEINTERLEAVE}")
        y = self._graph.add("MatMul", [self._bases["column_inverse"], y], f"{name}/{COLUMN}")
        y = self._reshape(y, 0, 2, f"{name}/parts_by_row")
        return self._graph.add("MatMul", [y, self._bases["row_inverse"]], f"{name}/{ROW}")

    def _reshape(self, x: str, channels: int, halves: int, name: str) -> str:
        """Reshape to [B, channels, −1, halves·F]; 0 channels means as many as before."""
        if self._size is not None:
            half = self._size[1] // 2 + 1
            shape = self._graph.ints(0, channels, -1, halves * half)
        else:
            shape = f"{FFT}/shape_{channels}_{halves}"
            if not self._graph.has(shape):
                width = self._bases["half" if halves == 1 else "two_halves"]
                self._graph.add("Concat", [self._graph.ints(0, channels, -1), width], shape, axis=0)
        return self._graph.add("Reshape", [x, shape], name)


class _DynamicBases:
    """Writes nodes that compute the four bases from the bottleneck's size."""

    def __init__(self, graph: GraphBuilder, like: str) -> None:
        """Keep what the bases depend on.

        Args:
            graph: The graph.
            like: A value [B, C, H, W] of the bottleneck's size.
        """
        self._graph = graph
        self._like = like

    def write(self) -> dict[str, str]:
        """Write the nodes.

        Returns:
            The bases, and F and 2F as vectors, by name.
        """
        add, ints = self._graph.add, self._graph.ints
        height = add("Shape", [self._like], f"{FFT}/height", start=2, end=3)
        width = add("Shape", [self._like], f"{FFT}/width", start=3, end=4)
        half = add("Add", [add("Div", [width, ints(2)], f"{FFT}/half_width"), ints(1)], f"{FFT}/half")
        h_range = self._graph.range(height, f"{FFT}/h/range")
        w_range = self._graph.range(width, f"{FFT}/w/range")
        f_range = self._graph.range(half, f"{FFT}/f/range")

        cos, sin, minus_sin = self._write_cos_sin(h_range, h_range, height, f"{FFT}/columns")
        column = add(
            "Concat",
            [
                self._alternate_columns(cos, sin, f"{COLUMN_BASIS}/re"),
                self._alternate_columns(minus_sin, cos, f"{COLUMN_BASIS}/im"),
            ],
            COLUMN_BASIS,
            axis=0,
        )
        re = add("Concat", [cos, minus_sin], f"{COLUMN_INVERSE_BASIS}/re", axis=1)
        im = add("Concat", [sin, cos], f"{COLUMN_INVERSE_BASIS}/im", axis=1)
        stacked = add(
            "Concat",
            [
                add("Unsqueeze", [re, ints(1)], f"{COLUMN_INVERSE_BASIS}/re_row"),
                add("Unsqueeze", [im, ints(1)], f"{COLUMN_INVERSE_BASIS}/im_row"),
            ],
            f"{COLUMN_INVERSE_BASIS}/stack",
            axis=1,
        )
        column_inverse = add("Flatten", [stacked], COLUMN_INVERSE_BASIS, axis=2)

        cos, _, minus_sin = self._write_cos_sin(w_range, f_range, width, f"{FFT}/rows")
        row = add("Concat", [cos, minus_sin], ROW_BASIS, axis=1)

        cos, _, minus_sin = self._write_cos_sin(f_range, w_range, width, f"{FFT}/rows_inverse")
        twice = add("Mod", [add("Mul", [f_range, ints(2)], f"{FFT}/f_twice"), width], f"{FFT}/f_twice_mod")
        single = add("Equal", [twice, ints(0)], f"{FFT}/f_single")
        weight = add("Where", [single, self._scalar(1.0, "one"), self._scalar(2.0, "two")], f"{FFT}/f_weight")
        weight = add("Unsqueeze", [weight, ints(1)], f"{FFT}/f_weight_column")
        row_inverse = add(
            "Concat",
            [
                add("Mul", [cos, weight], f"{ROW_INVERSE_BASIS}/re"),
                add("Mul", [minus_sin, weight], f"{ROW_INVERSE_BASIS}/im"),
            ],
            ROW_INVERSE_BASIS,
            axis=0,
        )
        return {
            "row": row,
            "column": column,
            "column_inverse": column_inverse,
            "row_inverse": row_inverse,
            "half": half,
            "two_halves": add("Mul", [half, ints(2)], f"{FFT}/two_halves"),
        }

    def _alternate_columns(self, a: str, b: str, name: str) -> str:
        """Return two matrices [h, h] as one [h, 2h] whose columns alternate between them."""
        add, last = self._graph.add, self._graph.ints(2)
        columns = [add("Unsqueeze", [a, last], f"{name}/a"), add("Unsqueeze", [b, last], f"{name}/b")]
        return add("Flatten", [add("Concat", columns, f"{name}/stack", axis=2)], name, axis=1)

    def _scalar(self, value: float, name: str) -> str:
        return self._graph.constant(f"const/{name}", np.array(value, np.float32))

    def _write_cos_sin(self, rows: str, columns: str, n: str, name: str) -> tuple[str, str, str]:
        """Return cos, sin and −sin of 2π·(rows ⊗ columns mod n)/n, divided by √n, float32 [rows, columns]."""
        add, ints = self._graph.add, self._graph.ints
        product = add(
            "Mul",
            [
                add("Unsqueeze", [rows, ints(1)], f"{name}/j"),
                add("Unsqueeze", [columns, ints(0)], f"{name}/k"),
            ],
            f"{name}/product",
        )
        product = add("Mod", [product, n], f"{name}/mod")
        upper = add("Greater", [add("Mul", [product, ints(2)], f"{name}/twice"), n], f"{name}/upper")
        product = add("Where", [upper, add("Sub", [product, n], f"{name}/less_n"), product], f"{name}/centred")
        n_float = add("Cast", [n], f"{name}/n", to=1)
        turns = add("Div", [add("Cast", [product], f"{name}/centred_float", to=1), n_float], f"{name}/turns")
        angle = add("Mul", [turns, self._scalar(2 * np.pi, "two_pi")], f"{name}/angle")
        root = add("Sqrt", [n_float], f"{name}/root")
        cos = add("Div", [add("Cos", [angle], f"{name}/cos"), root], f"{name}/cos_ortho")
        sin = add("Div", [add("Sin", [angle], f"{name}/sin"), root], f"{name}/sin_ortho")
        return cos, sin, add("Neg", [sin], f"{name}/minus_sin_ortho")
