from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

import glama_deploy
from glama_deploy import bundle_folder
from glama_deploy.bundle import MANIFEST, Bundle, SizeRange, parse_size
from glama_deploy.errors import BundleError, GlamaError
from glama_deploy.io.files import sha256


@pytest.fixture
def copy(tiny_bundle: Bundle, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle.path, tmp_path / "bundle"))


def edit(bundle: Path, **fields: object) -> None:
    tree = json.loads((bundle / MANIFEST).read_text())
    (bundle / MANIFEST).write_text(json.dumps({**tree, **fields}))


def test_a_bundle_says_what_it_holds(tiny_bundle, tiny):
    manifest = Bundle.open(tiny_bundle.path).manifest
    assert manifest.checkpoint.sha256 == sha256(tiny)
    assert manifest.checkpoint.kind == "safetensors"
    assert set(manifest.engines) == {"onnx", "openvino"}
    assert [tensor.name for tensor in manifest.inputs] == ["image", "mask"]
    assert manifest.tools.keys() >= {"glama-deploy", "onnx", "numpy"}
    assert "openvino" in manifest.engines["openvino"].versions
    for engine in manifest.engines.values():
        for artifact in engine.files:
            path = tiny_bundle.path / artifact.path
            assert (path.stat().st_size, sha256(path)) == (artifact.bytes, artifact.sha256)


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_a_changed_artifact_is_not_run(copy, backend):
    artifact = copy / ("openvino/model.bin" if backend == "openvino" else "model.onnx")
    data = bytearray(artifact.read_bytes())
    data[len(data) // 2] ^= 1
    artifact.write_bytes(data)
    with pytest.raises(BundleError, match="was changed since the export"):
        glama_deploy.load(copy, backend)


def test_a_missing_artifact_is_named(copy):
    (copy / "openvino" / "model.bin").unlink()
    with pytest.raises(BundleError, match=r"model\.bin is missing"):
        glama_deploy.load(copy, "openvino")


def test_a_newer_schema_says_to_upgrade(copy):
    edit(copy, schema_version=99, a_field_of_the_future=1)
    with pytest.raises(BundleError, match="schema 99, this glama-deploy reads up to 2; upgrade"):
        Bundle.open(copy)


def test_a_field_of_the_future_says_to_upgrade(copy):
    edit(copy, a_field_of_the_future=1)
    with pytest.raises(
        BundleError, match=r"a_field_of_the_future: .*; upgrade glama-deploy or export the bundle again"
    ):
        Bundle.open(copy)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", '{"schema_version": 1}', '{"schema_version": true}', "\x00", "[" * 9999, "9" * 9999],
)
def test_a_damaged_manifest_is_an_error(copy, text):
    (copy / MANIFEST).write_text(text)
    with pytest.raises(BundleError, match="export the bundle again"):
        Bundle.open(copy)


@pytest.mark.parametrize("change", [{"engines": {}}, {"graphs": {}}])
def test_a_bundle_without_its_onnx_model_is_an_error(copy, change):
    edit(copy, **change)
    with pytest.raises(BundleError, match="every bundle has an fp32 graph and the engine onnx"):
        Bundle.open(copy)


@pytest.mark.parametrize("files", [0, 1, 3])
def test_an_engine_with_files_too_few_or_too_many_is_an_error(copy, files):
    tree = json.loads((copy / MANIFEST).read_text())
    entry = tree["engines"]["openvino"]["files"]
    tree["engines"]["openvino"]["files"] = (entry * 2)[:files]
    (copy / MANIFEST).write_text(json.dumps(tree))
    with pytest.raises(BundleError, match="files"):
        Bundle.open(copy)


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("../../secret", "leads out of the bundle"),
        ("..\\secret", "has a backslash or a colon"),  # on Windows these lead out, too
        ("C:secret", "has a backslash or a colon"),
        ("n" * 5000, "has 5000 characters; at most 200"),
        ("model\0.onnx", "has characters that cannot be printed"),
    ],
)
def test_an_artifact_cannot_lead_out_of_the_bundle(copy, path, says):
    tree = json.loads((copy / MANIFEST).read_text())
    tree["engines"]["onnx"]["files"][0]["path"] = path
    (copy / MANIFEST).write_text(json.dumps(tree))
    with pytest.raises(BundleError, match=says):
        Bundle.open(copy)


def test_a_tensor_with_fewer_dimensions_than_its_layout_is_an_error(copy):
    tree = json.loads((copy / MANIFEST).read_text())
    tree["inputs"][0]["shape"] = ["batch"]
    (copy / MANIFEST).write_text(json.dumps(tree))
    with pytest.raises(BundleError, match="has 1 dimensions and the layout NCHW"):
        Bundle.open(copy)


@pytest.mark.parametrize(
    ("shape", "says"),
    [
        (["batch", 3, "rows", "width"], r"inputs\.0: .*axis H of image is 'rows'; a number or 'height' is expected"),
        (["batch", 3, "width", "height"], "axis H of image is 'width'; a number or 'height' is expected"),
        (["batch", "channels", "height", "width"], "axis C of image is 'channels'; a number is expected"),
        (["n" * 5000, 3, "height", "width"], "axis N of image is 'n{79}…'; a number or 'batch' is expected"),
    ],
)
def test_an_axis_of_an_unknown_name_is_an_error(copy, shape, says):
    tree = json.loads((copy / MANIFEST).read_text())
    tree["inputs"][0]["shape"] = shape
    (copy / MANIFEST).write_text(json.dumps(tree))
    with pytest.raises(BundleError, match=says):
        Bundle.open(copy)


@pytest.mark.skipif(sys.platform == "win32", reason="symbolic links of POSIX")
def test_an_artifact_that_is_a_loop_of_links_is_named(copy):
    (copy / "model.onnx").unlink()
    (copy / "model.onnx").symlink_to("model.onnx")
    with pytest.raises(BundleError, match=r"model\.onnx cannot be read: .*; check the file and its permissions"):
        Bundle.open(copy).files("onnx")


def test_a_path_that_no_file_can_have_is_one_line():
    with pytest.raises(GlamaError, match=r"^z{200}… \(5000 characters\): File name too long; check the path$"):
        Bundle.open("z" * 5000)
    with pytest.raises(GlamaError, match="File name too long"), bundle_folder.create(Path("z" * 5000)):
        pass


def test_a_folder_that_is_no_bundle_is_an_error(tmp_path):
    with pytest.raises(BundleError, match="is no bundle"):
        Bundle.open(tmp_path)
    with pytest.raises(BundleError, match="is no bundle"):
        glama_deploy.load(tmp_path)
    with pytest.raises(BundleError, match="no bundle at"):
        Bundle.open(tmp_path / "nothing")


@pytest.mark.parametrize("text", ["512", "512x", "x512", "axb", "512×512", "-8x16", "512x512x3", ""])
def test_a_size_must_read_height_x_width(text):
    with pytest.raises(GlamaError, match="HEIGHTxWIDTH is expected"):
        parse_size(text, "--size")


@pytest.mark.parametrize("text", ["9" * 5000 + "x16", "16x" + "9" * 5000, "0" * 5000 + "x16"])
def test_a_side_of_thousands_of_digits_is_refused_in_one_line(text):
    """Python itself refuses to read a number of more than 4,300 digits."""
    with pytest.raises(GlamaError, match=r"--size has sides of \d+ and \d+ digits; the largest side is 16384"):
        parse_size(text, "--size")


def test_a_size_must_be_a_multiple_of_8():
    assert parse_size("512X768") == (512, 768)
    with pytest.raises(GlamaError, match=r"--size is 100x130; .* the next that works is 104x136"):
        parse_size("100x130", "--size")
    with pytest.raises(GlamaError, match="16"):
        parse_size("8x512")


def test_sizes_must_be_in_order():
    with pytest.raises(ValueError, match="min ≤ opt ≤ max"):
        SizeRange(min=(512, 64), opt=(256, 256), max=(1024, 1024))
    sizes = SizeRange(min=(64, 64), opt=(256, 256), max=(1024, 512))
    assert sizes.covers(1024, 512)
    assert not sizes.covers(512, 1024)
    assert not sizes.covers(56, 64)
