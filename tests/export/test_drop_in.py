"""Graphs with the inputs and outputs of other programs' models, in the engines that the programs use."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest

import glama_deploy
from glama_deploy.bundle import Bundle
from glama_deploy.cli.export import main as export_main
from glama_deploy.engines.build import add_engine
from glama_deploy.errors import BundleError, GlamaError
from glama_deploy.export.pipeline import Request, export
from glama_deploy.export.samples import SAMPLE
from glama_deploy.io import images

IOS = ("carve", "migan")


@pytest.fixture(scope="module", params=IOS)
def bundle(request, tiny, tmp_path_factory) -> Bundle:
    return export(
        Request(tiny, tmp_path_factory.mktemp("ends") / "bundle", io=request.param, parity_size=(72, 72))
    ).bundle


def make_case(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    image = images.read_image(SAMPLE).rgb[50 : 50 + height, 60 : 60 + width].copy()
    missing = np.zeros((height, width), bool)
    missing[height // 4 : height // 2, width // 3 : width // 2] = True
    return image, missing


def feed(io: str, image: np.ndarray, missing: np.ndarray) -> dict[str, np.ndarray]:
    """The inputs, as Carve's model card and inpaint-web make them."""
    planar = np.ascontiguousarray(image.transpose(2, 0, 1))[None]
    if io == "carve":
        return {"image": planar.astype(np.float32) / 255, "mask": missing[None, None].astype(np.float32)}
    return {"image": planar, "mask": ((~missing) * 255)[None, None].astype(np.uint8)}


def run_onnxruntime(path: Path, feeds: dict[str, np.ndarray]) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (output,) = session.run(None, feeds)
    return output


def run_opencv(path: Path, feeds: dict[str, np.ndarray]) -> np.ndarray:
    network = cv2.dnn.readNetFromONNX(str(path))
    for name, values in feeds.items():
        network.setInput(values, name)
    return network.forward()


@pytest.mark.parametrize("run", [run_onnxruntime, run_opencv])
@pytest.mark.parametrize(("height", "width"), [(64, 96), (77, 101)])
def test_the_output_is_the_inpainters_picture(bundle, tiny, run, height, width):
    image, missing = make_case(height, width)
    output = run(bundle.path / "model.onnx", feed(bundle.manifest.io, image, missing))
    assert output.dtype == (np.float32 if bundle.manifest.io == "carve" else np.uint8)
    found = np.clip(output, 0, 255).astype(np.uint8)[0].transpose(1, 2, 0)  # programs cut fractions off
    np.testing.assert_array_equal(found[~missing], image[~missing])
    expected = glama_deploy.load(tiny, "torch")(image, missing, region="full")
    # a sum in another order may round to the next of 256 levels
    assert np.abs(found.astype(int) - expected).max() <= 1
    assert (found == expected).mean() > 0.999


def test_a_mask_with_a_soft_edge_gives_whole_numbers_too(tiny, tmp_path):
    """A program that scales its mask has values between 0 and 1. Then it cuts the output's fraction off."""
    made = export(Request(tiny, tmp_path / "bundle", io="carve", parity=False)).bundle
    feeds = feed("carve", *make_case(64, 96))
    hard = run_onnxruntime(made.path / "model.onnx", feeds)
    soft = run_onnxruntime(made.path / "model.onnx", feeds | {"mask": feeds["mask"] * np.float32(0.3)})
    assert (soft != hard).any()
    np.testing.assert_array_equal(soft, np.round(soft))


@pytest.mark.parametrize(
    ("io", "names", "types"),
    [("carve", ["image", "mask", "output"], [1, 1, 1]), ("migan", ["image", "mask", "result"], [2, 2, 2])],
)
@pytest.mark.parametrize("size", [None, (64, 72)])
def test_names_and_types_are_those_of_the_model(tiny, tmp_path, io, names, types, size):
    made = export(Request(tiny, tmp_path / "bundle", io=io, size=size, parity=False)).bundle
    graph = onnx.load(str(made.path / "model.onnx")).graph
    values = [*graph.input, *graph.output]
    assert [value.name for value in values] == names
    assert [value.type.tensor_type.elem_type for value in values] == types
    manifest = made.manifest
    assert [tensor.name for tensor in (*manifest.inputs, *manifest.outputs)] == names
    assert {tensor.layout for tensor in (*manifest.inputs, *manifest.outputs)} == {"NCHW"}
    assert manifest.io == io


def test_parity_is_measured_with_known_pixels_exact(bundle):
    parity = bundle.manifest.engines["onnx"].parity
    assert parity.passed
    assert parity.output == "inpainted"
    assert len(parity.cases) >= 2


def test_such_a_bundle_is_not_run_here_and_says_what_it_is_for(bundle):
    model = "the ONNX model of Carve" if bundle.manifest.io == "carve" else "the ONNX pipeline of MI-GAN"
    for use in (lambda: glama_deploy.load(bundle.path), lambda: add_engine(bundle, "openvino", bundle.sizes)):
        with pytest.raises(BundleError, match=rf"is for programs that load {model} .*; export with `io=float`"):
            use()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"targets": ("openvino",)}, "for programs that load an ONNX model; leave out `targets=openvino`"),
        ({"precision": "fp16"}, "is for fp32"),
        ({"fft": "dft"}, "is for fp32 and `fft=matmul` or split"),
        ({"io": "coreml"}, "`io` is 'coreml'; expected float, uint8, carve or migan"),
    ],
)
def test_what_such_a_model_does_not_have_is_refused(tiny, tmp_path, settings, says):
    with pytest.raises(GlamaError, match=says):
        export(Request(**{"checkpoint": tiny, "out": tmp_path / "bundle", "io": "carve", **settings}))
    assert not (tmp_path / "bundle").exists()


def test_the_command_exports_such_a_model(tiny, tmp_path, capsys):
    asked = ["--ckpt", str(tiny), "--io", "carve", "--no-parity", "--out"]
    assert export_main.run([*asked, str(tmp_path / "b")]) == 0
    assert export_main.run([*asked, str(tmp_path / "c"), "--target", "openvino"]) == 2
    assert "leave out --target openvino" in capsys.readouterr().err
