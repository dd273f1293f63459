from __future__ import annotations

import math

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator

from glama_deploy.export.graph.builder import GraphBuilder, Value
from glama_deploy.export.graph.fft_matmul import MatmulFFT
from glama_deploy.fourier.bases import column_basis, inverse_row_basis, row_basis

#: Even, odd, prime, powers of two and one past; 257 is past every bottleneck up to 2048.
SIZES = [
    (2, 2),
    (3, 2),
    (2, 5),
    (8, 8),
    (7, 13),
    (16, 9),
    (31, 32),
    (64, 64),
    (97, 100),
    (128, 61),
    (256, 257),
    (257, 255),
]


def forward(x: np.ndarray) -> np.ndarray:
    """The lowering with the float64 bases, in NumPy: [B, C, H, W] → [B, 2C, H, F]."""
    b, c, h, w = x.shape
    y = (x @ row_basis(w)).reshape(b, c, 2 * h, -1)
    return (column_basis(h) @ y).reshape(b, 2 * c, h, -1)


def inverse(z: np.ndarray, w: int) -> np.ndarray:
    b, c2, h, f = z.shape
    y = column_basis(h).T @ z.reshape(b, c2 // 2, 2 * h, f)
    return y.reshape(b, c2 // 2, h, 2 * f) @ inverse_row_basis(w)


def interleaved(spectrum: torch.Tensor) -> np.ndarray:
    """A complex [B, C, H, F] as [B, 2C, H, F], c0.re, c0.im, c1.re, …"""
    b, c, h, f = spectrum.shape
    return torch.view_as_real(spectrum).permute(0, 1, 4, 2, 3).reshape(b, 2 * c, h, f).numpy()


def check_against_torch(h: int, w: int) -> None:
    rng = np.random.default_rng(h * 1000 + w)
    x = rng.standard_normal((2, 3, h, w))
    spectrum = torch.fft.rfft2(torch.from_numpy(x), norm="ortho")
    # float64: sums of some hundred terms of order 1, each with a rounding of 1e-16
    np.testing.assert_allclose(forward(x), interleaved(spectrum), rtol=0, atol=1e-12)
    z = torch.complex(*torch.from_numpy(rng.standard_normal((2, 2, 3, h, w // 2 + 1))))
    back = torch.fft.irfft2(z, s=(h, w), norm="ortho").numpy()
    np.testing.assert_allclose(inverse(interleaved(z), w), back, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("h", "w"), SIZES)
def test_the_bases_are_torch_fft_in_float64(h, w):
    check_against_torch(h, w)


@settings(deadline=None, max_examples=60)
@given(st.integers(2, 257), st.integers(2, 257))
def test_the_bases_are_torch_fft_in_float64_at_any_size(h, w):
    check_against_torch(h, w)


def transforms(size: tuple[int, int] | None, channels: int) -> onnx.ModelProto:
    """A model whose outputs are `spectrum` of x and `back`, the inverse of `z`."""
    graph = GraphBuilder()
    fft = MatmulFFT(graph, size, like="x")
    graph.add("Identity", [fft.forward("x", channels, "rfft")], "spectrum")
    graph.add("Identity", [fft.inverse("z", channels, "irfft", like="x")], "back")
    x, z = ("b", channels, "h", "w"), ("b", 2 * channels, "h", "f")
    inputs = [Value("x", "float32", x), Value("z", "float32", z)]
    return graph.model(inputs, [Value("spectrum", "float32", z), Value("back", "float32", x)], {})


@settings(deadline=None, max_examples=25)
@given(st.integers(2, 257), st.integers(2, 257), st.booleans(), st.integers(1, 3))
def test_static_and_dynamic_graphs_are_torch_fft(h, w, static, batch):
    """In float32, on ONNX's own reference evaluator, so that no engine's fusion is part of the claim."""
    rng = np.random.default_rng(h * 1000 + w)
    x = rng.standard_normal((batch, 2, h, w)).astype(np.float32)
    z = torch.complex(*torch.from_numpy(rng.standard_normal((2, batch, 2, h, w // 2 + 1))))
    model = transforms((h, w) if static else None, 2)
    spectrum, back = ReferenceEvaluator(model).run(None, {"x": x, "z": interleaved(z).astype(np.float32)})
    expected = interleaved(torch.fft.rfft2(torch.from_numpy(x).double(), norm="ortho"))
    # float32 products of values of order 1 to 4, summed over h and w: a few 1e-7 of the largest
    bound = 2e-7 * math.sqrt(max(h, w))
    assert np.abs(spectrum - expected).max() <= bound * max(1, np.abs(expected).max())
    expected = torch.fft.irfft2(z, s=(h, w), norm="ortho").numpy()
    assert np.abs(back - expected).max() <= bound * max(1, np.abs(expected).max())


def dynamic_bases(h: int, w: int) -> dict[str, np.ndarray]:
    model = transforms(None, 1)
    names = ["fft/row", "fft/column", "fft/column_inverse", "fft/row_inverse"]
    for name in names:
        model.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    feeds = {"x": np.zeros((1, 1, h, w), np.float32), "z": np.zeros((1, 2, h, w // 2 + 1), np.float32)}
    return dict(zip(names, ReferenceEvaluator(model).run(names, feeds), strict=True))


@pytest.mark.parametrize(("h", "w"), [(8, 8), (31, 33), (256, 257), (512, 509)])
def test_dynamic_bases_keep_their_digits_however_large_the_size(h, w):
    """Angles from n·k mod N are right to a rounding or two; without the mod the error grows with N² (1e-3 at 512)."""
    made = dynamic_bases(h, w)
    expected = {
        "fft/row": row_basis(w),
        "fft/column": column_basis(h),
        "fft/column_inverse": column_basis(h).T,
        "fft/row_inverse": inverse_row_basis(w),
    }
    for name, basis in expected.items():
        # an angle up to π carries two float32 roundings (4e-7), the cosine one more; weights of R′ double it
        assert np.abs(made[name] - basis).max() * math.sqrt(min(h, w)) < 1e-6, name


def test_units_share_their_bases():
    graph = GraphBuilder()
    fft = MatmulFFT(graph, None, like="x")
    x = "x"
    for unit in range(3):
        x = fft.inverse(fft.forward(x, 2, f"{unit}/rfft"), 2, f"{unit}/irfft", like=x)
    operations = [node.op_type for node in graph.model([], [], {}).graph.node]
    assert operations.count("Cos") == operations.count("Sin") == 3  # columns, rows, inverse rows
    assert operations.count("MatMul") == 3 * 4
    assert operations.count("Reshape") == 3 * 4


def test_the_column_basis_is_orthogonal():
    for n in (2, 5, 8, 31):
        np.testing.assert_allclose(column_basis(n) @ column_basis(n).T, np.eye(2 * n), atol=1e-14)
