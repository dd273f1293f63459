"""3×3 convolutions with a quarter of the multiplications, in ONNX Runtime."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glama_deploy.export.graph.builder import GraphBuilder, Value
from glama_deploy.export.graph.network import build
from glama_deploy.network import NetworkConfig
from glama_deploy.reference.random_weights import untrained
from glama_deploy.runtime.onnxruntime import model_file, winograd

#: Wide enough, barely: 64 channels are local, 192 global.
WIDE = NetworkConfig(ngf=32, n_blocks=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


def open_models(model, folder):
    """The plain and the rewritten model as functions of the inputs, and the names of the rewritten convolutions."""
    path = folder / "model.onnx"
    onnx.save_model(model, str(path))
    message = model_file.read_model(path)
    found, weights = winograd.rewrite(message)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    plain, fast = (
        onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        for data in (model.SerializeToString(), message.SerializeToString())
    )
    return lambda inputs: plain.run(None, inputs), lambda inputs: fast.run(None, inputs | weights), found


def make_convolution(channels=64, outputs=64, *, border=1, mode="reflect", side=3, bias=False, **attributes):
    """A model of one convolution of x [B, C, H, W] of any size."""
    rng, graph = np.random.default_rng(1), GraphBuilder()
    padded = graph.add("Pad", ["x", graph.ints(0, 0, border, border, 0, 0, border, border)], "pad", mode=mode)
    groups = attributes.get("group", 1)
    weights = [graph.constant("w", rng.standard_normal((outputs, channels // groups, side, side)).astype(np.float32))]
    if bias:
        weights.append(graph.constant("b", 100 * rng.standard_normal(outputs).astype(np.float32)))
    graph.add("Conv", [padded, *weights], "conv", kernel_shape=[side, side], **attributes)
    graph.add("Relu", ["conv"], "y")
    shapes = ("batch", channels, "height", "width"), ("batch", outputs, "out_height", "out_width")
    return graph.model([Value("x", "float32", shapes[0])], [Value("y", "float32", shapes[1])], {})


def make_pictures(height, width, batch=1):
    rng = np.random.default_rng(0)
    image = rng.random((batch, 3, height, width), np.float32)
    return {"image": image, "mask": (rng.random((batch, 1, height, width)) < 0.3).astype(np.float32)}


@settings(max_examples=25)
@given(
    st.integers(2, 20),
    st.integers(2, 23),
    st.integers(1, 3),
    st.sampled_from([(64, 64), (64, 80), (96, 64)]),
    st.booleans(),
)
def test_winograd_gives_the_same_result_for_any_size(folder, height, width, batch, channels, bias):
    plain, fast, found = open_models(make_convolution(*channels, bias=bias), folder)
    assert found == ["conv"]
    x = {"x": np.random.default_rng(height).standard_normal((batch, channels[0], height, width)).astype(np.float32)}
    expected, there = plain(x)[0], fast(x)[0]
    assert there.shape == expected.shape == (batch, channels[1], height, width)
    # up to 96·9 products of order 1: a rounding of fp32 is 6e-8 of the largest; the method's sums have some times that
    assert np.abs(there - expected).max() < 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize(
    "changes",
    [
        {"strides": [2, 2]},
        {"dilations": [2, 2]},
        {"pads": [1, 1, 1, 1]},
        {"group": 2, "channels": 128, "outputs": 128},
        {"border": 2},
        {"mode": "constant"},
        {"mode": "edge"},
        {"side": 1},
        {"channels": 32},
        {"outputs": 32},
    ],
)
def test_other_convolutions_are_left_alone(folder, changes):
    plain, fast, found = open_models(make_convolution(**changes), folder)
    assert found == []
    x = {"x": np.random.default_rng(0).standard_normal((1, changes.get("channels", 64), 12, 12)).astype(np.float32)}
    np.testing.assert_array_equal(fast(x)[0], plain(x)[0])


@pytest.mark.parametrize("size", [None, (72, 40)])
def test_the_network_computes_the_same_with_a_quarter_of_the_multiplications(folder, size):
    plain, fast, found = open_models(build(WIDE, untrained(WIDE), size, ("inpainted", "predicted")), folder)
    assert len(found) == 3 * 2 * WIDE.n_blocks  # l2l, l2g and g2l of a block's two layers
    for height, width in [size] if size else [(64, 64), (72, 40), (16, 24), (136, 264)]:
        inputs = make_pictures(height, width, batch=2)
        for expected, there in zip(plain(inputs), fast(inputs), strict=True):
            np.testing.assert_allclose(there, expected, rtol=0, atol=2e-5)  # the bound of parity in fp32


def test_no_3x3_convolution_of_the_blocks_is_left(folder):
    model = build(WIDE, untrained(WIDE))
    onnx.save_model(model, str(folder / "model.onnx"))
    message = model_file.read_model(folder / "model.onnx")
    found, weights = winograd.rewrite(message)
    rewritten = onnx.load_from_string(message.SerializeToString())
    onnx.checker.check_model(rewritten)
    kept = {node.name for node in rewritten.graph.node}
    assert kept.isdisjoint(found)
    assert not any(name.startswith("block") and name.endswith("_pad") for name in kept)
    assert {value.name for value in rewritten.graph.input} == {"image", "mask", "window", *weights}
    assert len(weights) == len(found)


@pytest.mark.parametrize("lowering", ["split", "dft"])
def test_the_method_serves_every_lowering_of_the_fft(folder, lowering):
    plain, fast, found = open_models(build(WIDE, untrained(WIDE), (64, 96), fft=lowering), folder)
    assert len(found) == 3 * 2 * WIDE.n_blocks
    inputs = make_pictures(64, 96)
    np.testing.assert_allclose(fast(inputs)[0], plain(inputs)[0], rtol=0, atol=2e-5)  # the bound of parity in fp32


def test_both_stages_of_a_network_keep_their_own_size(folder):
    coarse = NetworkConfig(ngf=32, n_blocks=1)
    config = NetworkConfig(ngf=32, n_blocks=1, coarse=coarse, coarse_side=64)
    plain, fast, found = open_models(build(config, untrained(config)), folder)
    assert len(found) == 2 * 6
    inputs = make_pictures(128, 96)
    np.testing.assert_allclose(fast(inputs)[0], plain(inputs)[0], rtol=0, atol=2e-5)  # the bound of parity in fp32


def test_a_convolution_that_also_another_node_reads_keeps_its_usual_form(folder):
    graph, rng = GraphBuilder(), np.random.default_rng(0)
    kernels = [graph.constant(f"w{n}", rng.standard_normal((64, 64, 3, 3)).astype(np.float32)) for n in range(2)]
    bias = graph.constant("b", rng.standard_normal(64).astype(np.float32))
    padded = graph.add("Pad", ["x", graph.ints(0, 0, 1, 1, 0, 0, 1, 1)], "pad", mode="reflect")
    first, second = (graph.add("Conv", [padded, kernel, bias], f"conv{n}") for n, kernel in enumerate(kernels))
    pointwise = graph.constant("p", rng.standard_normal((64, 64, 1, 1)).astype(np.float32))
    one = graph.add("Conv", [graph.add("Add", [first, second], "both"), pointwise, bias], "pointwise")
    graph.add("Add", [graph.add("Add", [one, "x"], "residual"), first], "sum")
    graph.add("Abs", [second], "other")
    scaled = graph.add("Add", ["sum", graph.scalar(3.0)], "shifted")
    graph.add("Abs", [scaled], "y")
    shape = ("batch", 64, "height", "width")
    outputs = [Value(name, "float32", shape) for name in ("y", "other", "both", "pointwise")]
    plain, fast, found = open_models(graph.model([Value("x", "float32", shape)], outputs, {}), folder)
    assert found == ["conv0", "conv1"]
    x = {"x": rng.standard_normal((2, 64, 9, 14)).astype(np.float32)}
    for expected, there in zip(plain(x), fast(x), strict=True):
        # as above; a second product of 64 values follows
        assert np.abs(there - expected).max() < 2e-5 * np.abs(expected).max()


def test_the_kernel_is_transformed_as_in_the_papers_equation():
    kernel = np.random.default_rng(0).standard_normal((2, 3, 3, 3)).astype(np.float32)
    _, factor, _ = winograd.make_matrices()
    expected = np.stack([factor @ each @ factor.T for each in kernel.reshape(6, 3, 3).astype(np.float64)])
    found = winograd.transform_kernel(kernel)
    # nine products of order 1 in fp32
    np.testing.assert_allclose(found.transpose(2, 1, 0).reshape(6, 6, 6), expected, rtol=0, atol=2e-6)
