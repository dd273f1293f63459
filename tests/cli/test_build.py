"""glama-build's options: what reaches the builder, and the one line for what cannot be."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from glama_deploy.bundle import BuildSettings, Bundle, SizeRange
from glama_deploy.cli.build import main as glama_build
from glama_deploy.engines.tensorrt.options import Options
from glama_deploy.export.pipeline import Request, export

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")


@pytest.fixture
def bundle(tiny, make_bundle, tmp_path) -> Path:
    shutil.copytree(make_bundle(tiny, ("onnx",)).path, tmp_path / "bundle")
    return tmp_path / "bundle"


def build(bundle: Path, *arguments: str) -> int:
    return glama_build.run([str(bundle), *arguments])


def test_options_reach_the_manifest(bundle, capsys):
    flags = (
        "--target trt-rtx --max-size 256x256 --profiles three --gpu rtx-4090 --gpu 12.0 --opt-level 2 --workspace 4096"
    )
    assert build(bundle, *flags.split()) == 0
    engine = Bundle.open(bundle).manifest.engines["tensorrt-rtx"]
    assert [str(profile) for profile in engine.profiles] == ["64x64…192x192", "64x64…256x256"]
    assert engine.compute_capabilities == ("8.9", "12.0")
    assert engine.settings is not None
    assert engine.settings.gpus == ("rtx-4090", "12.0")
    assert (engine.settings.optimization_level, engine.settings.workspace_mib) == (2, 4096)
    assert "tensorrt-rtx: fp32, sizes 64x64…256x256" in capsys.readouterr().out


def test_the_report_lists_the_engines_contents_and_their_source(bundle, capsys):
    assert build(bundle, "--target", "trt-rtx", "--max-size", "128x128", "--report") == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "convolution fp32 18" in out
    assert "deconvolution fp32 3" in out
    assert "weights fp32 0.4 MB" in out
    assert "input image fp32 ?x3x?x?" in out
    assert "profile 0 64x64…128x128, tuned at 128x128, batch ≤ 1" in out
    assert "from the parsed network" in out or "from the engine itself" in out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("--target trt-rtx --min-size 512x512 --opt-size 256x256", "sizes min and opt are 512x512 and 256x256"),
        ("--target trt-rtx --max-size 500x500", "--max-size is 500x500; both sides must be multiples of 8"),
        ("--target trt-rtx --opt-level 6", "--opt-level is 6; expected 0"),
        ("--target trt-rtx --opt-level -1", "--opt-level is -1; expected 0"),
        ("--target trt-rtx --workspace 0", "--workspace is 0; expected a number of MiB above 0"),
        ("--target trt-rtx --workspace -4", "--workspace is -4; expected"),
        ("--target trt-rtx --profiles two", "--profiles is 'two'; expected auto, one, three"),
        ("--target trt-rtx --gpu rtx-4900", "no GPU is known as 'rtx-4900' (near to it: "),
        ("--target trt-rtx --timing-cache cache", "trt-rtx does not support --timing-cache: TensorRT-RTX"),
        ("--target trt-rtx --version-compatible", "trt-rtx does not support --version-compatible: TensorRT-RTX"),
        (
            "--target trt-rtx --hardware-compatible",
            "trt-rtx does not support --hardware-compatible: a TensorRT-RTX engine",
        ),
        ("--target trt --gpu rtx-4090", "trt does not support --gpu: TensorRT builds for the GPU that it finds"),
        ("--target trt --timing-cache .", "--timing-cache . is a folder; give a file"),
        ("--target trt --timing-cache nowhere/cache", "--timing-cache nowhere/cache cannot be written"),
        (
            "--target trt --precision int8",
            "has no int8+fp16 graph (it has: fp32); export it with --precision int8",
        ),
        ("--target trt-rtx --precision bf16", "has no bf16 graph"),
        ("--target trt --engine missing.engine", "--engine missing.engine is not a file"),
        ("--target trt --engine pyproject.toml --min-size 64x64", "--engine has its sizes and profiles already"),
        ("--target trt-rtx --engine x --report", "--report is of an engine that TensorRT builds"),
        ("--target openvino --workspace 5", "--workspace is for TensorRT (trt, trt-rtx); openvino has no such option"),
        ("--target openvino --report", "--report is of an engine that TensorRT builds"),
        ("--target onnx", "an ONNX model is not built from a bundle"),
    ],
)
def test_bad_options_are_one_line_and_leave_the_bundle_as_it_was(bundle, capsys, arguments, says):
    before = json.loads((bundle / "manifest.json").read_text())
    assert build(bundle, *arguments.split()) == 2
    line = capsys.readouterr().err.strip()
    assert line.startswith("glama-build: ")
    assert says in line
    assert "\n" not in line
    assert json.loads((bundle / "manifest.json").read_text()) == before
    assert {path.name for path in bundle.iterdir()} == {"manifest.json", "model.onnx"}


def test_a_gpu_that_tensorrt_rtx_does_not_support_is_exit_code_4(bundle, capsys):
    assert build(bundle, "--target", "trt-rtx", "--gpu", "jetson-orin") == 4
    assert "not for 8.7 (jetson-orin); build on that GPU with --target trt" in capsys.readouterr().err


def test_a_build_without_options_uses_those_of_the_export(tiny, tmp_path, capsys):
    """On the device nothing has to be said again; and what is said there changes that one engine only."""
    sizes = SizeRange(min=(64, 64), opt=(128, 128), max=(192, 256), max_batch=3)
    options = Options(BuildSettings(gpus=("rtx-4090",)), profiles="three")
    export(Request(tiny, tmp_path / "b", ("onnx", "trt-rtx"), "fp16", profile=sizes, options=options, parity=False))
    path = tmp_path / "b"
    for arguments, precision, expected in (
        ((), "fp16", sizes),
        (("--precision", "fp32", "--max-size", "128x128"), "fp32", sizes.model_copy(update={"max": (128, 128)})),
        ((), "fp16", sizes),
    ):
        assert glama_build.run([str(path), "--target", "trt-rtx", *arguments]) == 0
        engine = Bundle.open(path).manifest.engines["tensorrt-rtx"]
        assert engine.precision == precision
        assert engine.sizes == expected
        assert engine.compute_capabilities == ("8.9",)
        assert len(engine.profiles) >= 2 or arguments
    capsys.readouterr()
    assert glama_build.run([str(path), "--target", "trt"]) == 4  # TensorRT is not here
    said = capsys.readouterr().err.splitlines()
    assert any("exported with other builder options, which are left out" in line for line in said)
    assert "glama-build: tensorrt is not installed" in said[-1]


def test_a_built_engine_gets_the_parity_that_the_export_emulated(tiny, tmp_path):
    sizes = SizeRange(min=(64, 64), opt=(64, 64), max=(128, 128), max_batch=1)
    export(Request(tiny, tmp_path / "b", ("onnx",), "fp16", profile=sizes, parity_size=(64, 96)))
    assert glama_build.run([str(tmp_path / "b"), "--target", "trt-rtx"]) == 0
    parity = Bundle.open(tmp_path / "b").manifest.engines["tensorrt-rtx"].parity
    assert parity.emulated
    assert parity.passed


def test_a_device_preset_gives_sizes_profiles_and_workspace_that_options_replace(bundle, capsys):
    assert build(bundle, "--target", "trt-rtx", "--device-preset", "orin-nano") == 0
    engine = Bundle.open(bundle).manifest.engines["tensorrt-rtx"]
    assert (engine.sizes.max, len(engine.profiles), engine.settings.workspace_mib) == ((1024, 1024), 1, 512)
    assert build(bundle, "--target", "trt-rtx", "--device-preset", "orin-nano", "--max-size", "768x768") == 0
    assert Bundle.open(bundle).manifest.engines["tensorrt-rtx"].sizes.max == (768, 768)
    assert build(bundle, "--target", "trt-rtx", "--device-preset", "xavier") == 2
    assert "--device-preset is 'xavier'; expected orin-nano" in capsys.readouterr().err
