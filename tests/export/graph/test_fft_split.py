"""The split FFT against torch.fft: the transform itself, the graph, the whole network."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator

from glama_deploy import cost
from glama_deploy.checkpoints import formats
from glama_deploy.errors import GlamaError
from glama_deploy.export.graph.builder import GraphBuilder, Value
from glama_deploy.export.graph.fft_split import SplitFFT
from glama_deploy.export.graph.network import build
from glama_deploy.export.numerics.half import convert_to_half
from glama_deploy.fourier import split
from glama_deploy.network import NAMED, NetworkConfig


def transforms(height: int, width: int, channels: int) -> ReferenceEvaluator:
    """ONNX's reference evaluator over `spectrum` of x and `back`, the inverse of z, in float64."""
    graph = GraphBuilder()
    fft = SplitFFT(graph, (height, width))
    graph.add("Identity", [fft.forward("x", channels, "rfft")], "spectrum")
    graph.add("Identity", [fft.inverse("z", channels, "irfft", like="x")], "back")
    x = ("b", channels, height, width)
    z = ("b", 2 * channels, height, split.count_columns(width))
    inputs = [Value("x", "float32", x), Value("z", "float32", z)]
    return ReferenceEvaluator(graph.model(inputs, [Value("spectrum", "float32", z), Value("back", "float32", x)], {}))


def frequencies(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """The vertical and horizontal frequency of each row and column of the spectrum."""
    (a, b), (c, d) = split.find_factors(width), split.find_factors(height)
    across = (np.arange(a)[:, None] + a * np.arange(b // 2 + 1)).ravel()
    return (np.arange(c)[:, None] + c * np.arange(d)).ravel(), across


@settings(deadline=None, max_examples=60)
@given(st.integers(2, 64), st.integers(2, 64), st.integers(1, 2))
def test_it_is_torch_fft_in_the_order_of_the_digits(height, width, batch):
    rng = np.random.default_rng(height * 100 + width)
    x = rng.standard_normal((batch, 3, height, width)).astype(np.float32)
    rows, columns = frequencies(height, width)
    half = columns <= width // 2
    assert sorted(columns[half]) == list(range(width // 2 + 1))  # each frequency of the half spectrum once
    wanted = torch.fft.rfft2(torch.from_numpy(x).double(), norm="ortho").numpy()
    z = rng.standard_normal((batch, 3, 2, height, len(columns))).astype(np.float32)
    spectrum, back = transforms(height, width, 3).run(None, {"x": x, "z": z.reshape(batch, 6, height, -1)})
    found = spectrum.reshape(batch, 3, 2, height, -1)[..., half]
    # float32 products of values of order 1, in four steps of at most 64 terms each
    tolerance = 4e-6 * max(1.0, float(np.abs(wanted).max()))
    ordered = wanted[:, :, rows][..., columns[half]]
    assert np.abs(found[:, :, 0] - ordered.real).max() < tolerance
    assert np.abs(found[:, :, 1] - ordered.imag).max() < tolerance

    sorted_z = np.zeros((batch, 3, height, width // 2 + 1), complex)
    sorted_z[:, :, rows[:, None], columns[half]] = z[:, :, 0][..., half] + 1j * z[:, :, 1][..., half]
    wanted = torch.fft.irfft2(torch.from_numpy(sorted_z), s=(height, width), norm="ortho").numpy()
    assert np.abs(back - wanted).max() < 4e-6 * max(1.0, float(np.abs(wanted).max()))


@pytest.mark.parametrize("n", [2, 7, 31, 64, 96, 135, 256, 257])
def test_the_two_factors_are_as_close_as_they_can_be(n):
    a, b = split.find_factors(n)
    assert a * b == n
    assert a <= b
    assert not any(n % d == 0 for d in range(a + 1, int(n**0.5) + 1))
    assert 0 <= split.count_columns(n) - (n // 2 + 1) <= a - 1


@pytest.mark.parametrize("half", ["fp16", "bf16"])
def test_its_bases_are_rounded_once_from_float64(tiny, half):
    import ml_dtypes
    from onnx import numpy_helper

    source = formats.read(tiny)
    model = convert_to_half(build(source.config, source.weights, (128, 96), fft="split"), half)
    constants = {c.name: numpy_helper.to_array(c) for c in model.graph.initializer}
    kind = np.float16 if half == "fp16" else ml_dtypes.bfloat16
    for name, values in split.compute_bases(16, 12).items():
        np.testing.assert_array_equal(constants[f"fft/{name}/{half}"], values.astype(kind))


def test_it_needs_one_size(tiny):
    source = formats.read(tiny)
    with pytest.raises(GlamaError, match=r"give `size=HxW` with `fft=split`"):
        build(source.config, source.weights, fft="split")


# ---------------------------------------------------------------- what it costs


@pytest.mark.parametrize("fft", ["matmul", "split"])
@pytest.mark.parametrize("size", [(64, 96), (128, 104)])
def test_the_multiply_adds_are_those_of_the_graph(tiny, fft, size):
    import onnx
    from onnx import numpy_helper

    source = formats.read(tiny)
    model = build(source.config, source.weights, size, fft=fft)
    for value in model.graph.input:
        value.type.tensor_type.shape.dim[0].dim_value = 1
    model = onnx.shape_inference.infer_shapes(model, data_prop=True)
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in model.graph.value_info}
    weights = {c.name: numpy_helper.to_array(c).shape for c in model.graph.initializer}
    counted = dict.fromkeys(cost.PARTS, 0)
    for node in model.graph.node:
        part = node.name.rstrip("0123456789/").split("/")[0].rstrip("0123456789")
        if node.op_type == "MatMul":
            left = next(weights[name] for name in node.input if name in weights)
            shared = left[-1] if node.input[0] in weights else left[-2]
            counted["fft"] += int(np.prod(shapes[node.output[0]])) * shared
        elif node.op_type == "Conv":
            kernel = weights[node.input[1]]
            part = {"block": "spectral" if kernel[2] == 1 else "local"}.get(part, part)
            counted[part] += int(np.prod(shapes[node.output[0]])) * int(np.prod(kernel[1:]))
        elif node.op_type == "ConvTranspose":
            counted["up"] += (
                int(np.prod(shapes[node.output[0]]))
                // 4
                * int(np.prod(weights[node.input[1]]))
                // (weights[node.input[1]][1])
            )
    assert counted == cost.count_multiply_adds(source.config, size, fft)


def test_at_2048_the_transforms_share_falls_below_4_percent_and_auto_takes_it():
    shares = {}
    for fft in ("matmul", "split"):
        counts = cost.count_multiply_adds(NAMED["lama"], (2048, 2048), fft)
        shares[fft] = counts["fft"] / sum(counts.values())
    assert shares["matmul"] > 0.14
    assert shares["split"] < 0.04
    assert cost.choose_lowering((2048, 2048)) == "split"


def test_auto_takes_the_plain_form_where_it_is_cheaper_or_the_size_is_open():
    assert cost.choose_lowering((512, 512)) == "matmul"
    assert cost.choose_lowering((64, 64)) == "matmul"
    assert cost.choose_lowering((2056, 2056)) == "matmul"  # 257 is prime: there is nothing to split
    assert cost.choose_lowering(None) == "matmul"


@pytest.mark.parametrize("config", [NAMED["lama"], NetworkConfig(ngf=32, n_blocks=4, n_downsampling=1, ratio=0.5)])
@pytest.mark.parametrize("size", [(256, 2048), (2048, 256), (4096, 800), (15000, 800)])
def test_the_cost_of_long_sides_is_that_of_the_layers(config, size):
    def of_a_pixel(height, width):
        return sum(cost.count_multiply_adds(config, (height, width), "matmul").values()) / (height * width)

    (height, width), share = size, cost.long_side(config)
    expected = (1 + share * (width + 2 * height)) / (1 + share * 3 * 512)
    # a transform of real values has width // 2 + 1 columns, of which the 1 counts most in a narrow image
    assert of_a_pixel(height, width) / of_a_pixel(512, 512) == pytest.approx(expected, rel=0.02)
