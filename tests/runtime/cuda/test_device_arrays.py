"""Images and masks on a GPU, by what they say of themselves; their memory is never looked at."""

from __future__ import annotations

import numpy as np
import pytest

from glama_deploy.errors import EngineError, ImageError
from glama_deploy.inpainting.tensors import DeviceArray, is_on_device


class OnGpu:
    """An array that says that it lies on a GPU."""

    def __init__(self, shape: tuple[int, ...], typestr: str = "|u1", **more: object) -> None:
        self.__cuda_array_interface__ = {"shape": shape, "typestr": typestr, "data": (4096, True), "version": 3, **more}


@pytest.mark.parametrize("strides", [{}, {"strides": None}, {"strides": (27, 3, 1)}])
def test_an_image_becomes_a_batch_of_one_where_it_lies(strides):
    batch = DeviceArray(OnGpu((8, 9, 3), stream=7, **strides))
    there = batch.__cuda_array_interface__
    assert batch.shape == there["shape"] == (1, 8, 9, 3)
    assert (there["typestr"], there["data"][0], there["stream"]) == ("|u1", 4096, 7)


def test_before_version_three_a_batch_is_still_waited_for():
    assert DeviceArray(OnGpu((8, 9, 3), version=2)).__cuda_array_interface__["stream"] == 1


def test_a_mask_of_bool_is_read_as_bytes():
    assert DeviceArray(OnGpu((8, 9), "|b1"), mask=True).__cuda_array_interface__["typestr"] == "|u1"


def test_an_image_of_bool_is_refused():
    with pytest.raises(ImageError, match=r"^the image is bool; uint8 \(0…255\) is expected: [^\n]+ cast$"):
        DeviceArray(OnGpu((8, 9, 3), "|b1"))


@pytest.mark.parametrize("strides", [{}, {"strides": ()}])
def test_an_array_without_sides_is_a_batch_of_a_number(strides):
    assert DeviceArray(OnGpu((), **strides)).shape == (1,)


def test_an_array_out_of_order_is_named_as_what_it_is():
    with pytest.raises(EngineError, match=r"^mask has strides \[1, 8\] in device memory, .* make it contiguous first$"):
        DeviceArray(OnGpu((8, 9), strides=(1, 8)), mask=True)


def test_arrays_of_numpy_are_not_on_a_gpu():
    assert is_on_device(OnGpu((8, 9)))
    assert not is_on_device(np.zeros((8, 9)))
