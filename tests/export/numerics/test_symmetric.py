"""Quantizers around zero: the same network as with zero points, edges and all."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from glama_deploy.export.graph.network import build
from glama_deploy.export.numerics import quantize
from glama_deploy.export.numerics.half import convert_to_half
from glama_deploy.export.numerics.symmetric import make_symmetric
from glama_deploy.export.samples import SAMPLE
from glama_deploy.network import NetworkConfig
from glama_deploy.psnr import compute_psnr
from glama_deploy.reference.random_weights import untrained

#: A scale that fp16 has, so that nothing is rounded on the way.
SCALE = 2.0**-6


def quantized(zero: np.ndarray, padded: bool = False) -> onnx.ModelProto:
    """x [1, 2, H, W] through one quantizer: reflected into a 3×3 convolution with a bias and one without, and straight
    into a 1×1 one, all in one sum; with `padded` the last pads with zeros, which no convolution of ours does."""
    rng = np.random.default_rng(0)
    stored = {"scale": np.float32(SCALE), "zero": zero, "bias": np.array([3, -1], np.float32)}
    stored["pads"] = np.array([0, 0, 1, 1, 0, 0, 1, 1])
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"], name="q"),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["back"], name="back"),
        helper.make_node("Pad", ["back", "pads"], ["pad"], name="pad", mode="reflect"),
    ]
    for name, side, inputs in (("a", 3, ["pad", "bias"]), ("b", 3, ["pad"]), ("c", 1, ["back"])):
        stored[f"{name}/bytes"] = rng.integers(-127, 128, (2, 2, side, side), np.int8)
        stored[f"{name}/scales"] = np.array([2.0**-7, 2.0**-9], np.float32)
        stored[f"{name}/zeros"] = np.zeros(2, np.int8)
        weight = [f"{name}/{part}" for part in ("bytes", "scales", "zeros")]
        nodes.append(helper.make_node("DequantizeLinear", weight, [f"{name}/weight"], name=f"{name}/weight", axis=0))
        pads = {"pads": [0, 0, 0, 1]} if padded and name == "c" else {}
        nodes.append(helper.make_node("Conv", [inputs[0], f"{name}/weight", *inputs[1:]], [name], name=name, **pads))
    nodes.append(helper.make_node("Sum", ["a", "b", *([] if padded else ["c"])], ["y"], name="y"))
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2, "h", "w"]) for name in "xy")
    initializers = [numpy_helper.from_array(np.asarray(values), name) for name, values in stored.items()]
    graph = helper.make_graph(nodes, "g", [x], [y], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


@pytest.mark.parametrize("zero", [np.uint8(0), np.uint8(37), np.uint8(128), np.int8(-46), np.int8(0)])
def test_it_is_the_same_at_every_pixel_the_edges_among_them(zero):
    model = quantized(zero)
    least, most = np.iinfo(zero.dtype).min - float(zero), np.iinfo(zero.dtype).max - float(zero)
    # a little beyond the range: what is cut off must be the same, too
    x = np.random.default_rng(1).uniform(1.1 * least, 1.1 * most, (1, 2, 9, 12)).astype(np.float32) * SCALE
    # sums of about 20, in float32 and in another order
    np.testing.assert_allclose(run(make_symmetric(model), x), run(model, x), rtol=0, atol=1e-4)


def test_each_quantizer_is_signed_without_zero_point_and_right_before_its_convolutions():
    model = make_symmetric(quantized(np.uint8(0)))
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    quantizers = [node for node in model.graph.node if node.op_type == "QuantizeLinear"]
    assert len(quantizers) == 2  # of what is reflected, and of what is not
    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            zeros = stored[node.input[2]]
            assert zeros.dtype == np.int8
            assert not zeros.any()
            readers = {reader.op_type for reader in model.graph.node if node.output[0] in reader.input}
            assert readers == {"DequantizeLinear" if node.op_type == "QuantizeLinear" else "Conv"}


def test_symmetric_quantizers_are_left_unchanged():
    assert "Add" not in {node.op_type for node in make_symmetric(quantized(np.uint8(128))).graph.node}
    assert "Add" in {node.op_type for node in make_symmetric(quantized(np.uint8(0))).graph.node}


def test_a_convolution_that_pads_with_zeros_is_refused():
    with pytest.raises(ValueError, match="c is no convolution without zero padding"):
        make_symmetric(quantized(np.uint8(0), padded=True))


def test_what_is_padded_otherwise_than_by_reflection_is_refused():
    model = quantized(np.uint8(0))
    (pad,) = (node for node in model.graph.node if node.op_type == "Pad")
    (mode,) = (attribute for attribute in pad.attribute if attribute.name == "mode")
    mode.s = b"edge"
    with pytest.raises(ValueError, match="pads otherwise than by reflection"):
        make_symmetric(model)


def test_a_scale_that_fp16_has_not_is_rounded_but_never_to_nothing():
    model = quantized(np.uint8(0))
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    stored["a/scales"].CopyFrom(numpy_helper.from_array(np.array([0.1, 1e-12], np.float32), "a/scales"))
    found = {t.name: numpy_helper.to_array(t) for t in make_symmetric(model).graph.initializer}["a/scales"]
    np.testing.assert_array_equal(found, [np.float32(np.float16(0.1)), 2.0**-24])


@pytest.fixture(scope="module")
def network() -> tuple[onnx.ModelProto, onnx.ModelProto, list[quantize.Sample]]:
    """A small network, the same calibrated by NNCF but for its transposed convolutions, and samples."""
    from glama_deploy.export import samples
    from glama_deploy.io import images

    config = NetworkConfig(ngf=8, n_blocks=2)
    model = build(config, untrained(config))
    photo = images.read_image(SAMPLE).rgb
    cases = [samples._make_case(photo, 1, (64, 64), "general", seed) for seed in range(16)]
    checks = [quantize.Sample(dict(zip(("image", "mask"), c.tensors(), strict=True)), c.missing) for c in cases]
    transposed = [node.name for node in model.graph.node if node.op_type == "ConvTranspose"]
    return model, quantize.quantize(model, checks, checks, ignore=transposed, least=-np.inf).model, checks


def test_around_zero_a_network_is_as_far_from_fp32_as_with_zero_points(network):
    model, full, checks = network
    expected = [quantize._make_runner(model)(sample) for sample in checks]
    runs = [quantize._make_runner(found) for found in (full, make_symmetric(full))]
    before, after = (compute_psnr(quantize._measure_error(run, checks, expected)) for run in runs)
    # Half of the steps would cost 2 dB and more. fp16's rounding of scales moves a single sample by up to 1.5 dB, the
    # mean of 16 samples by less than 0.2.
    assert after == pytest.approx(before, abs=0.3)
    assert quantize.find_int8_convolutions(make_symmetric(full)) == quantize.find_int8_convolutions(full)


def test_half_types_change_no_scale_and_no_byte(network):
    graph = make_symmetric(network[1])
    half = convert_to_half(graph, "fp16")
    bytes_before, bytes_after = (
        {t.name: numpy_helper.to_array(t) for t in found.graph.initializer if t.data_type == TensorProto.INT8}
        for found in (graph, half)
    )
    assert bytes_before.keys() == bytes_after.keys()
    assert all(np.array_equal(values, bytes_after[name]) for name, values in bytes_before.items())
    stored, written = ({t.name: numpy_helper.to_array(t) for t in found.graph.initializer} for found in (graph, half))
    for node in graph.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            scale = written[f"{node.input[1]}/fp16"]
            assert scale.dtype == np.float16
            np.testing.assert_array_equal(scale.astype(np.float32), stored[node.input[1]])


def test_a_convolution_that_is_taken_out_is_fp32_again_and_the_rest_is_not(network):
    model, full, _ = network
    names = {"block0/conv1/l2l", "head/conv"}
    fewer = quantize.restore_fp32(full, model, names)
    taken_out = quantize.find_int8_convolutions(full) - quantize.find_int8_convolutions(fewer)
    assert names <= taken_out
    assert "block0/conv1/l2g" in taken_out  # it reads the same quantized tensor
    assert len(quantize.find_int8_convolutions(fewer)) > len(quantize.find_int8_convolutions(full)) / 2
    onnx.checker.check_model(make_symmetric(fewer), full_check=True)
