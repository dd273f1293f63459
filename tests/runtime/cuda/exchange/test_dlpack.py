"""DLPack's capsules: those of NumPy and PyTorch are read, and ours are read by NumPy and PyTorch.

Their memory is main memory here. Capsules of GPU memory differ in the number of the kind of memory alone.
"""

from __future__ import annotations

import ctypes
import gc
import subprocess
import sys
import weakref

import numpy as np
import pytest
import torch

from glama_deploy.errors import EngineError
from glama_deploy.runtime.cuda.exchange import dlpack


def look_at(borrowed: dlpack.Borrowed) -> np.ndarray:
    """The borrowed array, for memory that is main memory."""
    start = np.ctypeslib.as_array((ctypes.c_uint8 * 8).from_address(borrowed.address))[: borrowed.dtype.itemsize]
    return np.lib.stride_tricks.as_strided(start.view(borrowed.dtype), borrowed.shape, borrowed.strides)


class Older:
    """An array of a package that knows only the versions of DLPack before 1."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __dlpack__(self, stream: object = None) -> object:
        return self.array.__dlpack__(stream=stream)


PICTURE = np.arange(120, dtype=np.int32).reshape(2, 3, 4, 5)
ARRAYS = [
    *(np.arange(6).astype(kind).reshape(2, 3) for kind in ("u1", "i1", "f2", "u2", "i4", "f4", "i8", "f8", "?")),
    PICTURE[1:, :2, 1:3],
    PICTURE.transpose(2, 0, 3, 1),
    np.array(7.5),
]


@pytest.mark.parametrize(
    ("array", "give"),
    [
        *((array, give) for array in ARRAYS for give in (np.asarray, Older, torch.from_numpy)),
        (PICTURE[:, ::-1], np.asarray),
        (PICTURE[:, ::-1], Older),
    ],
)
def test_capsules_of_other_packages_are_read_as_these_packages_made_them(array, give):
    borrowed = dlpack.borrow("image", give(array), None)
    assert borrowed.dtype == array.dtype
    assert borrowed.address == array.ctypes.data
    assert borrowed.device == (1, 0)
    assert not borrowed.is_read_only
    np.testing.assert_array_equal(look_at(borrowed), array)


def test_a_read_only_array_and_a_copy_are_not_written():
    fixed = np.arange(6)
    fixed.flags.writeable = False
    assert dlpack.borrow("out", fixed, None).is_read_only

    class Copied:
        def __dlpack__(self, **options: object) -> object:
            return np.arange(6).__dlpack__(max_version=(1, 0), copy=True)

    assert dlpack.borrow("out", Copied(), None).is_read_only


@pytest.mark.parametrize("wrap", [lambda array: array, Older], ids=["1.0", "older"])
def test_memory_is_borrowed_as_long_as_it_is_used_and_then_given_back(wrap):
    array = np.arange(6.0)
    before = sys.getrefcount(array)
    borrowed = dlpack.borrow("image", wrap(array), None)
    gc.collect()
    assert sys.getrefcount(array) == before + 1
    del borrowed
    gc.collect()
    assert sys.getrefcount(array) == before


def test_memory_is_given_back_where_the_array_is_refused():
    array = np.arange(6, dtype=np.complex64)
    before = sys.getrefcount(array)
    with pytest.raises(
        EngineError, match=r"^image has values of DLPack's type 5 with 64 bits, .* does not have; cast$"
    ):
        dlpack.borrow("image", array, None)
    gc.collect()
    assert sys.getrefcount(array) == before


@pytest.mark.parametrize(
    ("tensor", "says"),
    [
        (torch.zeros(2, dtype=torch.bfloat16), "type 4 with 16 bits, which NumPy does not have; cast"),
        (torch.zeros(2, requires_grad=True), r"is not given through DLPack \(.* use tensor\.detach\(\)\)"),
        (torch.eye(2).to_sparse(), r"is not given through DLPack \(.*torch\.strided\)"),
    ],
)
def test_tensors_that_cannot_be_read_are_errors_of_one_line(tensor, says):
    with pytest.raises(EngineError, match=says) as refused:
        dlpack.borrow("image", tensor, None)
    assert "\n" not in str(refused.value)


def test_a_used_capsule_and_other_objects_are_refused():
    class Again:
        def __init__(self, capsule: object) -> None:
            self.capsule = capsule

        def __dlpack__(self, **options: object) -> object:
            return self.capsule

    once = Again(np.arange(6.0).__dlpack__())
    dlpack.borrow("image", once, None)
    for array in (once, Again("no capsule")):
        with pytest.raises(EngineError, match=r"^image gives no capsule of DLPack that is still unused;"):
            dlpack.borrow("image", array, None)


def test_a_record_of_a_newer_major_version_is_refused_and_given_back():
    array = np.arange(6.0)
    before = sys.getrefcount(array)

    class FromTheFuture:
        def __dlpack__(self, **options: object) -> object:
            capsule = array.__dlpack__(max_version=(1, 0))
            dlpack._ManagedVersioned.from_address(dlpack._get_pointer(capsule, b"dltensor_versioned")).major = 2
            return capsule

    with pytest.raises(EngineError, match=r"^image is given in version 2 of DLPack, version 1 is expected;"):
        dlpack.borrow("image", FromTheFuture(), None)
    gc.collect()
    assert sys.getrefcount(array) == before


class Lent:
    """What a package is given: an array whose memory is called main memory again, so that it can be read here."""

    def __init__(self, array: np.ndarray) -> None:
        self.array, self.versions = array, []

    def __dlpack_device__(self) -> tuple[int, int]:
        return 1, 0

    def __dlpack__(self, *, stream=None, max_version=None, dl_device=None, copy=None) -> object:
        self.versions.append(max_version)
        capsule = dlpack.lend(self.array, 3, max_version)
        for name, _, layout in dlpack._RECORDS:
            if dlpack._is_capsule(capsule, name):
                device = layout.from_address(dlpack._get_pointer(capsule, name)).tensor.device
                assert (device.kind, device.number) == (2, 3)
                device.kind, device.number = 1, 0
        return capsule


@pytest.mark.parametrize("read", [np.from_dlpack, torch.from_dlpack, torch.utils.dlpack.from_dlpack])
def test_numpy_and_pytorch_read_our_capsules(read):
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    lent = Lent(array)
    there = read(lent)
    np.testing.assert_array_equal(np.asarray(there), array)
    array[1, 2, 3] = -1  # the same memory
    assert there[1, 2, 3] == -1
    assert lent.versions[0] is not None


@pytest.mark.parametrize("version", [None, (0, 8), (1, 0), (1, 3), (2, 0)])
def test_the_reader_says_which_record_it_is_given(version):
    capsule = dlpack.lend(np.arange(6), 0, version)
    is_newer = version is not None and version[0] >= 1
    assert bool(dlpack._is_capsule(capsule, b"dltensor_versioned")) == is_newer
    assert bool(dlpack._is_capsule(capsule, b"dltensor")) != is_newer


@pytest.mark.parametrize("version", [None, (1, 0)])
def test_a_capsule_keeps_its_memory_until_it_is_dropped_or_given_back(version):
    class Owner:
        def __init__(self) -> None:
            self.block = np.arange(6.0)
            self.__array_interface__ = self.block.__array_interface__

    for use in (lambda capsule: None, lambda capsule: dlpack.borrow("image", Once(capsule), None)):
        owner = Owner()
        is_gone = weakref.ref(owner)
        capsule = dlpack.lend(np.asarray(owner), 0, version)
        del owner
        gc.collect()
        used = use(capsule)
        assert is_gone() is not None
        del capsule
        gc.collect()
        assert (is_gone() is not None) == (used is not None)
        del used
        gc.collect()
        assert is_gone() is None


class Once:
    def __init__(self, capsule: object) -> None:
        self.capsule = capsule

    def __dlpack__(self, **options: object) -> object:
        return self.capsule


def test_arrays_may_outlive_the_interpreter():
    """A reader may give its memory back while the interpreter ends, and we may hold memory of others then."""
    code = """
import sys, numpy
from glama_deploy.runtime.cuda.exchange import dlpack
sys.kept = dlpack.borrow("image", numpy.arange(6.0), None)
sys.capsule = dlpack.lend(numpy.arange(6.0), 0, (1, 0))
class Once:
    def __dlpack__(self, **options): return dlpack.lend(numpy.arange(6.0), 0, None)
sys.both = dlpack.borrow("image", Once(), None)
"""
    child = subprocess.run([sys.executable, "-X", "dev", "-c", code], capture_output=True, text=True)
    assert (child.returncode, child.stderr) == (0, "")
