"""cuFFT and the kernel before it, over addresses in host memory."""

from __future__ import annotations

import ctypes
from types import SimpleNamespace
from typing import Any

import numpy as np

from fakes.spectra import hermitian_copy
from glama_deploy.runtime.tensorrt.plugins import cufft, fft, transforms
from glama_deploy.runtime.tensorrt.plugins.fft import Size

STREAM = 77


def floats(address: int, count: int) -> np.ndarray:
    """The floats at an address, to read and write."""
    return np.ctypeslib.as_array((ctypes.c_float * count).from_address(address))


class MemoryCufft:
    """cuFFT's functions over addresses in memory. Its inverse does what cuFFT's does to whoever is careless: it takes
    the input's symmetry for granted, and leaves rubbish in it."""

    def __init__(self, work_per_array: int = 64, fails: dict[str, int] | None = None) -> None:
        self.work_per_array, self.fails = work_per_array, fails or {}
        self.plans: dict[int, SimpleNamespace] = {}
        self.made: list[tuple[str, Size]] = []
        names = [name for name in vars(MemoryCufft) if name.startswith("cufft")]
        self.functions = SimpleNamespace(**{name: self._function(name) for name in names})

    def _function(self, name: str) -> Any:
        def function(*arguments: Any) -> int:
            if name not in self.fails:
                getattr(self, name)(*arguments)
            return self.fails.get(name, 0)

        return function

    def cufftGetVersion(self, version: Any) -> None:
        version._obj.value = 11000

    def cufftCreate(self, handle: Any) -> None:
        handle._obj.value = len(self.made) + 1
        self.plans[len(self.made) + 1] = SimpleNamespace(automatic=True)

    def cufftSetAutoAllocation(self, handle: int, automatic: int) -> None:
        self.plans[handle].automatic = bool(automatic)

    def cufftMakePlanMany64(self, handle, rank, sides, *rest) -> None:
        inembed, istride, idist, onembed, ostride, odist, kind, batch, work = rest
        plan, size = self.plans[handle], Size(batch, *sides)
        real, half = [size.height, size.width], [size.height, size.half]
        assert rank == 2
        assert not plan.automatic
        assert (istride, ostride) == (1, 1)
        forward = kind == 0x2A
        assert kind in (0x2A, 0x2C)
        assert [list(inembed), list(onembed)] == ([real, half] if forward else [half, real])
        assert [idist, odist] == [np.prod(list(inembed)), np.prod(list(onembed))]
        self.made.append(("R2C" if forward else "C2R", size))
        plan.size, plan.work_bytes, plan.kind = size, batch * self.work_per_array, self.made[-1][0]
        work._obj.value = plan.work_bytes

    def cufftSetStream(self, handle: int, stream: int) -> None:
        self.plans[handle].stream = stream

    def cufftSetWorkArea(self, handle: int, work: int) -> None:
        self.plans[handle].work = work

    def cufftExecR2C(self, handle: int, source: int, target: int) -> None:
        x, z = self._arrays(handle, "R2C", source, target)
        z[:] = fft.rfft2(x[None])[0]

    def cufftExecC2R(self, handle: int, source: int, target: int) -> None:
        x, z = self._arrays(handle, "C2R", target, source)
        x[:] = trusting_inverse(z[..., 0] + 1j * z[..., 1], x.shape[2])
        z[:] = np.nan

    def cufftDestroy(self, handle: int) -> None:
        del self.plans[handle]

    def _arrays(self, handle: int, kind: str, real: int, spectrum: int) -> tuple[np.ndarray, np.ndarray]:
        plan = self.plans[handle]
        assert plan.kind == kind
        assert plan.stream == STREAM
        assert real % 8 == spectrum % 8 == 0, "cuFFT wants both aligned to a complex value"
        assert plan.work % 256 == 0
        floats(plan.work, plan.work_bytes // 4)[:] = np.nan
        size = plan.size
        x = floats(real, size.batch * size.height * size.width).reshape(size.batch, size.height, size.width)
        z = floats(spectrum, size.batch * size.height * size.half * 2)
        return x, z.reshape(size.batch, size.height, size.half, 2)


def trusting_inverse(z: np.ndarray, width: int) -> np.ndarray:
    """The inverse of [N, H, F] that reads the missing half of the spectrum, and the lower half of the first and last
    column, off the rest by symmetry, as a two-dimensional complex-to-real transform may."""
    n, height, _ = z.shape
    full = np.zeros((n, height, width), complex)
    for f in range(width):
        for h in range(height):
            mirrored = width - f if 2 * f > width else f
            trusted = 2 * f < width and f > 0
            if 2 * f > width or (not trusted and 2 * h > height):
                full[:, h, f] = np.conj(z[:, -h % height, mirrored])
            else:
                full[:, h, f] = z[:, h, f]
    return np.fft.ifft2(full, norm="forward").real


class MemoryCopy:
    """The kernel over addresses in memory."""

    device = 0

    def prepare(self) -> int:
        return self.device

    def run(self, device: int, source: int, target: int, size: Size, stream: int) -> None:
        assert (device, stream) == (self.device, STREAM)
        count, shape = size.batch * size.spectrum_bytes // 4, (size.batch, size.height, size.half)
        z = floats(source, count).view(np.complex64).reshape(shape)
        floats(target, count).view(np.complex64).reshape(shape)[:] = hermitian_copy(z, size.width)


def over_memory(library: MemoryCufft) -> transforms.Transforms:
    return transforms.Transforms(cufft.Cufft(library.functions, "memory"), MemoryCopy())


class Buffer:
    """Memory at an address that is a multiple of 256, with a guard on both sides that must stay as it is."""

    def __init__(self, size: int, contents: np.ndarray | None = None) -> None:
        self._memory = np.full(size + 1024, 0xA5, np.uint8)
        self._start = 256 + -(self._memory.ctypes.data) % 256
        self.size, self.address = size, self._memory.ctypes.data + self._start
        if contents is not None:
            self.array(contents.shape)[:] = contents

    def array(self, shape: tuple[int, ...]) -> np.ndarray:
        assert self.size == 4 * np.prod(shape)
        return self._memory[self._start : self._start + self.size].view(np.float32).reshape(shape)

    def assert_guards(self) -> None:
        assert (self._memory[: self._start] == 0xA5).all()
        assert (self._memory[self._start + self.size :] == 0xA5).all()
