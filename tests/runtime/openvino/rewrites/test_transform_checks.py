"""A transform that the manifest promises is found, or its absence is said."""

from __future__ import annotations

import logging
import os
import shutil
from itertools import product
from pathlib import Path

import numpy as np
import onnx
import pytest

from glama_deploy.bundle import Bundle, artifact
from glama_deploy.export.graph.network import build
from glama_deploy.fourier import split
from glama_deploy.network import NetworkConfig
from glama_deploy.reference.random_weights import untrained
from glama_deploy.runtime.base import Request
from glama_deploy.runtime.devices import CPU
from glama_deploy.runtime.onnxruntime import runner as onnxruntime
from glama_deploy.runtime.openvino import compiled_models
from glama_deploy.runtime.openvino import runner as openvino
from glama_deploy.runtime.openvino.rewrites import (
    channels_last,
    column_convolutions,
    split_fft,
    transform_checks,
    winograd,
)
from glama_deploy.system import cpu

pytest.importorskip("openvino")

TINY = NetworkConfig(ngf=8, n_blocks=1)
WIDE = NetworkConfig(ngf=32, n_blocks=1)
#: 96 local and 32 global channels: of the convolutions between them none is wide enough.
MOSTLY_LOCAL = NetworkConfig(ngf=16, n_blocks=2, ratio=0.25)
FILLED = NetworkConfig(ngf=8, n_blocks=2, n_downsampling=2, fill="pull-push")
TWO_STAGES = NetworkConfig(ngf=8, n_blocks=2, coarse=WIDE, coarse_side=64)
NETWORKS = {"tiny": TINY, "wide": WIDE, "local": MOSTLY_LOCAL, "filled": FILLED, "two stages": TWO_STAGES}

#: The size of the graph, or None for any size, with each lowering that an exported bundle has for OpenVINO.
LOWERINGS = ((None, "matmul"), ((64, 72), "matmul"), ((64, 72), "split"), (None, "dft"), ((64, 72), "dft"))


@pytest.fixture
def manifest_of(tiny_bundle):
    """A function that gives the manifest of a bundle with another network and lowering."""
    return lambda network, fft: tiny_bundle.manifest.model_copy(update={"network": network, "fft": fft})


def in_openvino(network, size, fft, io):
    model = build(network, untrained(network), size, fft=fft, io=io).SerializeToString()
    model = openvino.core().read_model(model)
    height, width = size or (64, 72)
    shapes = {"image": [1, 3, height, width], "mask": [1, 1, height, width]}
    if io == "uint8":
        shapes = {"image": [1, height, width, 3], "mask": [1, height, width]}
    model.reshape(shapes)
    return model


@pytest.mark.parametrize("io", ["float", "uint8"])
@pytest.mark.parametrize(("name", "lowering"), list(product(NETWORKS, LOWERINGS)))
def test_the_transforms_find_in_each_graph_what_its_manifest_promises(name, lowering, io, manifest_of, monkeypatch):
    network, (size, fft) = NETWORKS[name], lowering
    manifest = manifest_of(network, fft)
    half, full, last = (in_openvino(network, size, fft, io) for _ in range(3))
    assert winograd.count_served(half) == transform_checks.count_winograd_convolutions(manifest)
    assert column_convolutions.rewrite(half) == transform_checks.count_left_products(manifest)
    assert len(channels_last.rewrite(last, half=True).units) == transform_checks.count_units(manifest)
    # the bottleneck of the network itself, and no other
    bottleneck = transform_checks.bottleneck_size(network, 64, 72)
    monkeypatch.setattr(split, "is_cheaper", lambda *size: size == bottleneck)
    assert split_fft.rewrite(full) == transform_checks.count_split_units(manifest, 64, 72)


def test_counts_of_a_network_by_hand(manifest_of):
    manifest = manifest_of(TWO_STAGES, "matmul")
    # stage one: one block with two layers, at 8x8 as products; stage two: two blocks with two layers
    assert transform_checks.count_left_products(manifest) == 2 * 2 + 2 * 4
    assert transform_checks.count_units(manifest) == 2 + 4
    assert transform_checks.count_winograd_convolutions(manifest) == 3 * 2
    kept = ["coarse/block0/conv1/l2l", "coarse/block0/conv2/g2l", "coarse/stem/l2l", "block0/conv1/l2l"]
    assert transform_checks.count_winograd_convolutions(manifest, kept) == 2
    assert transform_checks.count_split_units(manifest, 64, 64) == 0
    assert split.is_cheaper(256, 256)
    assert transform_checks.count_split_units(manifest, 2041, 2048) == 4
    assert transform_checks.count_split_units(manifest_of(TWO_STAGES, "dft"), 2041, 2048) == 0


# ---------------------------------------------------------------- warnings


def renamed(bundle: Bundle, folder: Path, changes: dict[str, str]) -> Bundle:
    """A copy of the bundle, without its IR, whose ONNX graph has other names for some nodes and their outputs."""
    shutil.copytree(bundle.path, folder)
    model = onnx.load(str(folder / "model.onnx"))
    names = {node.name for node in model.graph.node}
    assert names >= changes.keys()
    for node in model.graph.node:
        node.name = changes.get(node.name, node.name)
        for values in (node.input, node.output):
            values[:] = [changes.get(value, value) for value in values]
    onnx.save_model(model, str(folder / "model.onnx"))
    manifest = bundle.manifest
    file = artifact(folder, folder / "model.onnx")
    graphs = {"fp32": manifest.graphs["fp32"].model_copy(update={"file": file})}
    engines = {"onnx": manifest.engines["onnx"].model_copy(update={"files": (file,)})}
    return Bundle(folder, manifest.model_copy(update={"graphs": graphs, "engines": engines}))


def inputs(height, width):
    rng = np.random.default_rng(0)
    image = rng.random((1, 3, height, width), np.float32)
    return image, (rng.random((1, 1, height, width)) < 0.3).astype(np.float32)


@pytest.fixture
def warnings(caplog):
    """A function that gives what was logged as a warning since its last call."""

    def take() -> list[str]:
        found = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
        caplog.clear()
        return found

    with caplog.at_level(logging.WARNING, "glama_deploy"):
        yield take


@pytest.mark.lacks_transforms
def test_a_renamed_row_product_is_said_once_and_the_image_is_the_same(tiny_bundle, tmp_path, monkeypatch, warnings):
    monkeypatch.setattr(split, "is_cheaper", lambda *size: True)
    monkeypatch.setenv("GLAMA_CACHE", str(tmp_path / "cache"))
    bundle = renamed(tiny_bundle, tmp_path / "bundle", {"block0/conv2/g2g/rfft/row": "block0/conv2/g2g/rfft/other"})
    found = openvino.open(bundle, Request("fp32", compile_sizes=True))
    given = inputs(64, 72)
    image = found.run(*given)
    (said,) = warnings()
    assert said.startswith(f"{bundle.path}: the graph has 1 Fourier units to split, its manifest promises 2; ")
    assert "take longer, the image is the same; export the bundle again" in said
    found.run(*inputs(64, 80))
    assert warnings() == []
    expected = openvino.open(tiny_bundle, Request("fp32", compile_sizes=True)).run(*given)
    # the same sums in fp32: what parity asks of any engine
    np.testing.assert_allclose(image, expected, rtol=0, atol=2e-5)
    assert warnings() == []


@pytest.fixture
def any_hint() -> None:
    """Skip the test where OpenVINO refuses a hint: with a variable that hides bf16 from oneDNN alone."""
    if cpu.is_half_switched_off("bf16"):
        pytest.skip("ONEDNN_MAX_CPU_ISA hides bf16 from oneDNN, and not from OpenVINO")


@pytest.mark.lacks_transforms
@pytest.mark.usefixtures("any_hint")
def test_a_renamed_column_product_is_said_at_each_start(make_bundle, tiny, tmp_path, monkeypatch, warnings):
    """A compiled model that comes from the cache says nothing, so none is stored."""
    monkeypatch.setenv("GLAMA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(openvino, "choose_precision", lambda *_, **__: ("bf16", ""))  # every CPU takes the hint
    whole = make_bundle(tiny, size=(64, 72), fft="matmul")
    bundle = renamed(whole, tmp_path / "bundle", {"block0/conv1/g2g/irfft/column": "block0/conv1/g2g/other"})
    for _ in range(2):
        openvino.open(bundle, Request("bf16"))
        (said,) = (message for message in warnings() if "Fourier products" in message)
        assert "has 3 Fourier products for the half type, its manifest promises 4; these products are computed" in said
    assert not list((tmp_path / "cache").rglob(f"*{compiled_models.SUFFIX}"))
    openvino.open(whole, Request("bf16"))
    assert warnings() == []
    assert len(list((tmp_path / "cache").rglob(f"*{compiled_models.SUFFIX}"))) == 1


@pytest.mark.lacks_transforms
@pytest.mark.usefixtures("any_hint")
def test_a_renamed_basis_is_said_and_each_size_is_compiled_in_half_precision(
    tiny_bundle, tmp_path, monkeypatch, warnings
):
    """In a half type the graph of any size would lose the digits of its angles."""
    monkeypatch.setattr(openvino, "choose_precision", lambda *_, **__: ("bf16", ""))
    bundle = renamed(tiny_bundle, tmp_path / "bundle", {"fft/column": "fft/other"})
    runner = openvino.open(bundle, Request("bf16"))
    (said,) = warnings()
    assert "has 0 bases of the Fourier transform, its manifest promises 4; in bf16 and fp16 each size is" in said
    assert runner.compiles_sizes
    runner.run(*inputs(64, 72))
    assert runner.holder[0] == (1, 3, 64, 72)


@pytest.mark.lacks_transforms
def test_a_unit_that_needs_reorders_is_said_and_the_image_is_the_same(tiny_bundle, tmp_path, monkeypatch, warnings):
    monkeypatch.setattr(openvino, "has_costly_products", lambda computed: True)
    monkeypatch.setenv("GLAMA_CACHE", str(tmp_path / "cache"))
    changes = {"block0/conv2/g2g/irfft/deinterleave": "block0/conv2/g2g/other"}
    bundle = renamed(tiny_bundle, tmp_path / "bundle", changes)
    runners = [openvino.open(each, Request("fp32", compile_sizes=True)) for each in (bundle, tiny_bundle)]
    for runner in runners:
        monkeypatch.setattr(runner, "_fixes_sizes", True)
    image, expected = (runner.run(*inputs(64, 72)) for runner in runners)
    (said,) = warnings()
    assert "has 1 Fourier units without reorders, its manifest promises 2; the other units take longer" in said
    # the same sums in fp32: what parity asks of any engine
    np.testing.assert_allclose(image, expected, rtol=0, atol=2e-5)


@pytest.mark.lacks_transforms
def test_a_unit_that_is_no_product_of_pixels_is_said_and_the_image_is_the_same(
    make_bundle, make_checkpoint, tmp_path, monkeypatch, warnings
):
    monkeypatch.setenv("GLAMA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(openvino, "has_costly_products", lambda computed: True)
    whole = make_bundle(make_checkpoint(NetworkConfig(ngf=32, n_blocks=1)))  # wide enough for Winograd's method
    bundle = renamed(whole, tmp_path / "bundle", {"block0/conv2/g2g/irfft/deinterleave": "block0/conv2/g2g/other"})
    image, expected = (
        openvino.open(each, Request("fp32", compile_sizes=False)).run(*inputs(64, 72)) for each in (bundle, whole)
    )
    (said,) = warnings()
    assert "has 1 Fourier units as products of pixels, its manifest promises 2; the other units take longer" in said
    # the same sums in fp32: what parity asks of any engine
    np.testing.assert_allclose(image, expected, rtol=0, atol=2e-5)


@pytest.mark.lacks_transforms
def test_a_network_without_its_wide_convolutions_is_said_when_it_is_opened(tiny_bundle, monkeypatch, warnings):
    """The graph is narrower than its manifest says."""
    monkeypatch.setattr(openvino, "has_costly_products", lambda computed: True)
    manifest = tiny_bundle.manifest.model_copy(update={"network": WIDE})
    runner = openvino.open(Bundle(tiny_bundle.path, manifest), Request("fp32"))
    (said,) = warnings()
    assert "has 0 convolutions for Winograd's method, its manifest promises 6; the others take longer" in said
    runner.run(*inputs(64, 72))
    assert warnings() == []


@pytest.mark.lacks_transforms
def test_a_network_without_its_wide_convolutions_is_said_by_onnx_runtime_too(
    tiny_bundle, make_checkpoint, make_bundle, warnings
):
    pytest.importorskip("onnxruntime")
    manifest = tiny_bundle.manifest.model_copy(update={"network": WIDE})
    onnxruntime.open(Bundle(tiny_bundle.path, manifest), Request("fp32", device=CPU))
    (said,) = warnings()
    assert "has 0 convolutions for Winograd's method, its manifest promises 6; the others take longer" in said
    for settings in ({}, {"io": "uint8"}, {"size": (64, 72)}):
        onnxruntime.open(make_bundle(make_checkpoint(WIDE), **settings), Request("fp32", device=CPU))
    assert warnings() == []


@pytest.mark.lacks_transforms
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("settings", [{"fft": "dft"}, {"fft": "split", "size": (64, 72)}, {"io": "uint8"}], ids=str)
def test_a_bundle_that_promises_less_is_not_warned_of(settings, precision, make_bundle, tiny, monkeypatch, warnings):
    if precision == "bf16" and cpu.is_half_switched_off("bf16"):
        pytest.skip("ONEDNN_MAX_CPU_ISA hides bf16 from oneDNN, and not from OpenVINO")
    if settings.get("fft") == "dft" and os.environ.get("ONEDNN_MAX_CPU_ISA"):
        pytest.skip("OpenVINO's DFT does not keep to ONEDNN_MAX_CPU_ISA (2026.4)")
    monkeypatch.setattr(openvino, "choose_precision", lambda *_, **__: (precision, ""))
    monkeypatch.setattr(split, "is_cheaper", lambda *size: True)
    runner = openvino.open(make_bundle(tiny, **settings), Request(precision, compile_sizes=True))
    image, mask = inputs(64, 72)
    if runner.io == "uint8":
        image, mask = (255 * image.transpose(0, 2, 3, 1)).astype(np.uint8), mask[:, 0].astype(np.uint8)
    runner.run(image, mask)
    assert warnings() == []
