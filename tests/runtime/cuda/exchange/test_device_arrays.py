"""Arrays on a GPU, by what they say of themselves; their memory is never looked at."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from glama_deploy.errors import EngineError
from glama_deploy.runtime.cuda.exchange.device_arrays import find_shape, is_on_device, read_device_array


class OnGpu:
    """An array that says that it lies on a GPU."""

    def __init__(self, shape: tuple[int, ...], typestr: str = "|u1", **more: object) -> None:
        self.__cuda_array_interface__ = {"shape": shape, "typestr": typestr, "data": (4096, True), "version": 3, **more}


class NeedsGradient:
    """As PyTorch's tensors on a GPU that require a gradient."""

    @property
    def __cuda_array_interface__(self) -> dict:
        raise RuntimeError("Can't get __cuda_array_interface__ on Variable that requires grad.")

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, 0

    def __dlpack__(self, **options: object) -> object:
        raise BufferError("Can't export tensors that require gradient, use tensor.detach()")


class ByDlpack:
    """An array that says where it lies through DLPack alone."""

    def __init__(self, kind: int) -> None:
        self.shape = (8, 9, 3)
        self._kind = kind

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._kind, 0

    def __dlpack__(self, **options: object) -> object:
        return np.zeros(self.shape, np.uint8).__dlpack__()


@pytest.mark.parametrize("strides", [{}, {"strides": None}, {"strides": (27, 3, 1)}])
def test_an_array_is_read_where_it_lies(strides):
    there = read_device_array("image", OnGpu((8, 9, 3), stream=7, **strides))
    assert (there.address, there.shape, there.dtype, there.stream) == (4096, (8, 9, 3), np.uint8, 7)
    assert there.is_read_only
    assert there.nbytes == 8 * 9 * 3


def test_before_version_three_an_array_is_still_waited_for():
    assert read_device_array("image", OnGpu((8, 9, 3), version=2)).stream == 1


def test_an_array_out_of_order_is_named_as_what_it_is():
    with pytest.raises(EngineError, match=r"^mask has strides \[1, 8\] in device memory, .* make it contiguous first$"):
        read_device_array("mask", OnGpu((8, 9), strides=(1, 8)))


def test_a_tensor_that_requires_a_gradient_is_refused_by_its_package():
    assert is_on_device(NeedsGradient())
    with pytest.raises(EngineError, match=r"^image is not given through DLPack \(Can't export .* use tensor\.detach"):
        read_device_array("image", NeedsGradient())


@pytest.mark.parametrize(("kind", "is_there"), [(1, False), (2, True), (3, False), (10, False), (13, True)])
def test_dlpack_tells_which_memory_is_a_gpus_own(kind, is_there):
    """1 is main memory, 2 CUDA's, 3 page-locked memory, 10 an AMD GPU's, 13 managed memory."""
    array = ByDlpack(kind)
    assert is_on_device(array) == is_there
    assert find_shape(array) == (8, 9, 3)
    if is_there:
        assert read_device_array("image", array).shape == (8, 9, 3)
    else:
        with pytest.raises(EngineError, match=rf"^image lies in memory of DLPack's kind {kind}, and not on a GPU .*;"):
            read_device_array("image", array)


def test_the_newest_interface_is_preferred_and_dlpack_to_an_older_one():
    both = ByDlpack(2)
    both.__cuda_array_interface__ = {**OnGpu((8, 9, 3)).__cuda_array_interface__, "stream": 5}
    assert read_device_array("image", both, 9).stream == 5
    both.__cuda_array_interface__["version"] = 2
    assert read_device_array("image", both, 9).stream == 9


@pytest.mark.parametrize(
    "array", [np.zeros((8, 9)), torch.zeros(8, 9), torch.zeros(8, 9, device="meta"), None, "image", OnGpu, ByDlpack]
)
def test_other_objects_are_not_on_a_gpu(array):
    assert not is_on_device(array)


def test_an_array_with_the_interface_is_on_a_gpu():
    assert is_on_device(OnGpu((8, 9)))
    assert find_shape(OnGpu((8, 9))) == (8, 9)
    assert find_shape(object()) == ()
