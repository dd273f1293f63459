"""`--tolerance`: which bound parity is judged by, and the one line for what is not understood."""

from __future__ import annotations

import json
import shutil

import pytest

from glama_deploy.bundle import MANIFEST, Bundle, SizeRange
from glama_deploy.catalogue import Tolerance, find_tolerance
from glama_deploy.cli.build import main as glama_build
from glama_deploy.cli.export import main as glama_export
from glama_deploy.cli.options.tolerance import parse_tolerances
from glama_deploy.errors import GlamaError
from glama_deploy.export.numerics import int8, quantize
from glama_deploy.export.pipeline import Request, export


def test_an_error_has_no_unit_and_a_psnr_ends_in_db():
    found = parse_tolerances(["fp32=1e-4", "fp16 = .05", "int8=38dB", "bf16=45.5 db"])
    assert found == {
        "fp32": Tolerance(max_abs_error=1e-4),
        "fp16": Tolerance(max_abs_error=0.05),
        "int8": Tolerance(least_psnr=38),
        "bf16": Tolerance(least_psnr=45.5),
    }
    assert parse_tolerances(None) == {}


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        (["1e-4"], "--tolerance is '1e-4'; PRECISION=ERROR or PRECISION=PSNRdB is expected, such as fp16=0.05 or int8"),
        (["fp16"], "is expected"),
        (["fp16="], "is expected"),
        (["=0.1"], "unknown precision ''; expected fp32, bf16, fp16, int8"),
        (["fp16=5%"], "is expected"),
        (["fp16=0,05"], "is expected"),
        (["fp16=nan"], "is expected"),
        (["fp16=inf"], "is expected"),
        (["fp16=-0.1"], "is expected"),
        (["fp16=0x1"], "is expected"),
        (["fp16=٣"], "is expected"),
        (["fp16=1e999"], "the largest error is inf"),
        (["fp16=0"], "the largest error is 0; a number above 0, up to 1, is expected"),
        (["fp16=38"], "the largest error is 38; a number above 0, up to 1, is expected, because .*a PSNR ends in dB"),
        (["int8=0dB"], "the least PSNR is 0 dB; a number above 0, up to 150, is expected"),
        (["int8=1000dB"], "the least PSNR is 1000 dB"),
        (["fp8=0.1"], "--tolerance fp8=0.1: unknown precision 'fp8'; expected fp32, bf16, fp16, int8"),
        (["int8+fp16=38dB"], "unknown precision"),
        (["fp16=0.1", "fp16=0.2"], "--tolerance is given twice for fp16"),
    ],
)
def test_a_malformed_tolerance_is_one_line(texts, says):
    with pytest.raises(GlamaError, match=says) as refused:
        parse_tolerances(texts)
    assert "\n" not in str(refused.value)


def test_without_tolerances_the_bounds_are_those_of_earlier_releases():
    """A release that moves a bound says so in its changelog: bundles are compared by it."""
    assert find_tolerance("fp32", {}) == Tolerance(max_abs_error=2e-5)
    assert find_tolerance("fp16", {}) == Tolerance(max_abs_error=2e-2)
    assert find_tolerance("bf16", {}) == Tolerance(max_abs_error=1e-1)
    assert find_tolerance("int8", {}) == find_tolerance("int8+fp16", {}) == Tolerance(least_psnr=40.0)
    defaults = quantize.quantize.__kwdefaults__
    assert (defaults["least"], defaults["least_parity"]) == (41.0, 40.2)


def test_the_bound_that_was_used_stands_in_the_manifest_of_schema_2(tiny, tmp_path):
    arguments = ["--ckpt", str(tiny), "--out", str(tmp_path / "b"), "--parity-size", "64x96"]
    assert glama_export.run([*arguments, "--tolerance", "fp32=1e-3"]) == 0
    parity = json.loads((tmp_path / "b" / MANIFEST).read_text())["engines"]["onnx"]["parity"]
    assert (parity["tolerance"], parity["least_psnr"]) == (1e-3, None)
    assert glama_export.run([*arguments, "--tolerance", "fp32=60dB", "--overwrite"]) == 0
    parity = Bundle.open(tmp_path / "b").manifest.engines["onnx"].parity
    assert (parity.tolerance, parity.least_psnr) == (None, 60.0)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"tolerances": {"fp16": Tolerance(0.1)}}, "a tolerance is for fp16, which is not measured here .but fp32 is"),
        ({"tolerances": {"fp8": Tolerance(0.1)}}, "a tolerance is for 'fp8'; expected fp32, bf16, fp16 or int8"),
        ({"tolerances": {"fp32": Tolerance(0.1)}, "parity": False}, "tolerances are for parity, which is not measured"),
    ],
)
def test_a_tolerance_without_effect_is_refused(tiny, tmp_path, settings, says):
    with pytest.raises(GlamaError, match=says):
        export(Request(tiny, tmp_path / "b", **settings))
    assert not list(tmp_path.iterdir())


def test_int8_is_judged_by_a_psnr_alone(tiny, photos, tmp_path):
    request = Request(tiny, tmp_path / "b", precision="int8", calibration=photos, tolerances={"int8": Tolerance(0.1)})
    with pytest.raises(GlamaError, match=r"the tolerance of int8 is 0\.1; int8 is judged as a whole, by a least PSNR"):
        export(request)


@pytest.mark.parametrize(("tolerances", "aims"), [({}, (41.0, 40.2)), ({"int8": Tolerance(None, 30)}, (31.0, 30.2))])
def test_the_int8_search_aims_beyond_the_tolerance(tiny, photos, tmp_path, monkeypatch, tolerances, aims):
    class Asked(Exception):
        pass

    def asked(*_, least, least_parity, **__):
        raise Asked(least, least_parity)

    monkeypatch.setattr(int8.quantize, "quantize", asked)
    with pytest.raises(Asked) as found:
        export(Request(tiny, tmp_path / "b", precision="int8", calibration=photos, tolerances=tolerances))
    assert found.value.args == aims


def test_an_engine_that_is_built_later_is_judged_by_another_bound(tiny, tmp_path, capsys):
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    sizes = SizeRange(min=(64, 64), opt=(64, 64), max=(128, 128), max_batch=1)
    export(Request(tiny, tmp_path / "b", ("onnx",), "fp16", profile=sizes, parity_size=(64, 96)))
    arguments = [str(tmp_path / "b"), "--target", "trt-rtx"]
    assert glama_build.run([*arguments, "--tolerance", "fp16=0.5"]) == 0
    assert "within the tolerance" in capsys.readouterr().out
    assert Bundle.open(tmp_path / "b").manifest.engines["tensorrt-rtx"].parity.tolerance == 0.5
    assert glama_build.run([*arguments, "--tolerance", "fp16=1e-9"]) == 3
    assert "over its tolerance of 1e-09" in capsys.readouterr().out


def test_a_tolerance_without_emulated_parity_is_refused(tiny, make_bundle, tmp_path, capsys):
    shutil.copytree(make_bundle(tiny, ("onnx",)).path, tmp_path / "b")
    assert glama_build.run([str(tmp_path / "b"), "--target", "openvino", "--tolerance", "fp32=0.5"]) == 2
    assert "there is none for openvino in fp32; leave it out" in capsys.readouterr().err
    assert {path.name for path in (tmp_path / "b").iterdir()} == {MANIFEST, "model.onnx"}
