"""`glama_deploy.compat.SimpleLama` takes the place of simple-lama-inpainting's class."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from test_torch_free import run

import glama_deploy
from glama_deploy.checkpoints import formats
from glama_deploy.compat import SimpleLama
from glama_deploy.errors import CheckpointError, EngineError, GlamaError, ImageError
from glama_deploy.reference.generator import inpaint


@pytest.fixture
def model(tiny, monkeypatch):
    monkeypatch.setenv("LAMA_MODEL", str(tiny))
    return tiny


@pytest.fixture
def picture() -> tuple[np.ndarray, np.ndarray]:
    rows, columns = np.mgrid[:70, :83]
    image = np.stack([rows * 3, columns * 3, rows + columns], axis=2).astype(np.uint8)
    mask = np.zeros((70, 83), np.uint8)
    mask[20:40, 30:50], mask[50, 60] = 255, 1  # the package takes above 0 as missing
    return image, mask


def run_as_the_package(path, image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """simple-lama-inpainting 0.1: pad to multiples of 8, run the whole picture, cut to 0…255."""
    pads = [(0, -side % 8) for side in mask.shape]
    whole = np.pad(image, (*pads, (0, 0)), mode="symmetric").astype(np.float32).transpose(2, 0, 1)[None] / 255
    missing = (np.pad(mask, pads, mode="symmetric") > 0).astype(np.float32)[None, None]
    with torch.inference_mode():
        found = inpaint(formats.load(path), torch.from_numpy(whole), torch.from_numpy(missing))[0]
    return np.clip(found.permute(1, 2, 0).numpy() * 255, 0, 255)[: mask.shape[0], : mask.shape[1]]


def test_the_result_is_that_of_the_package_in_the_size_of_the_image(model, picture):
    image, mask = picture
    result = SimpleLama(region="full")(Image.fromarray(image), Image.fromarray(mask))
    assert isinstance(result, Image.Image)
    assert (result.mode, result.size) == ("RGB", (83, 70))
    # rounded to the nearest level, where the package cuts the fraction off
    assert np.abs(np.asarray(result) - run_as_the_package(model, image, mask)).max() < 0.51
    np.testing.assert_array_equal(np.asarray(result)[mask == 0], image[mask == 0])


@pytest.mark.parametrize(
    "give",
    [
        lambda mask: mask,
        lambda mask: mask > 0,
        lambda mask: mask[:, :, None],
        lambda mask: mask.astype(np.float32) / 255,
        lambda mask: Image.fromarray(mask > 0),
        lambda mask: Image.fromarray(mask),
    ],
)
def test_masks_of_every_kind_mean_the_same(model, picture, give):
    image, mask = picture
    lama = SimpleLama(torch.device("cpu"))
    assert lama.device == "cpu"
    expected = np.asarray(lama(image, mask))
    np.testing.assert_array_equal(np.asarray(lama(image, give(mask))), expected)
    np.testing.assert_array_equal(np.asarray(lama(Image.fromarray(image), give(mask))), expected)


@pytest.mark.parametrize(
    ("image", "mask", "says"),
    [
        (Image.new("RGBA", (64, 64)), np.ones((64, 64)), r"mode RGBA; RGB is expected: image.convert\(\"RGB\"\)"),
        (Image.new("L", (64, 64)), np.ones((64, 64)), "mode L; RGB is expected"),
        (np.zeros((64, 64, 3), np.float32), np.ones((64, 64)), "the image is float32 of shape .*; uint8"),
        (np.zeros((64, 64), np.uint8), np.ones((64, 64)), r"the image is uint8 of shape \[64, 64\]; uint8 of shape"),
        (np.zeros((64, 64, 4), np.uint8), np.ones((64, 64)), r"shape \[64, 64, 4\]; uint8 of shape \[H, W, 3\]"),
        ("photo.jpg", np.ones((64, 64)), "the image is a str; a PIL image or a numpy array is expected"),
        (
            np.zeros((64, 64, 3), np.uint8),
            Image.new("RGB", (64, 64)),
            r"one channel is expected: mask.convert\(\"L\"\)",
        ),
        (np.zeros((64, 64, 3), np.uint8), [[1]], "the mask is a list; a PIL image or a numpy array"),
        (np.zeros((64, 64, 3), np.uint8), np.full((64, 64), "x"), "the mask is <U1; an array of numbers is expected"),
        (np.zeros((64, 64, 3), np.uint8), np.ones((64, 72)), "they must be of one size"),
    ],
)
def test_what_the_class_does_not_take_is_an_error_of_one_line(model, image, mask, says):
    lama = SimpleLama("cpu")
    with pytest.raises(ImageError, match=says):
        lama(image, mask)


def test_a_device_or_model_that_is_not_there_is_an_error_of_one_line(model, monkeypatch, tmp_path):
    with pytest.raises(
        EngineError, match=r"^`device` is 'mps'; give `backend=onnxruntime:coreml`; as device, cpu, cuda, "
    ):
        SimpleLama("mps")
    with pytest.raises(GlamaError, match="`region` is 'some'"):
        SimpleLama(region="some")
    monkeypatch.setenv("LAMA_MODEL", str(tmp_path / "none.pt"))
    with pytest.raises(CheckpointError, match=r"none\.pt"):
        SimpleLama()
    monkeypatch.setenv("LAMA_MODEL", "")
    monkeypatch.setenv("LAMA_MODEL_URL", "https://example.org/big-lama.pt")
    with pytest.raises(GlamaError, match="LAMA_MODEL_URL is set, and nothing is downloaded from it"):
        SimpleLama()


@pytest.mark.without_gpu
@pytest.mark.parametrize("device", ["cuda:1", torch.device("cuda", 1)])
def test_a_gpu_that_is_not_there_is_an_error_of_one_line(model, device):
    with pytest.raises(EngineError) as caught:
        SimpleLama(device)
    assert "cuda:1" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_default_is_big_lama_by_name(monkeypatch):
    monkeypatch.delenv("LAMA_MODEL", raising=False)
    asked = []
    monkeypatch.setattr(glama_deploy, "load", lambda model, device: asked.append(model) or _Opened())
    SimpleLama()
    assert asked == ["big-lama"]


class _Opened:
    device = "cpu"


def test_the_class_works_without_torch(tiny_bundle):
    code = """
import numpy
from glama_deploy.compat import SimpleLama
image, mask = numpy.full((64, 72, 3), 9, numpy.uint8), numpy.zeros((64, 72), numpy.uint8)
mask[20:30, 20:30] = 1
print(SimpleLama("cpu")(image, mask).size)
"""
    assert run(code, LAMA_MODEL=str(tiny_bundle.path)).strip() == "(72, 64)"
