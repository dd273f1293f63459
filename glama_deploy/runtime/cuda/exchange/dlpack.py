"""DLPack: how arrays of other packages are read without a copy, and how ours are given to other packages.

An array's method `__dlpack__` returns a capsule with the address of a record of C (https://dmlc.github.io/dlpack). The
records of version 1 and of the versions before are read. NumPy makes the capsules that we give.
"""

from __future__ import annotations

import ctypes
import weakref
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from glama_deploy.errors import EngineError
from glama_deploy.text.excerpts import MAX_ENGINE_LINE, first_line

#: DLPack's numbers of the kinds of memory that a GPU of NVIDIA's computes in: its own, and managed memory.
CUDA, CUDA_MANAGED = 2, 13

#: The newest version of the records that is read here. Only another major version has another layout.
_VERSION = (1, 0)

#: DLPack's numbers of the types that NumPy has, as NumPy's letters.
_LETTERS = {0: "i", 1: "u", 2: "f", 6: "b"}

#: The flags of memory that must not be written, and of a copy, which nobody would see written.
_READ_ONLY, _COPIED = 1, 2


class _Device(ctypes.Structure):
    _fields_ = (("kind", ctypes.c_int32), ("number", ctypes.c_int32))


class _Type(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16))


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device", _Device),
        ("ndim", ctypes.c_int32),
        ("dtype", _Type),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class _Managed(ctypes.Structure):
    """DLManagedTensor, of the versions before 1."""

    _fields_ = (("tensor", _Tensor), ("context", ctypes.c_void_p), ("deleter", ctypes.c_void_p))


class _ManagedVersioned(ctypes.Structure):
    """DLManagedTensorVersioned. The fields up to the deleter are the same in every version."""

    _fields_ = (
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("context", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
        ("flags", ctypes.c_uint64),
        ("tensor", _Tensor),
    )


#: The records by the names of their capsules: before and after a reader has taken the record. A capsule refers to the
#: name that it is given, so the names live as long as the process.
_RECORDS = (
    (b"dltensor_versioned", b"used_dltensor_versioned", _ManagedVersioned),
    (b"dltensor", b"used_dltensor", _Managed),
)

_python = ctypes.pythonapi
_is_capsule = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_char_p)(("PyCapsule_IsValid", _python))
_get_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(("PyCapsule_GetPointer", _python))
_set_name = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_char_p)(("PyCapsule_SetName", _python))


class Loan:
    """The memory of another package's array, which is given back when nothing refers to this object."""

    def __init__(self, record: int, deleter: int | None) -> None:
        """Take over a record.

        Args:
            record: The record's address.
            deleter: The address of the function that the record's owner wants to be called at the end; None for none.
        """
        if deleter:
            weakref.finalize(self, ctypes.CFUNCTYPE(None, ctypes.c_void_p)(deleter), record)


@dataclass(frozen=True)
class Borrowed:
    """An array of another package.

    Attributes:
        address: The address of the first element.
        shape: The array's shape.
        strides: Bytes between neighbours of each axis; None for C order without gaps.
        dtype: The type of the elements.
        device: DLPack's number of the kind of memory, and the device's number.
        is_read_only: Whether the array must not be written, or is a copy that its package made for the reader.
        loan: Keeps the memory alive.
    """

    address: int
    shape: tuple[int, ...]
    strides: tuple[int, ...] | None
    dtype: np.dtype[Any]
    device: tuple[int, int]
    is_read_only: bool
    loan: Loan


def find_device(array: Any) -> tuple[int, int] | None:
    """Find where an array lies.

    Args:
        array: Any object.

    Returns:
        DLPack's number of the kind of memory, and the device's number; None where the object does not tell.
    """
    method = getattr(array, "__dlpack_device__", None)
    if not callable(method):
        return None
    try:
        kind, number = method()
        return int(kind), int(number)
    except (BufferError, RuntimeError, TypeError, ValueError):  # memory that DLPack does not name, or a class
        return None


def borrow(name: str, array: Any, stream: int | None) -> Borrowed:
    """Read an array through its method `__dlpack__`.

    Args:
        name: The array's name in error messages.
        array: The array, whose memory is not copied.
        stream: The handle of the stream that shall wait for the work that still writes the array; None for an array in
            main memory.

    Returns:
        The array.

    Raises:
        EngineError: the array's package refuses, or the values are of a type that NumPy does not have.
    """
    capsule = _ask_for_capsule(name, array, stream)
    for fresh, used, layout in _RECORDS:
        if not _is_capsule(capsule, fresh):
            continue
        address = _get_pointer(capsule, fresh)
        record = layout.from_address(address)
        _set_name(capsule, used)
        loan = Loan(address, record.deleter)
        if isinstance(record, _ManagedVersioned) and record.major > _VERSION[0]:
            raise EngineError(
                f"{name} is given in version {record.major} of DLPack, version {_VERSION[0]} is expected; pass an "
                "array with __cuda_array_interface__"
            )
        return _read(name, record.tensor, getattr(record, "flags", 0), loan)
    raise EngineError(f"{name} gives no capsule of DLPack that is still unused; pass an array of CuPy or PyTorch")


def lend(view: np.ndarray, gpu: int, max_version: tuple[int, int] | None) -> Any:
    """Make a capsule of memory on a GPU.

    NumPy makes the capsule, keeps the view alive until the reader has given the memory back, and copes with a reader
    that outlives the interpreter. NumPy does not look at the memory, and only the device is named anew.

    Args:
        view: An array of NumPy at the device address, whose values nobody reads.
        gpu: The GPU's number.
        max_version: The newest version of DLPack that the reader knows; None for the versions before 1.

    Returns:
        The capsule.
    """
    capsule = _make_capsule(view, is_versioned=max_version is not None and max_version[0] >= _VERSION[0])
    for name, _, layout in _RECORDS:
        if _is_capsule(capsule, name):
            layout.from_address(_get_pointer(capsule, name)).tensor.device = _Device(CUDA, gpu)
    return capsule


def _make_capsule(view: np.ndarray, *, is_versioned: bool) -> Any:
    if is_versioned:
        with suppress(TypeError):  # NumPy before 2.1 has the older record alone, which newer readers read, too
            return view.__dlpack__(max_version=_VERSION)
    return view.__dlpack__()


def _ask_for_capsule(name: str, array: Any, stream: int | None) -> Any:
    """Return the capsule of an array."""
    try:
        try:
            return array.__dlpack__(stream=stream, max_version=_VERSION)
        except TypeError:  # a package that knows only the versions before 1
            return array.__dlpack__(stream=stream)
    except Exception as error:  # another package's code
        reason = first_line(error, MAX_ENGINE_LINE)
        raise EngineError(
            f"{name} is not given through DLPack ({reason}); pass a dense array without a gradient on the engine's GPU"
        ) from error


def _read(name: str, tensor: _Tensor, flags: int, loan: Loan) -> Borrowed:
    """Return a record as an array."""
    letter, bits = _LETTERS.get(tensor.dtype.code), tensor.dtype.bits
    if letter is None or tensor.dtype.lanes != 1 or bits not in (8, 16, 32, 64):
        raise EngineError(
            f"{name} has values of DLPack's type {tensor.dtype.code} with {bits} bits, which NumPy does not have; cast"
        )
    dtype = np.dtype(f"{letter}{bits // 8}")
    shape = tuple(tensor.shape[: tensor.ndim])
    strides = tuple(step * dtype.itemsize for step in tensor.strides[: tensor.ndim]) if tensor.strides else None
    address = (tensor.data or 0) + tensor.byte_offset
    device = tensor.device.kind, tensor.device.number
    return Borrowed(address, shape, strides, dtype, device, bool(flags & (_READ_ONLY | _COPIED)), loan)
