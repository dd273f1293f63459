from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from glama_deploy.bundle import ANY_SIZE, DEFAULT_PROFILE, Bundle
from glama_deploy.checkpoints import formats
from glama_deploy.engines.build import add_engine
from glama_deploy.errors import GlamaError
from glama_deploy.export import parity, samples
from glama_deploy.export.graph.network import OUTPUTS, build
from glama_deploy.export.numerics import ranges
from glama_deploy.export.numerics.emulate import EmulatedRunner, emulate_half_types
from glama_deploy.export.numerics.half import convert_to_half
from glama_deploy.export.pipeline import Request, export
from glama_deploy.fourier.bases import column_basis, inverse_row_basis, row_basis

HALF = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}


@pytest.fixture(scope="module")
def source(tiny: Path) -> formats.Checkpoint:
    return formats.read(tiny)


def types(model: onnx.ModelProto) -> dict[str, int]:
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    values = (*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output)
    found = {value.name: value.type.tensor_type.elem_type for value in values}
    return found | {c.name: c.data_type for c in inferred.graph.initializer}


# ---------------------------------------------------------------- the types in the graph


@pytest.mark.parametrize("half", ["fp16", "bf16"])
@pytest.mark.parametrize("size", [None, (64, 96)])
def test_every_convolution_and_product_computes_in_the_half_type(source, half, size):
    model = convert_to_half(build(source.config, source.weights, size), half)
    of = types(model)
    for node in model.graph.node:
        if node.op_type in ("Conv", "ConvTranspose", "MatMul", "Relu", "Pad") or node.name.startswith("block"):
            floats = {of[name] for name in (*node.input, *node.output)} - {TensorProto.INT64}
            assert floats == {HALF[half]}, node.name


@pytest.mark.parametrize("size", [None, (64, 96)])
def test_inputs_outputs_and_compositing_stay_float32(source, size):
    model = convert_to_half(build(source.config, source.weights, size, ("inpainted", "predicted")), "fp16")
    of = types(model)
    for name in ("image", "mask", "inpainted", "predicted", "compose/masked"):
        assert of[name] == TensorProto.FLOAT


def test_angles_are_computed_in_float32_and_the_bases_cast_once(source):
    model = convert_to_half(build(source.config, source.weights), "fp16")
    of = types(model)
    for node in model.graph.node:
        if node.op_type in ("Cos", "Sin", "Div", "Sqrt"):
            assert {of[name] for name in (*node.input, *node.output)} <= {TensorProto.FLOAT, TensorProto.INT64}
    casts = [node.input[0] for node in model.graph.node if node.op_type == "Cast" and node.name.endswith("/fp16")]
    bases = ["fft/row", "fft/column", "fft/column_inverse", "fft/row_inverse"]
    assert sorted(casts) == sorted([*bases, "compose/stacked"])


@pytest.mark.parametrize("size", [None, (64, 96)])
def test_a_fourier_unit_has_no_cast_and_no_transpose(source, size):
    """Beyond the two pairs of products, the convolution and the pointwise there are only the free reshapes."""
    model = convert_to_half(build(source.config, source.weights, size), "fp16")
    unit = Counter(node.op_type for node in model.graph.node if node.name.startswith("block0/conv1/g2g/"))
    assert unit == {"MatMul": 4, "Reshape": 4, "Conv": 3, "Relu": 2, "Add": 1}


def test_static_bases_are_rounded_once_from_float64(source):
    model = convert_to_half(build(source.config, source.weights, (64, 104)), "fp16")
    constants = {c.name: numpy_helper.to_array(c) for c in model.graph.initializer}
    for name, basis in (
        ("fft/row", row_basis(13)),
        ("fft/column", column_basis(8)),
        ("fft/column_inverse", column_basis(8).T),
        ("fft/row_inverse", inverse_row_basis(13)),
    ):
        np.testing.assert_array_equal(constants[f"{name}/fp16"], basis.astype(np.float16))


def test_a_node_that_is_kept_computes_in_float32_between_two_casts(source):
    kept = "block0/conv1/g2g/spectrum"
    model = convert_to_half(build(source.config, source.weights, (64, 64)), "fp16", {kept})
    of = types(model)
    (node,) = [node for node in model.graph.node if node.name == kept]
    assert {of[name] for name in (*node.input, *node.output)} == {TensorProto.FLOAT}
    with pytest.raises(ValueError, match="no node is called nonsense"):
        convert_to_half(model, "fp16", {"nonsense"})


# ---------------------------------------------------------------- the emulation, on cases that are known


def tiny_model(nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray], half: int = TensorProto.FLOAT16):
    """float32 x [1, N] → cast to half → nodes from `h` to `y` → cast back to `out`."""
    cast_in = helper.make_node("Cast", ["x"], ["h"], name="in", to=half)
    cast_out = helper.make_node("Cast", ["y"], ["out"], name="out", to=TensorProto.FLOAT)
    io = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["a", "b"]) for name in ("x", "out")]
    initializers = [numpy_helper.from_array(values, name) for name, values in constants.items()]
    graph = helper.make_graph([cast_in, *nodes, cast_out], "g", io[:1], io[1:], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        emulate_half_types(model).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"x": x})[0]


def test_a_value_is_rounded_to_fp16_to_nearest_even_and_overflows_to_infinity():
    model = tiny_model([helper.make_node("Identity", ["h"], ["y"])], {})
    x = np.array([[1 + 2**-11, 1 + 3 * 2**-11, 0.1, 65519.0, 65520.0, 2**-25, -1e9]], np.float32)
    with np.errstate(over="ignore"):
        expected = x.astype(np.float16).astype(np.float32)
    assert expected[0, 0] == 1
    assert np.isinf(expected[0, 4])
    np.testing.assert_array_equal(run(model, x), expected)


def test_each_node_rounds_its_result():
    """(1 + 2⁻¹¹·1.5) − 1 is 0 or 2⁻¹⁰ where the sum is stored in fp16, and 1.5·2⁻¹¹ where it is not."""
    nodes = [helper.make_node("Add", ["h", "one"], ["s"]), helper.make_node("Sub", ["s", "one"], ["y"])]
    model = tiny_model(nodes, {"one": np.array([[1]], np.float16)})
    assert run(model, np.array([[1.5 * 2**-11]], np.float32))[0, 0] == np.float32(2**-10)


def test_products_are_added_in_float32():
    """2048 + 1 + 1 is 2050 in float32, and stays 2048 where each sum is rounded to fp16."""
    model = tiny_model([helper.make_node("MatMul", ["h", "w"], ["y"])], {"w": np.ones((3, 1), np.float16)})
    assert run(model, np.array([[2048, 1, 1]], np.float32))[0, 0] == 2050


def test_a_product_that_overflows_is_infinite():
    model = tiny_model([helper.make_node("Mul", ["h", "h"], ["y"])], {})
    assert np.isinf(run(model, np.array([[300]], np.float32))[0, 0])


@pytest.mark.parametrize(("half", "decibels"), [("fp16", 55), ("bf16", 35)])
def test_the_typed_network_is_close_to_the_reference(source, half, decibels):
    model = convert_to_half(build(source.config, source.weights, None, ("inpainted", "predicted")), half)
    cases = samples.parity_cases(ANY_SIZE)[2:4]
    expected = parity.run_reference(source, cases)
    found = parity.compare(EmulatedRunner(model, half, ANY_SIZE), expected, "predicted", half)
    assert found.passed
    assert found.psnr > decibels
    exact = parity.compare(
        EmulatedRunner(build(source.config, source.weights, None, OUTPUTS), "fp32", ANY_SIZE),
        expected,
        "predicted",
        "fp32",
    )
    assert exact.passed
    assert found.max_abs_error > 10 * exact.max_abs_error  # it does round


# ---------------------------------------------------------------- ranges


def test_a_network_that_overflows_in_plain_fp16_comes_out_finite_and_close(overflowing, tmp_path):
    loud = formats.read(overflowing)
    case = samples.parity_cases(ANY_SIZE)[2]
    expected = parity.run_reference(loud, [case])
    plain = convert_to_half(build(loud.config, loud.weights, None, OUTPUTS), "fp16")
    found = parity.compare(EmulatedRunner(plain, "fp16", ANY_SIZE), expected, "predicted", "fp16")
    assert found.max_abs_error == float("inf")

    outcome = export(Request(overflowing, tmp_path / "b", ("trt-rtx",), "fp16", size=(256, 256)))
    manifest = Bundle.open(tmp_path / "b").manifest
    kept = manifest.graphs["fp16"].kept
    assert any("rfft" in node for node in kept)
    assert all("fp16 ends at 65504" in reason for reason in kept.values())
    assert all(node.startswith("block0/conv1/g2g/") for node in kept)
    if not outcome.failures:
        engine = manifest.engines["tensorrt-rtx"]
        assert engine.parity.passed
        assert engine.parity.psnr > 55


def test_the_mean_bounds_the_spectrum(source):
    """|X| ≤ √(HW)·mean|x|, with equality at DC for a ReLU's output; the recorded range is that bound."""
    model = build(source.config, source.weights)
    case = samples.parity_cases(ANY_SIZE)[2]
    largest = ranges.measure_ranges(model, [case.tensors()])
    unit = "block0/conv1/g2g"
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    for name in (f"{unit}/in_relu", f"{unit}/rfft/interleave"):
        probe.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(probe.SerializeToString(), providers=["CPUExecutionProvider"])
    _, x, spectrum = session.run(None, dict(zip(("image", "mask"), case.tensors(), strict=True)))
    bound = np.sqrt(x.shape[2] * x.shape[3]) * np.abs(x).mean((2, 3)).max()
    assert largest[f"{unit}/rfft/interleave"] == pytest.approx(bound, rel=1e-5)
    assert np.abs(spectrum).max() == pytest.approx(bound, rel=1e-5)
    assert largest[f"{unit}/in_relu"] == np.abs(x).max()
    dc = torch.fft.rfft2(torch.from_numpy(x), norm="ortho")[..., 0, 0]
    assert float(dc.abs().max()) == pytest.approx(bound, rel=1e-5)


def test_values_near_either_end_keep_their_nodes_in_float32(source):
    model = build(source.config, source.weights)
    quiet = {"block0/local": 1.0}
    assert not ranges.find_out_of_range(model, quiet, "fp16")
    loud = ranges.find_out_of_range(model, {"block0/local": 20000.0}, "fp16")
    assert "block0/local" in loud
    assert len(loud) > 1  # those that take it, too
    assert not ranges.find_out_of_range(model, {"block0/local": 20000.0}, "bf16")
    assert "loses digits" in ranges.find_out_of_range(model, {"block0/local": 1e-5}, "fp16")["block0/local"]
    assert "block0/local" in ranges.find_out_of_range(model, {"block0/local": float("inf")}, "bf16")


def test_a_weight_past_the_end_keeps_its_node_in_float32(source):
    weights = {**source.weights, "model.1.ffc.convl2l.weight": source.weights["model.1.ffc.convl2l.weight"].copy()}
    weights["model.1.ffc.convl2l.weight"][0, 0, 0, 0] = 1e7
    assert "stem/l2l" in ranges.find_out_of_range(build(source.config, weights), {}, "fp16")


# ---------------------------------------------------------------- through the pipeline


def test_a_half_engine_is_built_from_the_typed_graph_and_measured_by_emulation(tiny, tmp_path):
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    export(Request(tiny, tmp_path / "b", ("trt-rtx",), "fp16", size=(128, 128)))
    bundle = Bundle.open(tmp_path / "b")
    engine = bundle.manifest.engines["tensorrt-rtx"]
    assert engine.precision == "fp16"
    rebuilt = add_engine(bundle, "tensorrt-rtx", DEFAULT_PROFILE)  # on the device, without saying the precision again
    assert rebuilt.manifest.engines["tensorrt-rtx"].precision == "fp16"
    assert engine.parity.passed
    assert engine.parity.emulated
    assert bundle.graph("fp16").name == "model.fp16.onnx"
    assert bundle.graph("fp16").stat().st_size < 0.6 * bundle.graph("fp32").stat().st_size


def test_calibration_photos_are_checked(tiny, tmp_path):
    request = Request(tiny, tmp_path / "b", ("trt-rtx",), "fp16", size=(64, 64))
    (tmp_path / "photos").mkdir()
    for folder, says in ((tmp_path / "nothing", "is not a folder"), (tmp_path / "photos", "has no photos")):
        with pytest.raises(GlamaError, match=says):
            export(Request(**{**request.__dict__, "calibration": folder}))
    Image.fromarray(np.full((80, 50, 3), 90, np.uint8)).save(tmp_path / "photos" / "a.png")
    (case,) = samples.calibration_cases(tmp_path / "photos", (64, 96))
    assert case.image.shape == (1, 64, 96, 3)
    assert not (tmp_path / "b").exists()


def test_an_openvino_ir_has_no_bf16(tiny, tmp_path):
    with pytest.raises(GlamaError, match="load it with precision bf16"):
        export(Request(tiny, tmp_path / "b", ("openvino",), "bf16"))


def test_bf16_keeps_transposed_convolutions_in_float32_and_builds(tiny, tmp_path):
    """TensorRT-RTX compiles no bf16 of them; with them in float32 the engine comes out."""
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    outcome = export(Request(tiny, tmp_path / "b", ("trt-rtx",), "bf16", size=(64, 64), parity=False))
    assert not outcome.failures
    kept = outcome.bundle.manifest.graphs["bf16"].kept
    assert {"up0/conv", "up1/conv", "up2/conv"} <= kept.keys()
    assert "no bf16" in kept["up0/conv"]
