from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import glama_deploy
from glama_deploy import bundle_folder
from glama_deploy.bundle import DEFAULT_PROFILE, Bundle
from glama_deploy.engines import base
from glama_deploy.engines.build import add_engine, install_engine
from glama_deploy.errors import BundleError, GlamaError
from glama_deploy.runtime import base as runtime_base


@pytest.fixture
def onnx_only(tiny, make_bundle, tmp_path) -> Bundle:
    shutil.copytree(make_bundle(tiny, ("onnx",)).path, tmp_path / "bundle")
    return Bundle.open(tmp_path / "bundle")


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_an_engine_is_added_to_a_bundle_that_came_from_elsewhere(onnx_only, photo, hole):
    add_engine(onnx_only, "openvino", DEFAULT_PROFILE)
    bundle = Bundle.open(onnx_only.path)
    assert set(bundle.manifest.engines) == {"onnx", "openvino"}
    assert names(bundle.path) == {"manifest.json", "model.onnx", "openvino"}
    assert not bundle.manifest.engines["openvino"].parity.measured
    assert glama_deploy.load(bundle.path, "openvino")(photo, hole).shape == photo.shape


def test_building_again_replaces_the_engine(onnx_only):
    first = add_engine(onnx_only, "openvino", DEFAULT_PROFILE)
    again = add_engine(Bundle.open(first.path), "openvino", DEFAULT_PROFILE)
    assert all(path.is_file() for path in again.files("openvino"))


@pytest.fixture
def with_openvino(onnx_only) -> Bundle:
    return add_engine(onnx_only, "openvino", DEFAULT_PROFILE)


def changed(bundle: Bundle):
    """A function that makes an OpenVINO engine unlike the bundle's."""

    def make(work: Path):
        shutil.copytree(bundle.path / "openvino", work / "openvino")
        (work / "openvino" / "model.xml").write_text("<net/>")
        files = sorted((work / "openvino").iterdir())
        return base.describe_engine(work, "openvino", "fp32", bundle.sizes, files, {})

    return make


def test_an_unfinished_replacement_of_version_0_1_is_undone(with_openvino):
    """That version moved the old engine to `.openvino.old`, then the new one to `openvino`, then wrote the manifest."""
    before = {file.name: file.read_bytes() for file in with_openvino.files("openvino")}
    shutil.copytree(with_openvino.path / "openvino", with_openvino.path / ".openvino.old")
    (with_openvino.path / ".openvino.tmp").mkdir()
    (with_openvino.path / "openvino" / "model.xml").write_text("<net/>", encoding="utf-8")
    with pytest.raises(GlamaError, match="no luck"):
        install_engine(with_openvino, "openvino", no_luck)
    assert {file.name: file.read_bytes() for file in with_openvino.files("openvino")} == before
    assert names(with_openvino.path) == {"manifest.json", "model.onnx", "openvino"}


def no_luck(work: Path):
    raise GlamaError("no luck")


def test_leftovers_of_a_killed_build_are_removed_by_the_next_build(with_openvino):
    shutil.copytree(with_openvino.path / "openvino", with_openvino.path / ".openvino.old")
    again = add_engine(with_openvino, "openvino", DEFAULT_PROFILE)
    assert all(path.is_file() for path in again.files("openvino"))
    assert names(again.path) == {"manifest.json", "model.onnx", "openvino"}


@pytest.mark.parametrize("refused", [bundle_folder.NEXT, "manifest.json"])  # both renames before the new engine counts
def test_an_engine_that_cannot_be_moved_into_the_bundle_leaves_the_old_one(with_openvino, monkeypatch, refused):
    def refuse(method):
        def renamed(path: Path, target: Path) -> Path:
            if target.name == refused and target.parent == with_openvino.path:
                raise OSError(28, "No space left on device")
            return method(path, target)

        return renamed

    for method in ("rename", "replace"):
        monkeypatch.setattr(Path, method, refuse(getattr(Path, method)))
    with pytest.raises(GlamaError, match=r"^cannot write [^\n]*[Nn]o space"):
        install_engine(with_openvino, "openvino", changed(with_openvino))
    there = Bundle.open(with_openvino.path)
    assert there.manifest == with_openvino.manifest
    assert all(path.is_file() for path in there.files("openvino"))
    assert names(there.path) == {"manifest.json", "model.onnx", "openvino"}


def test_openvino_runs_the_onnx_model_without_an_ir(onnx_only, photo, hole):
    out = glama_deploy.load(onnx_only.path, "openvino")(photo, hole)
    assert (out[~hole] == photo[~hole]).all()


def test_a_failed_build_leaves_the_bundle_as_it_was(onnx_only, monkeypatch):
    monkeypatch.setattr(runtime_base, "installed", lambda package: False)
    with pytest.raises(GlamaError, match=r"pip install openvino"):
        add_engine(onnx_only, "openvino", DEFAULT_PROFILE)
    assert names(onnx_only.path) == {"manifest.json", "model.onnx"}
    Bundle.open(onnx_only.path).files("onnx")


def test_a_changed_onnx_model_is_refused_by_the_build(onnx_only):
    with (onnx_only.path / "model.onnx").open("ab") as file:
        file.write(b"x")
    with pytest.raises(BundleError, match="was changed"):
        add_engine(onnx_only, "openvino", DEFAULT_PROFILE)


@pytest.mark.parametrize(("target", "precision"), [("openvino", "bf16"), ("openvino", "banana"), ("trt-rtx", "int4")])
def test_a_precision_that_a_target_does_not_support_is_an_error(onnx_only, target, precision):
    with pytest.raises(GlamaError, match=f"{target} does not support precision '{precision}'; "):
        add_engine(onnx_only, target, DEFAULT_PROFILE, precision)
    assert names(onnx_only.path) == {"manifest.json", "model.onnx"}


def test_a_missing_graph_is_an_error_that_names_the_export(onnx_only):
    with pytest.raises(GlamaError, match="has no fp16 graph"):
        add_engine(onnx_only, "trt-rtx", DEFAULT_PROFILE, "fp16")


def test_a_bundle_with_int8_for_cpus_only_names_the_export_for_tensorrt(onnx_only):
    with pytest.raises(BundleError, match=r"no int8.fp16 graph .* with `precision=int8` .* `targets="):
        add_engine(onnx_only, "trt-rtx", DEFAULT_PROFILE, "int8")
    assert names(onnx_only.path) == {"manifest.json", "model.onnx"}


def test_an_unknown_target_is_an_error(onnx_only):
    with pytest.raises(GlamaError, match="expected onnx, openvino, trt, trt-rtx"):
        add_engine(onnx_only, "ncnn", DEFAULT_PROFILE)
