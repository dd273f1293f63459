"""The options of `iopaint run`, as programs give them; the values are those of IOPaint 1.6 (cli.py, schema.py)."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import glama_deploy
from glama_deploy.cli.inpaint import main as glama_inpaint

BIN = Path(sys.executable).parent


@pytest.fixture
def folder(tmp_path, photo, hole, monkeypatch):
    Image.fromarray(photo).save(tmp_path / "image.png")
    Image.fromarray(hole).save(tmp_path / "mask.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def refuse(capsys, *arguments: object) -> str:
    """The line with which the options are refused."""
    assert glama_inpaint.run(list(map(str, arguments))) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("glama-inpaint: ")]
    return line


def test_gimps_plug_in_finds_its_result(folder, tiny_bundle, photo, hole):
    """The command line of jakubpas/IOPaint (iopaint_gimp3_plugin.py), whose output replaces the image."""
    command = [BIN / "glama", "run", "--model", tiny_bundle.path, "--device", "cpu"]
    paths = ["--image", folder / "image.png", "--mask", folder / "mask.png", "--output", folder]
    child = subprocess.run([*command, *paths], capture_output=True, text=True)
    assert child.returncode == 0, child.stderr
    filled = np.asarray(Image.open(folder / "image.png"))
    np.testing.assert_array_equal(filled, glama_deploy.load(tiny_bundle.path)(photo, hole))


@pytest.mark.parametrize("value", [126, 127, 255])
def test_masks_are_read_as_iopaint_reads_them(folder, tiny_bundle, photo, hole, value):
    """Gray, missing from 127 on. A red fill that GIMP writes into a gray mask is 127."""
    mask = np.where(hole, np.uint8(value), np.uint8(0))
    Image.fromarray(mask).save(folder / "mask.png")
    common = ["--model", str(tiny_bundle.path), "--image", "image.png", "--mask", "mask.png", "--output", "out"]
    assert glama_inpaint.run(common) == 0
    filled = np.asarray(Image.open(folder / "out/image.png"))
    expected = glama_deploy.load(tiny_bundle.path)(photo, hole & (value >= 127))
    np.testing.assert_array_equal(filled, expected)


def test_one_mask_serves_all_images_and_masks_of_a_folder_have_the_stems(folder, tiny_bundle, photo, hole):
    for place in ("images", "masks"):
        (folder / place).mkdir()
    for stem in ("a", "b"):
        Image.fromarray(photo).save(folder / "images" / f"{stem}.jpg")
        Image.fromarray(hole if stem == "a" else hole[::-1]).save(folder / "masks" / f"{stem}.png")
    common = ["--model", str(tiny_bundle.path), "--image", "images"]
    inpainter = glama_deploy.load(tiny_bundle.path)
    for mask, output in (("mask.png", "one"), ("masks", "several")):
        for _ in range(2):  # outputs are written again
            assert glama_inpaint.run([*common, "--mask", mask, "--output", output]) == 0
        for stem in ("a", "b"):
            holes = hole[::-1] if (mask, stem) == ("masks", "b") else hole
            image = np.asarray(Image.open(folder / "images" / f"{stem}.jpg"))
            filled = np.asarray(Image.open(folder / output / f"{stem}.png")).astype(int)
            # pictures filled at once may sum in another order, next to a rounding
            assert np.abs(filled - inpainter(image, holes)).max() <= 1


def test_iopaints_own_model_is_found_in_its_folder(folder, tiny, capsys):
    common = ["--model", "lama", "--image", "image.png", "--mask", "mask.png"]
    for place, more in (("cache", []), ("models", ["--model-dir", "models"])):
        (folder / place / "torch/hub/checkpoints").mkdir(parents=True)
        shutil.copy(tiny, folder / place / "torch/hub/checkpoints/big-lama.pt")
        assert glama_inpaint.run([*common, *more, "--output", f"out-{place}"]) == 0
        assert "using default" not in capsys.readouterr().err
        expected = glama_deploy.load(tiny)(*(np.asarray(Image.open(name)) for name in ("image.png", "mask.png")))
        np.testing.assert_array_equal(np.asarray(Image.open(f"out-{place}/image.png")), expected)


def test_without_iopaints_model_the_published_one_takes_its_place(folder, capsys):
    common = ["--model", "lama", "--image", "image.png", "--mask", "mask.png", "--output", "out"]
    assert "big-lama is not on this machine, and GLAMA_OFFLINE=1 forbids downloads" in refuse(capsys, *common)
    assert "--model-dir nowhere has no torch/hub/checkpoints/big-lama.pt" in refuse(
        capsys, *common, "--model-dir", "nowhere"
    )


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--concat"], "--concat is not supported"),
        (
            ["--device", "mps"],
            "--device is 'mps'; give --backend onnxruntime:coreml; as device, cpu, cuda, cuda:N, GPU",
        ),
        (["--device", "cuda", "--backend", "openvino"], "--device is cuda, and openvino does not compute there"),
        (["--model-dir", "."], "--model-dir goes with --model lama"),
        (["--out", "out.png"], "--out and --output are both given"),
        (["--output", "image.png"], "--output image.png is a file; a folder is expected"),
        (["--mask", "image.png"], "is the image or its output"),
    ],
)
def test_what_cannot_be_followed_is_named(folder, tiny_bundle, capsys, options, says):
    common = ["--model", tiny_bundle.path, "--image", "image.png", "--mask", "mask.png", "--output", "out"]
    assert says in refuse(capsys, *common, *options)
    assert not (folder / "out").exists()


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ('{"sd_steps": 20}', "sd_steps is 20, which LaMa's networks do not support"),
        ('{"prompt": "a cat"}', "prompt is 'a cat'"),
        ('{"hd_strategy": "Magic"}', "hd_strategy is 'Magic'; expected Original, Crop, Resize"),
        ('{"cat": 1}', "the key 'cat' is not known"),
        ("[]", "has no JSON object"),
        ("{", "cannot be read"),
    ],
)
def test_a_config_of_other_networks_is_refused_by_its_key(folder, tiny_bundle, capsys, config, says):
    Path("config.json").write_text(config, encoding="utf-8")
    common = ["--model", tiny_bundle.path, "--image", "image.png", "--mask", "mask.png", "--output", "out"]
    assert says in refuse(capsys, *common, "--config", "config.json")


def test_iopaints_own_config_is_taken_and_its_strategy_chooses_the_region(folder, tiny_bundle, photo, hole):
    config = {"hd_strategy": "Original", "hd_strategy_crop_margin": 128, "sd_steps": 50, "prompt": "", "sd_seed": 42}
    Path("config.json").write_text(json.dumps(config), encoding="utf-8")
    common = ["--model", str(tiny_bundle.path), "--image", "image.png", "--mask", "mask.png", "--output", "out"]
    assert glama_inpaint.run([*common, "--config", "config.json"]) == 0
    expected = glama_deploy.load(tiny_bundle.path)(photo, hole, region="full")
    np.testing.assert_array_equal(np.asarray(Image.open("out/image.png")), expected)
