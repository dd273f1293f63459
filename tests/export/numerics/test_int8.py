"""TensorRT's int8 graph beside the one for CPUs: what stands where, how far it is from the reference, what is built."""

from __future__ import annotations

import shutil

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from glama_deploy.bundle import Bundle, SizeRange
from glama_deploy.cli.export import main as glama_export
from glama_deploy.engines import build
from glama_deploy.engines.tensorrt import build_script
from glama_deploy.export.numerics import quantize
from glama_deploy.export.numerics.emulate import emulate_half_types
from glama_deploy.export.pipeline import Request, export
from glama_deploy.network import NetworkConfig
from glama_deploy.runtime.base import installed

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")

SMALL = SizeRange(min=(64, 64), opt=(64, 64), max=(128, 128), max_batch=1)


def test_an_engine_is_built_and_its_arithmetic_is_measured_by_emulation(int8_bundle):
    engine = int8_bundle.manifest.engines["tensorrt-rtx"]
    assert engine.precision == "int8+fp16"
    assert engine.files[0].bytes > 100_000
    assert engine.parity == int8_bundle.manifest.graphs["int8+fp16"].parity.model_copy(
        update={"reason": engine.parity.reason}
    )
    assert engine.parity.emulated
    assert engine.parity.passed
    assert 40 <= engine.parity.psnr < 90  # above 90 dB nothing would have been quantized


def test_the_graph_for_cpus_is_the_same_whether_tensorrt_wants_one_or_not(int8_bundle, tiny, photos, tmp_path):
    export(Request(tiny, tmp_path / "b", ("openvino",), "int8", calibration=photos, parity=False))
    alone = Bundle.open(tmp_path / "b").manifest.graphs
    assert alone.keys() == {"fp32", "int8"}
    assert alone["int8"] == int8_bundle.manifest.graphs["int8"]


def test_what_is_int8_for_cpus_is_int8_for_tensorrt_but_transposed_convolutions(int8_bundle):
    graphs = int8_bundle.manifest.graphs
    ours, cpus = (onnx.load(str(int8_bundle.graph(kind))) for kind in ("int8+fp16", "int8"))
    transposed = {node.name for node in ours.graph.node if node.op_type == "ConvTranspose"}
    assert transposed
    assert quantize.find_int8_convolutions(ours) == quantize.find_int8_convolutions(cpus) - transposed
    convolutions = {node.name for node in ours.graph.node if node.op_type in quantize.CONVOLUTIONS}
    assert convolutions - quantize.find_int8_convolutions(ours) == graphs["int8+fp16"].kept.keys()
    for name, reason in graphs["int8+fp16"].kept.items():  # for CPUs the same, but of those
        assert reason == graphs["int8"].kept.get(name) or (name in transposed and "multiplies no bytes" in reason)


def test_all_else_in_the_network_is_fp16(int8_bundle):
    model = onnx.load(str(int8_bundle.graph("int8+fp16")))
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    types = {value.name: value.type.tensor_type.elem_type for value in inferred.graph.value_info}
    types |= {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type in ("Conv", "ConvTranspose", "MatMul", "Relu", "Pad") or node.name.startswith("block"):
            floats = {types[name] for name in (*node.input, *node.output)} - {TensorProto.INT64, TensorProto.INT8}
            assert floats == {TensorProto.FLOAT16}, node.name
    assert model.opset_import[0].version >= 19  # the first whose quantizers may be fp16


@pytest.fixture(scope="module")
def tensorrt_alone(tiny, photos, tmp_path_factory) -> Bundle:
    """For a device that is not here, in bytes, without the network's own output."""
    out = tmp_path_factory.mktemp("int8") / "b"
    settings = {"calibration": photos, "profile": SMALL, "io": "uint8", "predicted": False}
    outcome = export(Request(tiny, out, ("trt",), "int8", **settings))
    assert installed("tensorrt") or "tensorrt is not installed" in outcome.failures["trt"]
    return outcome.bundle


def test_for_tensorrt_alone_the_graph_for_cpus_is_fp32(tensorrt_alone):
    manifest = tensorrt_alone.manifest
    assert manifest.graphs.keys() == {"fp32", "int8+fp16"}
    assert manifest.engines["onnx"].precision == "fp32"
    assert manifest.asked.precision == "int8"


def test_a_graph_for_a_device_is_measured_though_no_engine_is_built(tensorrt_alone):
    parity = tensorrt_alone.manifest.graphs["int8+fp16"].parity
    assert parity.emulated
    assert parity.passed
    assert parity.output == "predicted"  # though the bundle has it not: bytes would hide what is not finite


def test_the_device_builds_it_without_being_told_the_precision(tensorrt_alone, tmp_path):
    shutil.copytree(tensorrt_alone.path, tmp_path / "b")
    assert "--onnx=model.int8+fp16.onnx" in (tmp_path / "b" / build_script.SCRIPT).read_text()
    for precision in (None, "int8"):
        engine = build.add_engine(Bundle.open(tmp_path / "b"), "trt-rtx", SMALL, precision).manifest.engines[
            "tensorrt-rtx"
        ]
        assert engine.precision == "int8+fp16"
        assert engine.parity.emulated


def test_the_commands_end_with_what_could_not_be_built(tiny, photos, tmp_path, capsys):
    if installed("tensorrt"):
        pytest.skip("TensorRT is installed here, so its target may well be built")
    arguments = ["--ckpt", tiny, "--target", "trt", "--precision", "int8", "--calib", photos, "--max-size", "64x64"]
    assert glama_export.run([str(argument) for argument in (*arguments, "--out", tmp_path / "b")]) == 4
    out = capsys.readouterr().out
    assert "TensorRT int8+fp16" in out
    assert "emulated" in out
    assert glama_export.run([*map(str, arguments), "--precision", "int8+fp16", "--out", str(tmp_path / "c")]) == 2
    assert "expected fp32, bf16, fp16, int8\n" in capsys.readouterr().err


def test_layers_beyond_fp16s_range_stay_fp32(overflowing, photos, tmp_path):
    settings = {"calibration": photos, "size": (256, 256)}  # at 64×64 int8 costs more, on CPUs too
    bundle = export(Request(overflowing, tmp_path / "b", ("trt-rtx",), "int8", **settings)).bundle
    graph = bundle.manifest.graphs["int8+fp16"]
    unit = "block0/conv1/g2g"
    full = {name: reason for name, reason in graph.kept.items() if "fp16 ends at 65504" in reason}
    assert {f"{unit}/in", f"{unit}/out"} <= full.keys()  # which would be int8
    model = onnx.load(str(bundle.graph("int8+fp16")))
    assert quantize.find_int8_convolutions(model)
    assert quantize.find_int8_convolutions(model).isdisjoint(graph.kept)
    assert bundle.manifest.engines["tensorrt-rtx"].parity.passed  # and the build checked the types


def test_bytes_with_a_scale_are_not_rounded_in_the_emulation():
    """127 · 0.3 needs more than fp16's eleven bits; an int8 convolution never stores it."""
    scale = np.array(0.3, np.float16)
    stored = {"scale": scale, "zero": np.int8(0)}
    nodes = [
        helper.make_node("Cast", ["x"], ["half"], to=TensorProto.FLOAT16),
        helper.make_node("QuantizeLinear", ["half", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["back"]),
        helper.make_node("Sub", ["back", "back"], ["y"]),
        helper.make_node("Cast", ["y"], ["out"], to=TensorProto.FLOAT),
    ]
    x, out = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in ("x", "out"))
    constants = [numpy_helper.from_array(np.asarray(values), name) for name, values in stored.items()]
    model = helper.make_model(
        helper.make_graph(nodes, "g", [x], [out], constants), opset_imports=[helper.make_opsetid("", 19)], ir_version=9
    )
    shown = emulate_half_types(model)
    shown.graph.output.append(helper.make_tensor_value_info("back", TensorProto.FLOAT, ["n"]))
    import onnxruntime

    session = onnxruntime.InferenceSession(shown.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(["back"], {"x": np.array([1e4], np.float32)})
    assert found[0] == np.float32(127) * scale.astype(np.float32) != np.float32(np.float16(127 * scale))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "settings"),
    [
        (NetworkConfig(ngf=8, n_blocks=1, fill="pull-push"), {}),
        (
            NetworkConfig(ngf=8, n_blocks=1, coarse=NetworkConfig(ngf=8, n_blocks=1), coarse_side=64),
            {"size": (64, 96), "fft": "split", "io": "uint8"},
        ),
    ],
    ids=["interpolated, any size", "two stages, one size, bytes"],
)
def test_other_networks_and_other_ways_to_write_them_build(make_checkpoint, photos, tmp_path, config, settings):
    source, settings = make_checkpoint(config), {"calibration": photos, "profile": SMALL, **settings}
    outcome = export(Request(source, tmp_path / "b", ("trt-rtx",), "int8", **settings))
    assert not outcome.failures
    assert outcome.bundle.manifest.graphs["int8+fp16"].parity.passed
