"""The kernel that makes a spectrum Hermitian before cuFFT reads it."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from fakes.spectra import close, hermitian_copy, shapes, spectrum_like
from glama_deploy.errors import EngineError
from glama_deploy.runtime.tensorrt.plugins import fft, hermitian


@given(shapes)
def test_the_hermitian_part_is_all_that_numpys_inverse_reads(shape):
    z = spectrum_like(shape).reshape(-1, *fft.rfft2_shape(shape)[2:]).view(np.complex64)[..., 0]
    part = hermitian_copy(z, shape[3])
    for given_, made in ((z, part), (part, part)):
        expected = np.fft.irfft2(given_, shape[2:], norm="forward")
        close(np.fft.irfft2(made, shape[2:], norm="forward"), expected)
    # and it is a real array's spectrum: forward of its inverse is itself
    close(np.abs(np.fft.rfft2(np.fft.irfft2(part, shape[2:])) - part), np.zeros(part.shape))


@pytest.fixture(scope="session")
def kernel_on_cpu(tmp_path_factory) -> Any:
    """The kernel's own source, compiled for this CPU: one block after the other, one thread each."""
    compiler = shutil.which("c++") or shutil.which("g++")
    if not compiler:
        pytest.skip("no C++ compiler here")
    folder = tmp_path_factory.mktemp("kernel")
    (folder / "kernel.cpp").write_text(
        "struct float2 { float x, y; };\nstruct { int x; } blockIdx, threadIdx, blockDim = {1};\n#define __global__\n"
        + hermitian.SOURCE
        + 'extern "C" void launch(int blocks, float2* target, const float2* source, int height, int half, int width)\n'
        "{ for (int& b = blockIdx.x = 0; b < blocks; b++) hermitian_copy(target, source, height, half, width); }"
    )
    library = folder / "kernel.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, folder / "kernel.cpp"], check=True)
    return ctypes.CDLL(str(library)).launch


@settings(deadline=None)
@given(shape=shapes)
def test_the_kernel_makes_a_spectrum_hermitian(kernel_on_cpu, shape):
    z = spectrum_like(shape)
    size, target = fft.rfft2_size(shape), np.full_like(z, np.nan)
    pointers = (ctypes.c_void_p(target.ctypes.data), ctypes.c_void_p(z.ctypes.data))
    kernel_on_cpu(size.batch * size.height, *pointers, size.height, size.half, size.width)
    folded = z.reshape(size.batch, size.height, size.half, 2).view(np.complex64)[..., 0]
    copied = target.reshape(*folded.shape, 2).view(np.complex64)[..., 0]
    np.testing.assert_array_equal(copied, hermitian_copy(folded, size.width))  # halves of sums: the same floats


@pytest.mark.parametrize("architecture", ["sm_75", "sm_87", "sm_90"])  # Turing, Orin, Hopper
def test_the_kernel_compiles_without_a_gpu(architecture):
    pytest.importorskip("cuda.bindings.nvrtc")
    assert hermitian.compile_kernel(architecture).startswith(b"\x7fELF")


def test_an_architecture_that_the_compiler_does_not_know_is_one_line():
    pytest.importorskip("cuda.bindings.nvrtc")
    with pytest.raises(EngineError, match="NVRTC_ERROR_INVALID_OPTION"):
        hermitian.compile_kernel("sm_1")


@pytest.mark.without_gpu
def test_the_copy_without_a_driver_is_one_clear_line():
    pytest.importorskip("cuda.bindings.runtime")
    with pytest.raises(EngineError, match="cudaError"):
        hermitian.HermitianCopy().prepare()
