"""The commands as a user meets them: exit codes, one line for what is wrong, and never a traceback."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import distribution
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from glama_deploy.bundle import Bundle
from glama_deploy.checkpoints import formats
from glama_deploy.cli import demo
from glama_deploy.cli.build import main as glama_build
from glama_deploy.cli.demo import main as glama_demo
from glama_deploy.cli.export import main as glama_export
from glama_deploy.cli.inpaint import main as glama_inpaint
from glama_deploy.export import pipeline
from glama_deploy.io import images

BIN = Path(sys.executable).parent


@pytest.fixture
def files(tmp_path: Path, photo, hole) -> dict[str, Path]:
    Image.fromarray(photo).save(tmp_path / "image.png")
    Image.fromarray(hole).save(tmp_path / "mask.png")
    return {"image": tmp_path / "image.png", "mask": tmp_path / "mask.png", "out": tmp_path / "out.png"}


def inpaint(files: dict[str, Path], *more: object, **changes: object) -> int:
    arguments = {**files, **changes}
    return glama_inpaint.run([*(str(x) for k, v in arguments.items() for x in (f"--{k}", v)), *map(str, more)])


def one_line(captured: pytest.CaptureFixture[str], command: str) -> str:
    """The error that was printed: a single line that starts with the command's name."""
    lines = captured.readouterr().err.strip().splitlines()
    errors = [line for line in lines if line.startswith(f"{command}: ")]
    assert len(errors) == 1, lines
    assert lines[-1] == errors[0], lines
    assert not any("Traceback" in line for line in lines)
    return errors[0]


@pytest.mark.parametrize("name", sorted(script.name for script in distribution("glama-deploy").entry_points))
def test_every_command_explains_itself(name):
    child = subprocess.run([BIN / name, "--help"], capture_output=True, text=True, check=False)
    assert child.returncode == 0, child.stderr
    assert "Usage" in child.stdout


def test_an_export_prints_the_parity_table(tiny, tmp_path, capsys):
    code = glama_export.run(["--ckpt", str(tiny), "--out", str(tmp_path / "b"), "--target", "openvino"])
    out = capsys.readouterr().out
    assert code == 0
    assert re.search(r"openvino\s+fp32\s+≥ 16x16\s+\d\.\de-0\d\s+\d+\.\d dB\s+pass", out)
    assert f"bundle: {tmp_path / 'b'}" in out


def test_parity_over_the_tolerance_is_exit_code_3_and_says_where(tiny, tmp_path, capsys):
    arguments = ["--ckpt", str(tiny), "--out", str(tmp_path / "b"), "--target", "openvino"]
    code = glama_export.run([*arguments, "--tolerance", "fp32=1e-12"])
    out = capsys.readouterr().out
    assert code == 3
    assert out.count("FAIL") == 2
    assert re.search(r"openvino: over its tolerance of 1e-12, worst at \d+x\d+ ", out)


def test_a_target_that_is_not_installed_is_exit_code_4_and_the_others_are_built(tiny, tmp_path, capsys, monkeypatch):
    from glama_deploy.engines.tensorrt import builder as tensorrt

    monkeypatch.setattr(tensorrt, "installed", lambda package: False)
    arguments = ["--ckpt", str(tiny), "--out", str(tmp_path / "b"), "--target", "trt", "--target", "openvino"]
    assert glama_export.run([*arguments, "--no-parity"]) == 4
    out = capsys.readouterr().out
    assert "not built" in out
    assert "pip install 'glama-deploy[tensorrt]'" in out
    assert out.endswith(f"bundle: {tmp_path / 'b'}\non the device: glama-build {tmp_path / 'b'} --target trt\n")
    assert set(Bundle.open(tmp_path / "b").manifest.engines) == {"onnx", "openvino"}


def test_inpainting_a_file_keeps_the_known_pixels(files, tiny_bundle, photo, hole):
    assert inpaint(files, model=tiny_bundle.path) == 0
    out = np.asarray(Image.open(files["out"]))
    np.testing.assert_array_equal(out[~hole], photo[~hole])


def test_inpainting_folders_ends_with_a_summary_and_exit_code_2_for_a_bad_file(files, tiny_bundle, tmp_path, capsys):
    for name in ("image", "mask"):
        (tmp_path / f"{name}s").mkdir()
        shutil.copy(files[name], tmp_path / f"{name}s" / "a.png")
    folders = {"image": tmp_path / "images", "mask": tmp_path / "masks", "out": tmp_path / "outs"}
    assert inpaint(folders, model=tiny_bundle.path) == 0
    assert "1 written, 0 skipped, 0 failed" in capsys.readouterr().err
    (tmp_path / "images" / "b.png").write_text("no image")
    shutil.copy(files["mask"], tmp_path / "masks" / "b.png")
    assert inpaint(folders, model=tiny_bundle.path) == 2
    err = capsys.readouterr().err
    assert "0 written, 1 skipped, 1 failed" in err
    assert "b.png is not a supported image, or is damaged" in err


def test_a_folder_ends_with_a_list_of_skipped_files(files, tiny_bundle, tmp_path, capsys):
    for name in ("image", "mask"):
        (tmp_path / f"{name}s").mkdir()
        shutil.copy(files[name], tmp_path / f"{name}s" / "a.png")
    for name in ("b.exr", "c.psd", "d.jxl", "e.hdr"):
        (tmp_path / "images" / name).write_bytes(b"")
    (tmp_path / "images" / "more").mkdir()
    folders = {"image": tmp_path / "images", "mask": tmp_path / "masks", "out": tmp_path / "outs"}
    assert inpaint(folders, model=tiny_bundle.path) == 0
    assert capsys.readouterr().err.splitlines()[-2:] == [
        "1 written, 0 skipped, 0 failed",
        "left out: 4 files that are not supported images (b.exr, c.psd, d.jxl, e.hdr), 1 subfolder (more)",
    ]


def test_a_frame_is_filled_if_one_is_chosen(files, tiny_bundle, tmp_path, photo, hole, capsys):
    frames = [Image.fromarray(photo), Image.fromarray(photo[::-1])]
    frames[0].save(tmp_path / "two.png", save_all=True, append_images=frames[1:])
    assert inpaint(files, model=tiny_bundle.path, image=tmp_path / "two.png") == 2
    assert "has 2 frames; set --frame to one of 0 to 1" in one_line(capsys, "glama-inpaint")
    assert inpaint(files, model=tiny_bundle.path, image=tmp_path / "two.png", frame=1) == 0
    with Image.open(files["out"]) as out:
        np.testing.assert_array_equal(np.asarray(out)[~hole], photo[::-1][~hole])


def test_what_outputs_do_not_keep_is_one_note_for_a_folder(files, tiny_bundle, tmp_path, photo, capsys, monkeypatch):
    monkeypatch.setattr(images, "_noted", set())
    (tmp_path / "images").mkdir()
    for name in ("a", "b", "c"):
        Image.fromarray(photo).save(tmp_path / "images" / f"{name}.jpg", comment=b"hello")
    folders = {"image": tmp_path / "images", "mask": files["mask"], "out": tmp_path / "outs", "format": "webp"}
    assert inpaint(folders, model=tiny_bundle.path) == 0
    notes = [line for line in capsys.readouterr().err.splitlines() if "note: " in line]
    assert notes == ["glama-inpaint: note: WebP outputs do not keep comments of their inputs"]


def test_masks_are_not_inpainted_as_images(files, tiny_bundle, tmp_path, capsys):
    assert inpaint(files, model=tiny_bundle.path, image=tmp_path, mask=tmp_path, out=tmp_path / "outs") == 2
    assert "are the same folder" in one_line(capsys, "glama-inpaint")
    assert not (tmp_path / "outs").exists()


def test_a_mask_that_marks_every_pixel_is_refused(files, tiny_bundle, capsys):
    Image.fromarray(np.ones((96, 120), bool)).save(files["mask"])
    assert inpaint(files, model=tiny_bundle.path) == 2
    assert "mask.png marks every pixel as missing" in one_line(capsys, "glama-inpaint")
    assert not files["out"].exists()


def test_an_empty_mask_is_noted(files, tiny_bundle, photo, capsys):
    Image.fromarray(np.zeros((96, 120), bool)).save(files["mask"])
    assert inpaint(files, model=tiny_bundle.path) == 0
    assert "marks no pixel as missing" in capsys.readouterr().err
    np.testing.assert_array_equal(np.asarray(Image.open(files["out"])), photo)


def test_the_demo_overwrites_nothing_that_it_did_not_make(tmp_path, capsys):
    (tmp_path / "pic.png").write_text("precious")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_text("precious")
    for name in ("pic", "photos"):
        assert glama_demo.run(["--out", str(tmp_path / name)]) == 2
        assert "was not made by the demo" in one_line(capsys, "glama-demo")
    assert (tmp_path / "pic.png").read_text() == "precious"
    assert not (tmp_path / "pic").exists()


def test_the_demo_runs_again_after_a_kill_and_removes_what_the_kill_left(tiny, tmp_path, monkeypatch):
    def export_tiny(request, step):
        return pipeline.export(replace(request, checkpoint=tiny, targets=("onnx",), parity=False), step)

    monkeypatch.setattr(demo, "export", export_tiny)
    (tmp_path / "demo" / ".glama-1.tmp").mkdir(parents=True)
    (tmp_path / "demo" / ".glama-1.lock").write_bytes(b"")
    (tmp_path / ".glama-2.tmp").write_bytes(b"half a picture")
    assert glama_demo.run(["--out", str(tmp_path / "demo")]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["demo", "demo.png"]
    assert sorted(path.name for path in (tmp_path / "demo").iterdir()) == ["bundle", "inpainted.png"]


def test_an_output_with_an_impossible_name_is_one_line(tiny, capsys):
    assert glama_export.run(["--ckpt", str(tiny), "--out", "z" * 5000]) == 2
    assert "(5000 characters): File name too long; check the path" in one_line(capsys, "glama-export")
    assert glama_demo.run(["--out", "z" * 5000]) == 2
    assert "File name too long; check the path" in one_line(capsys, "glama-demo")


def test_a_command_prints_its_version(capsys):
    assert glama_inpaint.run(["--version"]) == 0
    assert capsys.readouterr().out.split()[0] == "glama-inpaint"


def test_an_engine_is_built_into_a_bundle(tiny, make_bundle, tmp_path, capsys):
    shutil.copytree(make_bundle(tiny, ("onnx",)).path, tmp_path / "b")
    assert glama_build.run([str(tmp_path / "b"), "--target", "openvino"]) == 0
    assert "openvino: fp32" in capsys.readouterr().out


@pytest.mark.slow
def test_the_demo_writes_its_picture(tmp_path, capsys):
    code = glama_demo.run(["--out", str(tmp_path / "demo")])
    out = capsys.readouterr().out
    assert code in (0, 4)  # 4 where TensorRT-RTX is not installed
    assert re.search(r"openvino\s+fp32.*pass", out)
    sample = Image.open(Path(__file__).parents[2] / "glama_deploy" / "assets" / "sample.jpg")
    with Image.open(tmp_path / "demo.png") as sheet:
        assert sheet.size == (3 * sample.width + 16, sample.height)
    assert (tmp_path / "demo" / "inpainted.png").is_file()


# ---------------------------------------------------------------- bad input: one line, exit code 2, nothing written


def another_network(path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2).state_dict(), path)


def truncated(path: Path) -> None:
    another_network(path)
    path.write_bytes(path.read_bytes()[:300])


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: None, "no checkpoint at"),
        (lambda path: path.write_bytes(b""), "is empty"),
        (truncated, "is truncated: 300 bytes found"),
        (another_network, "has no LaMa or GLaMa generator"),
        (lambda path: path.mkdir(), r"no config\.yaml"),
    ],
)
def test_a_bad_checkpoint_is_one_line(tmp_path, capsys, make, says):
    make(tmp_path / "x.pt")
    before = sorted(tmp_path.rglob("*"))
    assert glama_export.run(["--ckpt", str(tmp_path / "x.pt"), "--out", str(tmp_path / "b")]) == 2
    assert re.search(says, one_line(capsys, "glama-export"))
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--size", "500x500"], r"--size is 500x500; .* the next that works is 504x504"),
        (["--size", "big"], "HEIGHTxWIDTH is expected"),
        (["--target", "coreml"], "unknown target 'coreml'"),
        (["--precision", "fp4"], "precision 'fp4' is not offered"),
        (["--min-size", "512x512", "--max-size", "64x64"], "min ≤ opt ≤ max"),
        (["--max-batch", "0"], "--max-batch"),
        (["--fp16"], "No such option: --fp16"),
        (["--size", "64x64", "--max-size", "128x128"], "leave out --min-size"),
    ],
)
def test_bad_options_of_an_export_are_one_line(tiny, tmp_path, capsys, arguments, says):
    assert glama_export.run(["--ckpt", str(tiny), "--out", str(tmp_path / "b"), *arguments]) == 2
    assert re.search(says, one_line(capsys, "glama-export"))
    assert not list(tmp_path.iterdir())


def test_a_missing_option_is_named(capsys):
    assert glama_export.run(["--ckpt", "default"]) == 2
    assert "'--out'" in one_line(capsys, "glama-export")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"image": "nothing.png"}, "no image at nothing.png"),
        ({"mask": "nothing.png"}, "no mask at nothing.png"),
        ({"model": "nothing"}, "no checkpoint at nothing"),
        ({"image": "x" * 5000}, "File name too long"),
        ({"mask": "x" * 5000}, "File name too long"),
        ({"out": "x" * 5000}, "File name too long"),
        ({"model": "x" * 5000}, "File name too long"),
        ({"backend": "coreml"}, "unknown backend 'coreml'"),
        ({"precision": "fp4"}, "unknown precision 'fp4'"),
        ({"threads": 0}, "--threads"),
        ({"quality": 90}, "--quality is 90, and .png has no quality; write .jpg or .webp, or leave --quality out"),
        ({"quality": 0, "out": "x.jpg"}, "--quality is 0; 1 to 100 is expected"),
        ({"frame": 1}, "--frame is 1, and"),
        ({"frame": -1}, "--frame is -1; 0"),
    ],
)
def test_bad_options_of_inpainting_are_one_line(files, tiny_bundle, capsys, changes, says):
    assert inpaint(files, **{"model": tiny_bundle.path, **changes}) == 2
    assert says in one_line(capsys, "glama-inpaint")
    assert not files["out"].exists()


@pytest.mark.parametrize("names", [("a", "b"), ("generator", "generator_ema")])
def test_of_several_generators_the_command_that_chooses_is_named(files, tiny, tmp_path, capsys, names):
    """glama-inpaint has no option of that kind."""
    state = {name: torch.from_numpy(values) for name, values in formats.read(tiny).weights.items()}
    torch.save({name: dict(state) for name in names}, tmp_path / "two.pt")
    inpaint(files, model=tmp_path / "two.pt", backend="torch")
    said = capsys.readouterr().err
    assert "glama-export --weights-key " in said
    assert "`" not in said


@pytest.mark.parametrize(
    ("size", "says"),
    [((1, 1), "1x1; both sides must be from 16"), ((40, 30000), "40x30000; both sides must be from 16 to 16384")],
)
def test_an_image_of_an_unsupported_size_is_one_line(files, tiny_bundle, capsys, size, says):
    Image.fromarray(np.zeros((*size, 3), np.uint8)).save(files["image"])
    Image.fromarray(np.ones(size, bool)).save(files["mask"])
    assert inpaint(files, model=tiny_bundle.path) == 2
    assert says in one_line(capsys, "glama-inpaint")
    assert not files["out"].exists()


def test_a_file_that_is_not_an_image_or_has_another_size_is_one_line(files, tiny_bundle, capsys):
    Image.fromarray(np.ones((50, 60), bool)).save(files["mask"])
    assert inpaint(files, model=tiny_bundle.path) == 2
    assert "mask is 50x60, the image 96x120" in one_line(capsys, "glama-inpaint")
    files["image"].write_text("no image")
    assert inpaint(files, model=tiny_bundle.path) == 2
    assert "not a supported image, or is damaged" in one_line(capsys, "glama-inpaint")
    assert not files["out"].exists()


def test_a_changed_bundle_and_one_of_a_newer_version_are_one_line(files, tiny_bundle, tmp_path, capsys):
    bundle = Path(shutil.copytree(tiny_bundle.path, tmp_path / "b"))
    weights = bundle / "openvino" / "model.bin"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\1")
    assert inpaint(files, model=bundle, backend="openvino") == 2
    assert "SHA-256 differs" in one_line(capsys, "glama-inpaint")
    manifest = bundle / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"schema_version": 2', '"schema_version": 99'))
    assert inpaint(files, model=bundle) == 2
    assert "bundle schema 99" in one_line(capsys, "glama-inpaint")
    assert not files["out"].exists()


def test_an_output_that_exists_is_kept(files, tiny_bundle, capsys):
    files["out"].write_text("precious")
    assert inpaint(files, model=tiny_bundle.path) == 2
    assert "--overwrite" in one_line(capsys, "glama-inpaint")
    assert files["out"].read_text() == "precious"
    assert inpaint(files, "--overwrite", model=tiny_bundle.path) == 0


@pytest.mark.parametrize("name", ["x" * 300 + ".png", "[/b].png", "[red].png", "ü ✓.png"])
def test_unusual_file_names_work(files, tiny_bundle, tmp_path, capsys, name):
    code = inpaint(files, model=tiny_bundle.path, out=tmp_path / name)
    if len(name) > 255:
        assert code == 2
        assert "name" in one_line(capsys, "glama-inpaint").lower()
    else:
        assert code == 0
        assert name in capsys.readouterr().err


def test_an_output_that_cannot_be_written_is_one_line(files, tiny_bundle, tmp_path, capsys):
    """`/proc` takes no files, not even from root."""
    assert inpaint(files, model=tiny_bundle.path, out="/proc/out.png") == 2
    assert "cannot write /proc/out.png" in one_line(capsys, "glama-inpaint")
    assert glama_export.run(["--ckpt", "default", "--out", "/proc/bundle"]) == 2
    assert "cannot write" in one_line(capsys, "glama-export")
