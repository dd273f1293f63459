"""An image comes back in the kind in which it was passed. The truth is the result for the plain arrays."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

import glama_deploy
from glama_deploy.bundle import ANY_SIZE
from glama_deploy.errors import ImageError
from glama_deploy.inpainting.inpainter import Inpainter
from glama_deploy.inpainting.transparency import fill_picture
from glama_deploy.io.images import Picture
from glama_deploy.network import NetworkConfig
from glama_deploy.runtime.base import Runner


@pytest.fixture(scope="module")
def one(tiny_bundle):
    return glama_deploy.load(tiny_bundle.path, "openvino")


@pytest.fixture
def gray(photo):
    return np.asarray(Image.fromarray(photo).convert("L"))


@pytest.fixture
def alpha(photo):
    return np.where(np.arange(photo.shape[1]) < 50, 0, 200).astype(np.uint8) * np.ones(photo.shape[:2], np.uint8)


def make_tensor(array: np.ndarray, planar: bool = False) -> torch.Tensor:
    return torch.from_numpy(array.transpose(2, 0, 1).copy() if planar else array.copy())


@pytest.mark.parametrize("order", ["strided", "fortran", "reversed"])
def test_the_memory_order_changes_nothing(one, photo, hole, order):
    change = {
        "strided": lambda array: np.repeat(array, 2, axis=1)[:, ::2],
        "fortran": np.asfortranarray,
        "reversed": lambda array: np.ascontiguousarray(array[::-1, ::-1])[::-1, ::-1],
    }[order]
    for image in (photo, photo.astype(np.float32) / 255):
        np.testing.assert_array_equal(one(change(image), change(hole)), one(image, hole))


def test_pil_images_come_back_as_pil_images_of_their_mode(one, photo, hole, gray, alpha):
    mask = Image.fromarray(hole)
    image = Image.fromarray(photo)
    image.info["icc_profile"] = b"profile"
    filled = one(image, mask)
    assert isinstance(filled, Image.Image)
    assert filled.mode == "RGB"
    assert filled.info == image.info
    np.testing.assert_array_equal(np.asarray(filled), one(photo, hole))
    np.testing.assert_array_equal(np.asarray(one(Image.fromarray(gray), mask.convert("L"))), one(gray, hole))
    rgba = np.dstack([photo, alpha])
    np.testing.assert_array_equal(np.asarray(one(Image.fromarray(rgba), mask)), one(rgba, hole))
    both = Image.merge("LA", [Image.fromarray(gray), Image.fromarray(alpha)])
    filled = one(both, mask)
    assert filled.mode == "LA"
    for before, after in zip(both.split(), filled.split(), strict=True):
        np.testing.assert_array_equal(np.asarray(after)[~hole], np.asarray(before)[~hole])


def test_images_of_16_bits_come_back_with_16_bits(one, photo, hole, gray, alpha):
    deep = photo * np.uint16(257) ^ np.uint16(3)
    filled = one(deep, hole)
    for image in (deep, gray * np.uint16(257), np.dstack([deep, alpha * np.uint16(257)])):
        result = one(image, hole)
        assert result.dtype == np.uint16
        assert result.shape == image.shape
        np.testing.assert_array_equal(result[~hole], image[~hole])
    np.testing.assert_array_equal(one(np.dstack([deep, np.full(hole.shape, 65535, np.uint16)]), hole)[..., :3], filled)
    gray_filled = one(Image.fromarray(gray * np.uint16(257)), Image.fromarray(hole))
    assert gray_filled.mode == "I;16"
    # 16 bits of the same network's output: as near to the 8 bits as rounding makes them, twice
    assert np.abs(np.asarray(gray_filled) / 257 - one(gray, hole)).max() <= 1


@pytest.mark.parametrize("planar", [False, True])
def test_tensors_of_pytorch_come_back_as_tensors_in_their_order(one, photo, hole, planar):
    image = make_tensor(photo, planar)
    for mask in (torch.from_numpy(hole), torch.from_numpy(hole)[None], torch.from_numpy(hole).float()):
        filled = one(image, mask)
        assert filled.dtype == torch.uint8
        assert filled.shape == image.shape
        assert torch.equal(filled, make_tensor(one(photo, hole), planar))
    predicted = one.predict(image, hole)
    assert predicted.dtype == torch.float32
    assert torch.equal(predicted, make_tensor(one.predict(photo, hole), planar))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_float_tensors_keep_their_dtype_and_their_known_values(one, photo, hole, dtype):
    image = (make_tensor(photo, planar=True).double() / 255).to(dtype)
    filled = one(image, torch.from_numpy(hole))
    assert filled.dtype == dtype
    assert torch.equal(filled[:, ~hole], image[:, ~hole])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_float_arrays_are_filled_as_their_bytes_and_keep_known_values(one, photo, hole, dtype):
    image = (photo / 255).astype(dtype)
    image[hole] = np.nan  # missing values may be anything
    filled = one(image, hole)
    assert filled.dtype == dtype
    np.testing.assert_array_equal(filled[~hole], image[~hole])
    np.testing.assert_array_equal(filled[hole], (one(photo, hole)[hole] / 255).astype(dtype))
    np.testing.assert_array_equal(one.predict(image, hole), one.predict(photo * ~hole[..., None], hole))


def test_gray_stays_gray(one, gray, hole):
    filled = one(gray, hole)
    assert filled.shape == gray.shape
    np.testing.assert_array_equal(filled[~hole], gray[~hole])
    colours = one(np.dstack([gray] * 3), hole)
    # the luma of ITU-R BT.601; PIL rounds in integers
    luma = colours @ np.array([0.299, 0.587, 0.114])
    assert np.abs(filled[hole] - luma[hole]).max() <= 0.501
    planar = torch.from_numpy(gray.copy())[None]
    assert torch.equal(one(planar, hole), torch.from_numpy(filled)[None])


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_alpha_is_filled_as_in_files(one, photo, hole, alpha, dtype):
    expected = fill_picture(one, Picture(photo, alpha, False, None), hole)
    scale = 1 if dtype == np.uint8 else 255
    image = (np.dstack([photo, alpha]) / scale).astype(dtype)
    filled = one(image, hole)
    assert filled.dtype == dtype
    np.testing.assert_array_equal(filled[~hole], image[~hole])
    bytes_of_hole = np.rint(filled[hole] * scale).astype(np.uint8)
    np.testing.assert_array_equal(bytes_of_hole, np.dstack([expected.rgb, expected.alpha])[hole])
    with pytest.raises(ImageError, match="alpha channel, which the network does not predict"):
        one.predict(image, hole)


@pytest.fixture
def make_cupy(monkeypatch):
    """Makes an array of a stand-in for CuPy: here is no GPU."""
    cupy = ModuleType("cupy")

    class Array:
        def __init__(self, values: np.ndarray) -> None:
            self.values, self.shape, self.dtype = values, values.shape, values.dtype
            kind = "|b1" if values.dtype == bool else "|u1"
            self.__cuda_array_interface__ = {"shape": values.shape, "typestr": kind, "data": (256, False), "version": 2}

        def get(self) -> np.ndarray:
            return self.values

    Array.__module__ = "cupy"
    cupy.asarray = Array  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    return Array


def test_arrays_of_cupy_come_back_as_arrays_of_cupy(one, photo, hole, make_cupy):
    filled = one(make_cupy(photo), make_cupy(hole))
    assert isinstance(filled, make_cupy)
    np.testing.assert_array_equal(filled.get(), one(photo, hole))
    predicted = one.predict(make_cupy(photo), make_cupy(hole))
    np.testing.assert_array_equal(predicted.get(), one.predict(photo, hole))


class OnGpu(Runner):
    """A runner that reads arrays where they lie, and paints 7."""

    backend, description, device, precision, io, sizes = "gpu", "gpu", "cuda", "fp32", "uint8", ANY_SIZE
    takes_device_arrays = True

    def memory_needed(self, size, batch=1, window=None):
        return 0

    def run(self, image, mask, output="inpainted"):
        assert hasattr(image, "__cuda_array_interface__")
        assert hasattr(mask, "__cuda_array_interface__")
        return np.full((1, *image.shape), 7, np.float32 if output == "predicted" else np.uint8)


def test_an_engine_on_the_gpu_reads_cupys_arrays_there_and_gives_one_back(photo, hole, make_cupy):
    inpainter = Inpainter(OnGpu(), NetworkConfig())
    for call, dtype in ((inpainter, np.uint8), (inpainter.predict, np.float32)):
        result = call(make_cupy(photo), make_cupy(hole))
        assert isinstance(result, make_cupy)
        assert result.dtype == dtype
        assert (result.get() == 7).all()


@pytest.mark.parametrize(
    ("image", "mask", "says"),
    [
        (Image.new("P", (32, 32)), np.zeros((32, 32), bool), r"mode P; .*convert\('RGB'\)"),
        (Image.new("I", (32, 32)), np.zeros((32, 32), bool), "mode I; L, I;16"),
        (Image.new("RGB", (32, 32)), Image.new("RGB", (32, 32)), r"mask is a PIL image of mode RGB; convert\('L'\)"),
        (torch.zeros(32, 32, 3, requires_grad=True), torch.zeros(32, 32), r"pass image\.detach\(\)"),
        (torch.zeros(32, 32, 3).to_sparse(), torch.zeros(32, 32), "not dense"),
        (torch.zeros(1, 3, 32, 32), torch.zeros(32, 32), r"shape \[1, 3, 32, 32\]"),
        (torch.zeros(3, 32, 32, dtype=torch.int64), torch.zeros(32, 32), "int64; uint8"),
        (torch.zeros(3, 32, 32), torch.full((32, 32), 0.5), "mask is float32 and has other values than 0 and 1"),
        (torch.zeros(3, 32, 32) - 1, torch.zeros(32, 32), "known values are from -1 to -1"),
        (np.zeros((32, 32, 3), np.uint8), torch.zeros(3, 32, 32), "without channels"),
        (b"image", np.zeros((32, 32), bool), "not bytes"),
    ],
)
def test_other_forms_are_refused_with_the_remedy(one, image, mask, says):
    for call in (one, one.predict):
        with pytest.raises(ImageError, match=says) as refused:
            call(image, mask)
        assert "\n" not in str(refused.value)


def test_tensors_are_recognized_without_importing_their_packages(tiny_bundle):
    code = """
import sys, numpy, glama_deploy
glama_deploy.load(sys.argv[1], "openvino")(numpy.zeros((32, 32), numpy.float32), numpy.eye(32, dtype=bool))
print(*{"torch", "cupy"} & set(sys.modules))
"""
    child = subprocess.run([sys.executable, "-c", code, tiny_bundle.path], capture_output=True, text=True, check=True)
    assert child.stdout == "\n"


def test_an_event_loop_goes_on_while_a_picture_is_filled(one, photo, hole):
    async def fill() -> tuple[list[np.ndarray], int]:
        beats = 0

        async def beat() -> None:
            nonlocal beats
            while True:
                beats += 1
                await asyncio.sleep(0)

        beating = asyncio.create_task(beat())
        filled = await asyncio.gather(*(one.run_async(photo, hole, region="full") for _ in range(3)))
        beating.cancel()
        return filled, beats

    filled, beats = asyncio.run(fill())
    assert beats > 1
    for each in filled:
        assert np.abs(each.astype(int) - one(photo, hole, region="full")).max() <= 1  # another order of summation
