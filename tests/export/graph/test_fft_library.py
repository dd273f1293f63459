"""FFTs as nodes of a library: ONNX's DFT on both engines that run here, our own nodes by their contract."""

from __future__ import annotations

import os

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import TensorProto

from glama_deploy.bundle import Bundle
from glama_deploy.checkpoints import formats
from glama_deploy.errors import GlamaError
from glama_deploy.export.graph.builder import GraphBuilder, Value
from glama_deploy.export.graph.fft_library import DftFFT
from glama_deploy.export.graph.network import build
from glama_deploy.export.numerics.half import convert_to_half
from glama_deploy.export.pipeline import Request, export
from glama_deploy.runtime.openvino import runner as openvino


def skip_where_a_variable_hides_instructions() -> None:
    if os.environ.get("ONEDNN_MAX_CPU_ISA"):
        pytest.skip("OpenVINO's DFT does not keep to ONEDNN_MAX_CPU_ISA (2026.4)")


def run(engine: str, model, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    if engine == "onnxruntime":
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        return session.run(None, feeds)
    core = openvino.core()
    compiled = core.compile_model(
        core.read_model(model.SerializeToString()), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    result = compiled(feeds)
    return [result[port] for port in compiled.outputs]


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
@pytest.mark.parametrize(("h", "w"), [(8, 8), (7, 9), (13, 16), (16, 31), (64, 90)])
@pytest.mark.parametrize("dynamic", [True, False], ids=["any size", "one size"])
def test_dft_nodes_are_torch_fft(engine, h, w, dynamic):
    if engine == "openvino":
        skip_where_a_variable_hides_instructions()
    graph = GraphBuilder()
    fft = DftFFT(graph, None if dynamic else (h, w), like="x")
    graph.add("Identity", [fft.forward("x", 3, "rfft")], "spectrum")
    graph.add("Identity", [fft.inverse("z", 3, "irfft", like="x")], "back")
    sides = ("h", "w") if dynamic else (h, w)
    x_shape, z_shape = ("b", 3, *sides), ("b", 6, sides[0], "f" if dynamic else w // 2 + 1)
    model = graph.model(
        [Value("x", "float32", x_shape), Value("z", "float32", z_shape)],
        [Value("spectrum", "float32", z_shape), Value("back", "float32", x_shape)],
        {},
    )
    rng = np.random.default_rng(h * w)
    x = rng.standard_normal((2, 3, h, w)).astype(np.float32)
    z = rng.standard_normal((2, 3, 2, h, w // 2 + 1)).astype(np.float32)
    spectrum, back = run(engine, model, {"x": x, "z": z.reshape(2, 6, h, -1)})
    wanted = torch.fft.rfft2(torch.from_numpy(x).double(), norm="ortho").numpy()
    found = spectrum.reshape(2, 3, 2, h, -1)
    # float32; ONNX Runtime's algorithm for lengths that are no power of 2 (Bluestein's) loses two digits more
    tolerance = 1e-4 if engine == "onnxruntime" else 1e-5
    assert np.abs(found[:, :, 0] - wanted.real).max() < tolerance
    assert np.abs(found[:, :, 1] - wanted.imag).max() < tolerance
    half = torch.from_numpy(z[:, :, 0] + 1j * z[:, :, 1])
    assert np.abs(back - torch.fft.irfft2(half, s=(h, w), norm="ortho").numpy()).max() < tolerance


@pytest.mark.parametrize("half", ["fp16", "bf16"])
@pytest.mark.parametrize("fft", ["dft", "plugin"])
def test_a_librarys_transforms_stay_float32_at_every_precision(tiny, fft, half):
    source = formats.read(tiny)
    model = convert_to_half(build(source.config, source.weights, fft=fft), half)
    casts = {node.output[0]: node.attribute[0].i for node in model.graph.node if node.op_type == "Cast"}
    makers = {name: node for node in model.graph.node for name in node.output}
    for node in model.graph.node:
        if node.name.endswith("rfft/column"):  # from DFT to DFT nothing is rounded to a half type
            between = makers[node.input[0]]
            while between.op_type not in ("DFT", "Conv", "Transpose"):
                assert between.op_type in ("Reshape",) or between.name.endswith("/fp32"), between.name
                between = makers[between.input[0]]
    found = 0
    for node in model.graph.node:
        if node.op_type in ("DFT", "RFFT2", "IRFFT2"):
            found += 1
            assert all(casts.get(name, TensorProto.FLOAT) == TensorProto.FLOAT for name in node.input)
            if node.op_type == "DFT":
                axes = [a for a in node.attribute if a.name == "axis"]
                assert len(axes) == (half == "fp16")  # opset 18 has an attribute, opset 22 an input
                assert len(node.input) == 3 or half == "fp16"
    assert found == {"dft": 2 * 4, "plugin": 2 * 2}[fft]


def test_a_plugins_nodes_say_which_plugin_they_want(tiny):
    source = formats.read(tiny)
    model = build(source.config, source.weights, fft="plugin")
    ours = [node for node in model.graph.node if node.domain == "glama"]
    assert [node.op_type for node in ours] == ["RFFT2", "IRFFT2"] * 2
    for node in ours:
        attributes = {a.name: a.s.decode() for a in node.attribute}
        assert attributes == {"plugin_namespace": "glama", "plugin_version": "1"}
    assert {opset.domain for opset in model.opset_import} == {"", "glama"}


def test_a_bundle_with_dft_nodes_is_the_reference_on_both_engines(tiny, tmp_path):
    skip_where_a_variable_hides_instructions()
    export(Request(tiny, tmp_path / "b", ("openvino",), fft="dft"))
    manifest = Bundle.open(tmp_path / "b").manifest
    assert manifest.fft == "dft"
    for engine in manifest.engines.values():
        assert engine.parity.passed, engine.name


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"fft": "dft", "targets": ("trt-rtx",)}, "TensorRT-RTX has neither DFT nodes nor plugins.*use `fft=matmul`"),
        ({"fft": "plugin", "targets": ("trt", "trt-rtx")}, "TensorRT-RTX has neither"),
        ({"fft": "plugin", "targets": ("openvino",)}, "`fft=plugin` is for TensorRT 10 alone: give `targets=trt`"),
        ({"fft": "split"}, "`fft=split` is for one size"),
        ({"fft": "fast"}, "`fft` is 'fast'; expected auto, matmul, split, dft, plugin"),
        ({"io": "int4"}, "`io` is 'int4'; expected float, uint8, carve or migan"),
    ],
)
def test_unsupported_settings_of_a_target_are_refused_before_any_work(tiny, tmp_path, settings, says):
    with pytest.raises(GlamaError, match=says):
        export(Request(tiny, tmp_path / "b", **settings))
    assert not (tmp_path / "b").exists()
