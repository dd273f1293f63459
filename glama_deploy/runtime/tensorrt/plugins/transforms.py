"""A node's transform of one size: its plans, its scratch memory, its launches.

Scratch memory is TensorRT's workspace, asked for at build time for the largest size of a profile, and it must do for
every smaller one. What cuFFT needs does not grow with the size: its guide speaks of up to eight times as much for large
primes as for a power of two near them. So the workspace is a formula that does grow (twice the spectra, at least those
of sixteen arrays and a mebibyte), and a size whose plan needs more runs in several parts, each of fewer arrays.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Protocol

from glama_deploy.errors import EngineError
from glama_deploy.runtime.tensorrt.plugins.cufft import Cufft, Kind, Plan
from glama_deploy.runtime.tensorrt.plugins.fft import Size

#: A multiple of every alignment that CUDA asks for; TensorRT's workspace begins at one.
_ALIGNMENT = 256

#: The greatest number of plans that are kept, including plans of sizes that no node uses any more.
_MAX_CACHED_PLANS = 64


class Copy(Protocol):
    """What the inverse needs from the GPU. :class:`.hermitian.HermitianCopy` has the same methods."""

    def prepare(self) -> int: ...
    def run(self, device: int, source: int, target: int, size: Size, stream: int) -> None: ...


class Transform(Protocol):
    """A prepared transform. `run` takes device addresses and only launches: no allocation, no waiting."""

    size: Size

    def run(self, source: int, target: int, workspace: int, stream: int) -> None: ...


def work_bytes(size: Size) -> int:
    """Return the work area that a transform has for cuFFT. It grows with each of batch, height and width.

    Args:
        size: Number and sides of the arrays.

    Returns:
        Bytes.
    """
    return _align(max(2 * max(size.batch, 16) * size.spectrum_bytes, 1 << 20))


def forward_workspace(size: Size) -> int:
    """Return the scratch memory of RFFT2.

    Args:
        size: Number and sides of the arrays.

    Returns:
        Bytes.
    """
    return work_bytes(size)


def inverse_workspace(size: Size) -> int:
    """Return the scratch memory of IRFFT2: the copy that cuFFT consumes, then cuFFT's work area.

    Args:
        size: Number and sides of the arrays.

    Returns:
        Bytes.
    """
    return _copy_bytes(size) + work_bytes(size)


class Transforms:
    """What all nodes of a process share: the library, the kernel of the copy, and the plans."""

    def __init__(self, cufft: Cufft, copy: Copy) -> None:
        """Start without plans.

        Args:
            cufft: The library.
            copy: What copies a spectrum before its inverse.
        """
        self._copy = copy

        @functools.lru_cache(maxsize=_MAX_CACHED_PLANS)
        def plan(device: int, kind: Kind, size: Size) -> Plan:
            return Plan(cufft, kind, size)

        self._plan = plan

    def forward(self, size: Size) -> Transform:
        """Prepare an RFFT2 on the current GPU.

        Args:
            size: Number and sides of the arrays.

        Returns:
            The transform.

        Raises:
            EngineError: cuFFT does not plan the size.
        """
        return _Forward(size, self._parts(self._copy.prepare(), "R2C", size))

    def inverse(self, size: Size) -> Transform:
        """Prepare an IRFFT2 on the current GPU.

        Args:
            size: Number and sides of the arrays.

        Returns:
            The transform.

        Raises:
            EngineError: cuFFT does not plan the size.
        """
        device = self._copy.prepare()
        return _Inverse(size, self._parts(device, "C2R", size), self._copy, device)

    def _parts(self, device: int, kind: Kind, size: Size) -> list[tuple[int, Plan]]:
        """Return the first array and the plan of each part. The work area of each plan fits."""
        room, batch = work_bytes(size), size.batch
        while True:
            starts = range(0, size.batch, batch)
            sizes = [replace(size, batch=min(batch, size.batch - start)) for start in starts]
            parts = [(start, self._plan(device, kind, part)) for start, part in zip(starts, sizes, strict=True)]
            if all(plan.work_bytes <= room for _, plan in parts):
                return parts
            if batch <= 2:
                sides = f"{size.height}×{size.width}"
                raise EngineError(f"cuFFT needs a larger work area than {room} bytes for {batch} arrays of {sides}")
            # Half of the batch, rounded up to even: cuFFT needs each part to begin at a multiple of 8 bytes.
            batch = -(-batch // 4) * 2


class _Forward:
    def __init__(self, size: Size, parts: list[tuple[int, Plan]]) -> None:
        self.size, self._parts = size, parts

    def run(self, source: int, target: int, workspace: int, stream: int) -> None:
        size = self.size
        for start, plan in self._parts:
            plan.run(source + start * size.real_bytes, target + start * size.spectrum_bytes, workspace, stream)


class _Inverse:
    def __init__(self, size: Size, parts: list[tuple[int, Plan]], copy: Copy, device: int) -> None:
        self.size, self._parts, self._copy, self._device = size, parts, copy, device

    def run(self, source: int, target: int, workspace: int, stream: int) -> None:
        size, work = self.size, workspace + _copy_bytes(self.size)
        self._copy.run(self._device, source, workspace, size, stream)
        for start, plan in self._parts:
            plan.run(workspace + start * size.spectrum_bytes, target + start * size.real_bytes, work, stream)


def _copy_bytes(size: Size) -> int:
    return _align(size.batch * size.spectrum_bytes)


def _align(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT
