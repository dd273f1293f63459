"""The name of a published model works wherever a checkpoint does. The file is a TorchScript, as big-lama is."""

from __future__ import annotations

import io
import logging
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from test_torch_free import BLOCK_ONNX, run

import glama_deploy
from glama_deploy.bundle import Bundle
from glama_deploy.checkpoints import formats
from glama_deploy.cli import bench
from glama_deploy.cli.eval import main as glama_eval
from glama_deploy.cli.export import main as glama_export
from glama_deploy.cli.inpaint import main as glama_inpaint
from glama_deploy.cli.options.named_models import name_models
from glama_deploy.errors import CheckpointError, GlamaError
from glama_deploy.evaluation import methods
from glama_deploy.export.samples import SAMPLE


@pytest.fixture(scope="module")
def script(tiny) -> bytes:
    """The tiny network as TorchScript."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated
        torch.jit.save(torch.jit.trace(formats.load(tiny), torch.rand(1, 4, 32, 32)), file)
    return file.getvalue()


@pytest.fixture(autouse=True)
def catalogue(host, script, tmp_path, monkeypatch) -> Path:
    path = host.write_catalogue(tmp_path / "models.json", {"name": "little", "content": script})
    monkeypatch.setenv("GLAMA_MODELS_CATALOGUE", str(path))
    return path


def test_load_takes_a_name_and_downloads_once(host, script, tiny, photo, hole, caplog):
    with caplog.at_level(logging.WARNING, "glama_deploy"):
        first = glama_deploy.load("little", "openvino", "fp32")
        second = glama_deploy.load("little", "openvino", "fp32")
    assert len(host.asked) == 1
    assert [line for line in caplog.messages if "little" in line] == [
        f"downloading little ({len(script) / 1e6:.1f} MB) from {host.url}/little.pt"
    ]
    expected = glama_deploy.load(tiny, "openvino", "fp32")(photo, hole)
    np.testing.assert_array_equal(first(photo, hole), expected)
    np.testing.assert_array_equal(second(photo, hole), expected)


def test_a_torchscript_by_name_needs_no_torch():
    code = """
import numpy, glama_deploy
image, mask = numpy.full((64, 64, 3), 128, numpy.uint8), numpy.zeros((64, 64), bool)
mask[20:40, 20:40] = True
inpainter = glama_deploy.load("little")
inpainter(image, mask)
print(inpainter.backend, "torch" in sys.modules)
"""
    assert run(code).split() == ["openvino", "False"]


def test_without_the_onnx_package_nothing_is_downloaded(host):
    """The extra `openvino` does not install the package, which a checkpoint needs."""
    code = """
import glama_deploy
try:
    glama_deploy.load("little")
except glama_deploy.EngineError as error:
    print(error)
"""
    assert "little is a checkpoint, which the onnx package exports first" in run(code, block=BLOCK_ONNX)
    assert host.asked == []


def test_an_export_takes_a_name_and_an_address(host, script, tmp_path, capsys):
    digest = Bundle.open(_export("little", tmp_path / "named")).manifest.checkpoint.sha256
    address = f"{host.url}/little.pt#sha256={digest}"
    assert Bundle.open(_export(address, tmp_path / "addressed")).manifest.checkpoint.sha256 == digest
    assert len(host.asked) == 1


def _export(checkpoint: str, out: Path) -> Path:
    assert glama_export.run(["--ckpt", checkpoint, "--out", str(out), "--no-parity"]) == 0
    return out


def test_wrong_options_of_an_export_are_told_before_the_download(host, tmp_path, capsys):
    assert glama_export.run(["--ckpt", "little", "--out", str(tmp_path / "b"), "--precision", "fp4"]) == 2
    assert "precision 'fp4' is not offered" in capsys.readouterr().err
    assert host.asked == []


def test_inpainting_takes_a_name(host, tmp_path, capsys):
    mask = SAMPLE.with_name("sample_mask.png")
    arguments = ["--image", SAMPLE, "--mask", mask, "--out", tmp_path / "out.png", "--model", "little"]
    assert glama_inpaint.run([str(argument) for argument in arguments]) == 0
    assert (tmp_path / "out.png").is_file()
    assert "glama-inpaint: note: downloading little (" in capsys.readouterr().err


def test_a_benchmark_takes_a_name(host, tiny):
    bundle, checkpoint = bench._open_model("little", None)
    assert formats.read(checkpoint).config == bundle.manifest.network
    assert bench._open_model(str(tiny), "little")[1] == checkpoint
    assert len(host.asked) == 1


def test_an_evaluation_takes_a_name_and_addresses(host):
    backends, precisions = ["auto"], ["auto"]
    digest = "0123456789abcdef" * 4
    texts = [
        "little@onnxruntime",
        "A=hf://owner/repo@v2/x.pt",
        "B=hf://owner/repo@v2/x.pt@openvino/bf16",
        f"https://host/y.pt#sha256={digest}",
        f"C=https://host/y.pt#sha256={digest}@torch",
    ]
    specs = methods.parse_methods(texts, backends, precisions)
    assert [(spec.label, spec.model, spec.backend, spec.precision) for spec in specs] == [
        ("little onnxruntime", "little", "onnxruntime", "auto"),
        ("A", "hf://owner/repo@v2/x.pt", "auto", "auto"),
        ("B", "hf://owner/repo@v2/x.pt", "openvino", "bf16"),
        ("y", f"https://host/y.pt#sha256={digest}", "auto", "auto"),
        ("C", f"https://host/y.pt#sha256={digest}", "torch", "auto"),
    ]
    assert host.asked == []
    assert len(methods.compute_digest(specs[0])) == 64
    assert len(host.asked) == 1
    with pytest.raises(GlamaError, match=r"`models` litle: no bundle or checkpoint at litle; is little meant\? a path"):
        methods.parse_methods(["litle"], backends, precisions)
    with pytest.raises(GlamaError, match=r"`models` https://host/y\.pt: https://host/y\.pt has no SHA-256"):
        methods.parse_methods(["https://host/y.pt"], backends, precisions)


@pytest.mark.slow
def test_an_evaluation_downloads_a_model_once(host, photos, tmp_path, capsys):
    options = ["--masks", "ThinStrokes", "--metric", "psnr", "--limit", "1", "--size", "64x64", "--processes", "1"]
    arguments = ["--data", str(photos), "--model", "little@openvino", "--out", str(tmp_path / "out")]
    assert glama_eval.run([*arguments, *options]) == 0, capsys.readouterr().err
    assert len(host.asked) == 1


def test_a_server_names_its_models_and_knows_wrong_ones_at_the_start(host):
    digest = "0123456789abcdef" * 4
    address = f"https://host/y.pt#sha256={digest}"
    given = ["little", "hf://owner/repo/x.pt", address, f"z={address}"]
    assert name_models(given) == {
        "little": "little",
        "x": "hf://owner/repo/x.pt",
        "y": address,
        "z": address,
    }
    with pytest.raises(CheckpointError, match=r"no published model of this name; is little meant\?"):
        name_models(["litle"])
    assert host.asked == []
