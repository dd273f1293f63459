"""The catalogue is the one place that knows engines and precisions by name; a toy engine proves it."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import glama_deploy
from glama_deploy import bundle, catalogue
from glama_deploy.benchmarks.bench import contenders
from glama_deploy.bundle import DEFAULT_PROFILE, MANIFEST, Bundle
from glama_deploy.catalogue import EngineRecord
from glama_deploy.cli.build import main as glama_build
from glama_deploy.cli.export import main as glama_export
from glama_deploy.engines.build import add_engine
from glama_deploy.errors import BundleError, GlamaError
from glama_deploy.export.pipeline import Request, export
from glama_deploy.runtime.onnxruntime.provider_records import PROVIDERS

#: All that an engine needs beside its runtime, its builder and its extra.
TOY = EngineRecord(
    name="toy",
    target="toy",
    title="Toy",
    backend="toy",
    runtime="fakes.toy_engine.runner",
    builder="fakes.toy_engine.builder",
    package="onnxruntime",
    extra="onnxruntime",
    files=("model.toy",),
    precisions={"fp32": "fp32"},
    lowerings=("matmul", "split"),
    devices=("cpu",),
)


@pytest.fixture
def toy(monkeypatch) -> EngineRecord:
    monkeypatch.setitem(catalogue.ENGINES, "toy", TOY)
    return TOY


def test_a_new_engine_is_exported_measured_loaded_and_run(toy, tiny, tmp_path, capsys, photo, hole):
    """Its record, its runtime and its builder are all that it took: no other file knows its name."""
    assert glama_export.run(["--ckpt", str(tiny), "--out", str(tmp_path / "b"), "--target", "toy"]) == 0
    assert "toy" in capsys.readouterr().out
    opened = Bundle.open(tmp_path / "b")
    engine = opened.manifest.engines["toy"]
    assert [artifact.path for artifact in engine.files] == ["toy/model.toy"]
    assert engine.parity.passed
    # fp32 through one block, in another order of summation
    assert 0 < engine.parity.max_abs_error < 2e-5
    inpainter = glama_deploy.load(tmp_path / "b", "toy")
    assert inpainter.backend == "toy"
    out = inpainter(photo, hole)
    assert (out[~hole] == photo[~hole]).all()
    assert (out == glama_deploy.load(tmp_path / "b", "onnxruntime:cpu")(photo, hole)).all()


def test_a_new_engine_is_built_into_a_bundle_and_replaced_there(toy, tiny, make_bundle, tmp_path, capsys):
    shutil.copytree(make_bundle(tiny, ("onnx",)).path, tmp_path / "b")
    for _ in range(2):
        assert glama_build.run([str(tmp_path / "b"), "--target", "toy"]) == 0
        assert "toy: fp32, sizes ≥ 16x16" in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "b").iterdir()} == {MANIFEST, "model.onnx", "toy"}
    export(Request(tiny, tmp_path / "b", ("onnx",), parity=False, overwrite=True))
    assert {path.name for path in (tmp_path / "b").iterdir()} == {MANIFEST, "model.onnx"}


def test_a_new_engine_can_be_measured_beside_the_others(toy):
    assert contenders.is_subject("toy")
    assert contenders.is_subject("toy@5")
    assert not contenders.runs_on_gpu("toy")


def test_a_new_engine_is_chosen_by_auto_where_its_record_has_a_rank(toy, tiny, make_bundle, tmp_path, monkeypatch):
    shutil.copytree(make_bundle(tiny).path, tmp_path / "b")
    built = add_engine(Bundle.open(tmp_path / "b"), "toy", DEFAULT_PROFILE)
    assert glama_deploy.load(built.path).backend == "openvino"
    monkeypatch.setitem(catalogue.ENGINES, "toy", replace(TOY, auto_ranks={"cpu": 25}))
    assert glama_deploy.load(built.path).backend == "toy"


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"precision": "fp16"}, "toy does not support precision 'fp16'; use fp32"),
        ({"precision": "int8"}, "toy does not support precision 'int8'; use fp32"),
        ({"fft": "dft"}, "Toy has neither DFT nodes nor plugins, so no `fft=dft`"),
        ({"targets": ("toys",)}, "unknown target 'toys'; expected onnx, openvino, trt, trt-rtx, toy, web"),
    ],
)
def test_what_a_new_engine_does_not_support_is_refused_by_its_record(toy, tiny, tmp_path, settings, says):
    with pytest.raises(GlamaError, match=says):
        export(Request(**{"checkpoint": tiny, "out": tmp_path / "b", "targets": ("toy",), **settings}))
    assert not list(tmp_path.iterdir())


def test_a_builder_option_that_a_new_engine_does_not_know_is_refused(toy, tiny, make_bundle, tmp_path, capsys):
    shutil.copytree(make_bundle(tiny, ("onnx",)).path, tmp_path / "b")
    assert glama_build.run([str(tmp_path / "b"), "--target", "toy", "--workspace", "5"]) == 2
    assert "--workspace is for TensorRT (trt, trt-rtx); toy has no such option" in capsys.readouterr().err


def test_an_engine_that_the_catalogue_does_not_have_is_an_error_that_names_it(tiny_bundle, tmp_path):
    shutil.copytree(tiny_bundle.path, tmp_path / "b")
    tree = json.loads((tmp_path / "b" / MANIFEST).read_text())
    tree["engines"]["toy"] = {**tree["engines"]["openvino"], "name": "toy"}
    (tmp_path / "b" / MANIFEST).write_text(json.dumps(tree))
    with pytest.raises(BundleError, match="unknown engine 'toy'; expected onnx, openvino, tensorrt or tensorrt-rtx"):
        Bundle.open(tmp_path / "b")


@pytest.mark.parametrize("precision", ["fp8", "int8+bf16"])
def test_a_precision_that_bundles_do_not_have_is_an_error_that_names_it(tiny_bundle, tmp_path, precision):
    """int8+bf16 is what OpenVINO computes in, not what a file has."""
    shutil.copytree(tiny_bundle.path, tmp_path / "b")
    tree = json.loads((tmp_path / "b" / MANIFEST).read_text())
    tree["engines"]["openvino"]["precision"] = precision
    (tmp_path / "b" / MANIFEST).write_text(json.dumps(tree))
    with pytest.raises(BundleError, match=rf"unknown precision '{precision.replace('+', '.')}'; expected fp32, "):
        Bundle.open(tmp_path / "b")


def test_the_catalogue_imports_nothing_that_takes_time():
    code = "import sys, glama_deploy.catalogue; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    slow = {"numpy", "pydantic", "torch", "onnx", "onnxruntime", "openvino", "glama_deploy.runtime"}
    assert not slow & set(loaded)


@pytest.mark.parametrize("record", catalogue.ENGINES.values(), ids=lambda record: record.name)
def test_a_record_names_modules_and_an_extra_that_exist(record):
    module = importlib.import_module(record.runtime)
    assert callable(module.open)
    assert callable(module.absent)
    if record.builder:
        assert callable(importlib.import_module(record.builder).build)
    required = importlib.metadata.requires("glama-deploy")
    name = record.package.replace("_", "-")
    assert any(each.startswith(name) and f'extra == "{record.extra}"' in each for each in required)


def test_records_fit_each_other():
    records = catalogue.ENGINES.values()
    assert len({record.target for record in records}) == len(records)
    for record in records:
        assert set(record.precisions.values()) <= set(catalogue.bundle_precisions())
        assert set(record.lowerings) <= set(bundle.Lowering.__args__)
    assert {record.backend for record, _ in catalogue.auto_order()} == set(catalogue.backends())


@pytest.mark.parametrize(
    ("computed", "stored", "name"), [("fp32", "int8", "int8"), ("bf16", "int8", "int8+bf16"), ("fp16", "fp16", "fp16")]
)
def test_a_precision_says_what_is_stored_and_what_is_computed(computed, stored, name):
    record = catalogue.PRECISIONS[name]
    assert (record.computed, record.stored) == (computed, stored)
    assert not record.is_quantized or catalogue.quantized_precision(computed) == name


#: Where an engine may be called by its name: in the catalogue, and where its own code is.
_OWN = ("catalogue.py", "runtime/onnxruntime/", "runtime/openvino/", "runtime/tensorrt/", "engines/tensorrt/")
_NAMES = {name for r in catalogue.ENGINES.values() for name in (r.name, r.target, r.package, r.backend)} - {"onnx"}


def test_no_other_module_knows_an_engine_by_its_name():
    root = Path(glama_deploy.__file__).parents[1]
    files = [file for room in ("glama_deploy", "engines", "export") for file in (root / room).rglob("*.py")]
    found = []
    for file in files:
        place = file.relative_to(root).as_posix().removeprefix("glama_deploy/")
        if place.startswith(_OWN):
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and node.value in _NAMES:
                found.append(f"{place}:{node.lineno}: {node.value!r}")
    assert not found


def test_the_catalogue_lists_every_provider_of_onnx_runtime():
    assert catalogue.ONNX.providers == tuple(PROVIDERS)
