"""Networks that TensorRT-RTX parsed for real: parsing needs no GPU."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from glama_deploy.engines.tensorrt import inspection
from glama_deploy.engines.tensorrt.inspection import Contents, Kind
from glama_deploy.errors import EngineError

trt = pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")


class Parsed:
    """A network, with what it lives on kept alive."""

    def __init__(self, path: str) -> None:
        logger = trt.Logger(trt.Logger.ERROR)
        self._builder = trt.Builder(logger)
        self.network = self._builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        self._parser = trt.OnnxParser(self.network, logger)
        assert self._parser.parse_from_file(path)


@pytest.fixture(scope="module")
def parsed(tiny_bundle, tmp_path_factory) -> Callable[..., Parsed]:
    """A function that gives the tiny network in fp16, but for the nodes that are to be kept."""
    import onnx

    from glama_deploy.export.numerics.half import convert_to_half

    def parse(*keep: str) -> Parsed:
        model = onnx.load(str(tiny_bundle.path / "model.onnx"))
        path = str(tmp_path_factory.mktemp("half") / "half.onnx")
        onnx.save(convert_to_half(model, "fp16", keep), path)
        return Parsed(path)

    return parse


@pytest.fixture(scope="module")
def half(parsed) -> Parsed:
    return parsed()


@pytest.fixture(scope="module")
def mixed(parsed) -> Parsed:
    """fp16, but for the transposed convolutions."""
    return parsed("up0/conv", "up1/conv", "up2/conv")


def test_all_layers_of_a_half_network_compute_in_half(half):
    inspection.check_types(trt, half.network, "fp16", ())


def test_a_layer_of_another_type_is_an_error_with_both_types_and_the_count(half, mixed):
    with pytest.raises(
        EngineError, match=r"layer stem/l2l \(convolution\) has fp16 where fp32 was asked for, (\d+) of"
    ):
        inspection.check_types(trt, half.network, "fp32", ())
    with pytest.raises(EngineError, match=r"layer up0/conv \(deconvolution\) has fp32 where fp16 .*, 3 of \d+ such"):
        inspection.check_types(trt, mixed.network, "fp16", ())


def test_kept_layers_may_have_any_type(mixed):
    inspection.check_types(trt, mixed.network, "fp16", ("up0/conv", "up1/conv", "up2/conv"))
    with pytest.raises(EngineError, match="layer up1/conv"):
        inspection.check_types(trt, mixed.network, "fp16", ("up0/conv", "up2/conv"))


@pytest.fixture(scope="module")
def in_bytes(int8_bundle) -> Parsed:
    return Parsed(str(int8_bundle.graph("int8+fp16")))


def test_a_network_in_int8_multiplies_bytes_except_in_kept_layers(in_bytes, half, int8_bundle):
    kept = int8_bundle.manifest.graphs["int8+fp16"].kept
    inspection.check_types(trt, in_bytes.network, "int8+fp16", kept)
    with pytest.raises(
        EngineError, match=r"layer up0/conv \(deconvolution\) has fp16 where int8\+fp16 was .* `precision=int8`$"
    ):
        inspection.check_types(trt, in_bytes.network, "int8+fp16", kept.keys() - {"up0/conv"})
    with pytest.raises(EngineError, match=r"layer stem/l2l \(convolution\) has fp16 where int8\+fp16"):
        inspection.check_types(trt, half.network, "int8+fp16", kept)


def test_convolutions_of_bytes_are_counted_as_int8(in_bytes, int8_bundle):
    contents = inspection.inspect_network(trt, in_bytes.network)
    kept = int8_bundle.manifest.graphs["int8+fp16"].kept
    not_int8 = sum(not name.startswith("up") for name in kept)
    (count,) = (kind.count for kind in contents.kinds if (kind.type, kind.precision) == ("CONVOLUTION", "int8"))
    assert count > not_int8
    assert Kind("CONVOLUTION", "fp16", not_int8) in contents.kinds
    assert Kind("DECONVOLUTION", "fp16", 3) in contents.kinds
    assert any(kind.type == "QUANTIZE" and kind.precision == "int8" for kind in contents.kinds)
    assert contents.casts == 2  # as in fp16 alone
    assert contents.weights["int8"] > 50_000  # the rest of the tiny network's has more: the spectra's and the last


def test_layers_casts_and_weights_are_counted(half, mixed):
    contents = inspection.inspect_network(trt, half.network)
    assert contents.source == "network"
    assert contents.layers == half.network.num_layers
    assert Kind("DECONVOLUTION", "fp16", 3) in contents.kinds
    assert contents.casts == 2  # into half behind the input, out of it before the output
    assert contents.weights["fp16"] > 100 * contents.weights["fp32"]
    other = inspection.inspect_network(trt, mixed.network)
    assert Kind("DECONVOLUTION", "fp32", 3) in other.kinds
    assert other.casts > contents.casts
    assert other.weights["fp32"] > 1000


def test_layers_that_compute_fft_matrices_are_about_sizes(half):
    kinds = inspection.inspect_network(trt, half.network).kinds
    assert any(kind.is_about_sizes and kind.type == "UNARY" for kind in kinds)  # the sines and cosines
    assert not any(kind.type == "UNARY" and not kind.is_about_sizes for kind in kinds)


def test_inputs_and_outputs_have_types_and_shapes(half):
    ports = {port.name: port for port in inspection.inspect_network(trt, half.network).ports}
    assert ports["mask"].shape == (-1, 1, -1, -1)
    assert not ports["mask"].is_output
    assert ports["inpainted"].is_output
    assert {port.dtype for port in ports.values()} == {"fp32"}


def test_the_inspectors_layers_are_counted_by_type_and_precision():
    layers = [
        {"Name": "a", "LayerType": "CaskConvolution", "Outputs": [{"Format/Datatype": "Half NHWC8"}]},
        {"Name": "b", "LayerType": "CaskConvolution", "Outputs": [{"Format/Datatype": "Half NHWC8"}]},
        {"Name": "d", "LayerType": "kgen", "Outputs": [{"Format/Datatype": "BFloat16"}]},
        {"Name": "c", "LayerType": "Reformat", "Outputs": [{"Format": "Linear", "Datatype": "FP32"}]},
        {"Name": "e", "LayerType": "kgen", "Outputs": [{"Datatype": "Int8"}]},
        # TensorRT 11's form
        {"Name": "f", "LayerType": "gemm", "Outputs": [{"Format": "Row major linear FP32 format", "DataType": "Half"}]},
        {"Name": "g", "LayerType": "cast", "Outputs": [{"Format": "Row major linear FP16 format (kLINEAR)"}]},
    ]
    kinds = inspection.parse_layers(json.dumps({"Layers": layers, "Bindings": ["image"]}))
    assert kinds == (
        Kind("CaskConvolution", "fp16", 2),
        Kind("kgen", "bf16", 1),
        Kind("Reformat", "fp32", 1),
        Kind("kgen", "int8", 1),
        Kind("gemm", "fp16", 1),
        Kind("cast", "fp16", 1),
    )
    assert Contents("engine", kinds, {}, ()).shuffles == 1


def test_an_engine_is_read_by_tensorrts_inspector():
    layers = [{"Name": "a", "LayerType": "Reformat", "Outputs": [{"Format/Datatype": "Half"}]}]
    inspector = SimpleNamespace(get_engine_information=lambda form: json.dumps({"Layers": layers, "form": str(form)}))
    engine = SimpleNamespace(
        num_io_tensors=2,
        create_engine_inspector=lambda: inspector,
        get_tensor_name=lambda index: ("image", "inpainted")[index],
        get_tensor_mode=lambda name: trt.TensorIOMode.INPUT if name == "image" else trt.TensorIOMode.OUTPUT,
        get_tensor_dtype=lambda name: trt.DataType.FLOAT,
        get_tensor_shape=lambda name: (-1, 3, -1, -1),
    )
    contents = inspection.inspect_engine(trt, engine)
    assert (contents.source, contents.kinds) == ("engine", (Kind("Reformat", "fp16", 1),))
    assert [(port.name, port.is_output, port.dtype) for port in contents.ports] == [
        ("image", False, "fp32"),
        ("inpainted", True, "fp32"),
    ]


def test_layers_without_details_are_counted_as_unknown():
    assert inspection.parse_layers('{"Layers": ["a", "b"]}') == (Kind("unknown", "", 2),)
