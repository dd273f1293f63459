"""Repositories of servers as files: what is in them, what is refused, and that they appear complete or not at all.

tests/remote/ runs them in servers.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from fakes.tensorrt_bundles import SIZES, with_engine
from glama_deploy.bundle import MANIFEST, BuildSettings, Bundle, SizeRange, manifest_text
from glama_deploy.cli.package import main as glama_package
from glama_deploy.engines.repositories import repository as repository_module
from glama_deploy.engines.repositories.repository import RepositoryRequest, write_repository
from glama_deploy.engines.repositories.served_model import intersect_sizes
from glama_deploy.engines.repositories.text_format import Constant, write_message
from glama_deploy.errors import BundleError, EngineError, GlamaError


@pytest.fixture(scope="module")
def bundle(tiny, make_bundle) -> Bundle:
    return make_bundle(tiny, ("openvino",), io="uint8")


def list_files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def save_with_engine(bundle: Bundle, folder: Path, **changes: object) -> Path:
    """A copy of the bundle whose manifest has a TensorRT engine."""
    shutil.copytree(bundle.path, folder)
    (folder / MANIFEST).write_text(manifest_text(with_engine(bundle, **changes).manifest), encoding="utf-8")
    return folder


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("glama-package: ")
    return line.removeprefix("glama-package: ")


@pytest.mark.parametrize(
    ("backend", "files"),
    [
        ("onnxruntime", ["1/model.onnx", "config.pbtxt"]),
        ("openvino", ["1/model.bin", "1/model.xml", "config.pbtxt"]),
        (
            "python",
            [
                "1/bundle/manifest.json",
                "1/bundle/model.onnx",
                "1/bundle/openvino/model.bin",
                "1/bundle/openvino/model.xml",
                "1/model.py",
                "config.pbtxt",
            ],
        ),
    ],
)
def test_a_model_folder_is_complete(bundle, tmp_path, capsys, backend, files):
    out = tmp_path / "repository"
    assert glama_package.run([str(bundle.path), "--for", "triton", "--backend", backend, "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"model: {out / 'glama'}\n"
    assert list_files(out) == sorted(["glama-package.json", *(f"glama/{file}" for file in files)])
    assert [path.name for path in tmp_path.iterdir()] == ["repository"]


def test_a_plan_has_its_profiles_and_its_gpus(bundle, tmp_path):
    profiles = tuple(SizeRange(min=(64, 64), opt=(side, side), max=(256, 256)) for side in (64, 128))
    source = save_with_engine(bundle, tmp_path / "b", profiles=profiles, compute_capabilities=("8.9",))
    folder = write_repository(RepositoryRequest(source, "triton", tmp_path / "r", "tensorrt"))
    text = (folder / "config.pbtxt").read_text(encoding="ascii")
    assert 'profile: ["0", "1"]' in text
    assert "kind: KIND_GPU" in text
    assert 'string_value: "8.9"' in text
    assert 'name: "64x64"' in text
    assert 'name: "128x128"' in text
    assert (folder / "1" / "model.plan").read_bytes() == (source / "model.onnx").read_bytes()


def test_a_graph_of_one_size_is_batched_by_the_server(tiny, make_bundle, tmp_path):
    source = make_bundle(tiny, ("onnx",), io="uint8", size=(64, 64)).path
    folder = write_repository(RepositoryRequest(source, "triton", tmp_path / "r", "onnxruntime"))
    text = (folder / "config.pbtxt").read_text(encoding="ascii")
    assert "max_batch_size: 8\n" in text
    assert "dynamic_batching {\n}\n" in text
    assert "dims: [64, 64, 3]" in text


def test_instances_are_counted(bundle, tmp_path):
    folder = write_repository(RepositoryRequest(bundle.path, "triton", tmp_path / "r", "openvino", instances=3))
    text = (folder / "config.pbtxt").read_text(encoding="ascii")
    assert "count: 3\n" in text
    assert 'key: "NUM_STREAMS"\n  value {\n    string_value: "3"\n' in text


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--for", "tfserving"], "--for is 'tfserving'; expected triton or ovms"),
        (["--for", "triton", "--backend", "pytorch"], "--backend is 'pytorch'; expected python, onnxruntime, openvino"),
        (["--for", "ovms", "--backend", "openvino"], "--backend is for Triton; leave it out for ovms"),
        (["--for", "triton", "--color", "bgr"], "--color is for OpenVINO Model Server; leave it out for triton, which"),
        (["--for", "ovms", "--color", "gbr"], "--color is 'gbr'; expected rgb or bgr"),
        (["--for", "ovms", "--name", "../x"], "--name is '../x'; letters, digits, '_', '.' and '-' are expected"),
        (
            ["--for", "triton", "--backend", "tensorrt"],
            "has no engine for TensorRT (it has: onnx, openvino); add it with glama-build {bundle} --target trt",
        ),
    ],
)
def test_what_cannot_be_written_is_one_line_and_writes_nothing(bundle, tmp_path, capsys, options, says):
    assert glama_package.run([str(bundle.path), "--out", str(tmp_path / "r"), *options]) == 2
    assert says.format(bundle=bundle.path) in one_line(capsys)
    assert not list(tmp_path.iterdir())


def test_a_bundle_with_float_tensors_names_the_export_that_helps(tiny_bundle, tmp_path, capsys):
    for options in (["--for", "ovms"], ["--for", "triton", "--backend", "onnxruntime"]):
        assert glama_package.run([str(tiny_bundle.path), "--out", str(tmp_path / "r"), *options]) == 2
        assert "has float tensors, and clients of servers send bytes; export it with --io uint8" in one_line(capsys)


def test_a_bundle_for_another_program_is_refused(tiny, make_bundle, tmp_path, capsys):
    source = make_bundle(tiny, ("onnx",), io="carve").path
    assert glama_package.run([str(source), "--for", "triton", "--out", str(tmp_path / "r")]) == 2
    assert "is for programs that load the ONNX model of Carve" in one_line(capsys)


def test_a_plan_without_weights_or_with_a_plugin_is_refused(bundle, tmp_path):
    stripped = save_with_engine(bundle, tmp_path / "b", settings=BuildSettings(refittable=True, stripped=True))
    with pytest.raises(BundleError, match="has no weights; build it again without `stripped`"):
        write_repository(RepositoryRequest(stripped, "triton", tmp_path / "r", "tensorrt"))
    opened = Bundle.open(save_with_engine(bundle, tmp_path / "p"))
    manifest = opened.manifest.model_copy(update={"fft": "plugin"})
    (tmp_path / "p" / MANIFEST).write_text(manifest_text(manifest), encoding="utf-8")
    with pytest.raises(BundleError, match="which Triton does not load; export with `fft=matmul`"):
        write_repository(RepositoryRequest(tmp_path / "p", "triton", tmp_path / "r", "tensorrt"))


def test_a_changed_bundle_is_refused(bundle, tmp_path):
    shutil.copytree(bundle.path, tmp_path / "b")
    with (tmp_path / "b" / "openvino" / "model.bin").open("ab") as file:
        file.write(b"x")
    for backend in ("python", "openvino"):
        with pytest.raises(BundleError, match="was changed since the export"):
            write_repository(RepositoryRequest(tmp_path / "b", "triton", tmp_path / "r", backend))
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_a_repository_that_exists_is_replaced_only_when_asked(bundle, tmp_path, capsys):
    out = tmp_path / "r"
    command = [str(bundle.path), "--for", "triton", "--backend", "onnxruntime", "--out", str(out)]
    assert glama_package.run(command) == 0
    assert glama_package.run([*command, "--name", "other"]) == 2
    assert "exists already; choose another folder or pass --overwrite" in one_line(capsys)
    assert glama_package.run([*command, "--name", "other", "--overwrite"]) == 0
    assert [path.name for path in out.iterdir() if path.is_dir()] == ["other"]


def test_a_folder_of_other_files_is_never_replaced(bundle, tmp_path, capsys):
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "mine.txt").write_text("mine", encoding="utf-8")
    assert glama_package.run([str(bundle.path), "--for", "ovms", "--out", str(tmp_path / "r"), "--overwrite"]) == 2
    assert "was not written by glama-package, so it is not overwritten; choose another folder" in one_line(capsys)
    assert list_files(tmp_path / "r") == ["mine.txt"]


def test_a_repository_with_more_in_it_is_never_replaced(bundle, tmp_path, capsys):
    out = tmp_path / "r"
    command = [str(bundle.path), "--for", "triton", "--out", str(out)]
    assert glama_package.run(command) == 0
    kept = str(out / "glama" / "1" / "bundle")
    assert glama_package.run([kept, *command[1:], "--overwrite"]) == 2
    assert "bundle lies in" in capsys.readouterr().err
    (out / "another").mkdir()
    assert glama_package.run([*command, "--overwrite"]) == 2
    assert "also has another, which glama-package did not write there" in one_line(capsys)
    assert (out / "another").is_dir()


def test_a_write_that_fails_leaves_the_old_repository(bundle, tmp_path, monkeypatch):
    out = tmp_path / "r"
    write_repository(RepositoryRequest(bundle.path, "ovms", out))
    before = list_files(tmp_path)

    def fail(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(repository_module, "_write_mark", fail)
    with pytest.raises(GlamaError, match="no space is left on the disk"):
        write_repository(RepositoryRequest(bundle.path, "ovms", out, name="other", overwrite=True))
    assert list_files(tmp_path) == before


def test_openvino_that_is_missing_is_named(bundle, tmp_path, monkeypatch):
    from glama_deploy.engines.repositories import openvino_model
    from glama_deploy.runtime.base import require

    monkeypatch.setattr(openvino_model, "core", lambda: require("openvino_missing", "OpenVINO", "pip install openvino"))
    with pytest.raises(EngineError, match="OpenVINO is not installed; pip install openvino"):
        write_repository(RepositoryRequest(bundle.path, "ovms", tmp_path / "r"))
    assert not list(tmp_path.iterdir())


def test_sizes_are_those_of_every_engine(bundle):
    """Triton's Python backend chooses the engine on the server."""
    assert intersect_sizes(bundle) == bundle.sizes
    both = intersect_sizes(with_engine(bundle))
    assert (both.min, both.max, both.max_batch) == (SIZES.min, SIZES.max, SIZES.max_batch)
    far = SizeRange(min=(64, 64), opt=(64, 64), max=(64, 64))
    farther = SizeRange(min=(128, 128), opt=(128, 128), max=(128, 128))
    engines = {
        name: engine.model_copy(update={"sizes": sizes})
        for (name, engine), sizes in zip(bundle.manifest.engines.items(), (far, farther), strict=True)
    }
    with pytest.raises(BundleError, match="no size suits every engine"):
        intersect_sizes(Bundle(bundle.path, bundle.manifest.model_copy(update={"engines": engines})))


def test_a_client_can_read_the_network_from_the_configuration(bundle, tmp_path):
    folder = write_repository(RepositoryRequest(bundle.path, "triton", tmp_path / "r"))
    text = (folder / "config.pbtxt").read_text(encoding="ascii")
    line = next(line for line in text.splitlines() if "network" in line)
    described = json.loads(json.loads(line.partition("string_value: ")[2]))
    assert described["network"] == bundle.manifest.network.model_dump()
    assert described["color"] == "rgb"


def test_the_text_format_escapes_what_protobuf_does():
    message = {
        "text": 'a"b\\c\né',
        "word": Constant("KIND_CPU"),
        "flag": True,
        "none": [],
        "parts": [{"n": 1}, {"n": 2}],
    }
    assert write_message(message) == (
        'text: "a\\"b\\\\c\\012\\303\\251"\nword: KIND_CPU\nflag: true\nparts {\n  n: 1\n}\nparts {\n  n: 2\n}\n'
    )
