"""The copy of a half spectrum that cuFFT's inverse may consume, made Hermitian on the way.

A two-dimensional complex-to-real transform of cuFFT overwrites its input. A plugin must not change its input, so cuFFT
gets a copy. cuFFT also assumes that the input is the spectrum of real data, on both axes. A network's tensor is not
such a spectrum, and the result then depends on cuFFT's version (https://github.com/pytorch/pytorch/issues/104867
measured 0.5 on LaMa's tensors). numpy's inverse depends on the first column and, for even W, on the
last column only through their Hermitian part along H (https://github.com/jax-ml/jax/pull/40144). The copy has this
part, (z[h] + conj(z[−h])) / 2, in their place. The copy is then the spectrum of a real array, numpy's result stays the
same, and all transforms give that result.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from glama_deploy.errors import EngineError
from glama_deploy.runtime.base import require
from glama_deploy.runtime.tensorrt.plugins.fft import Size

#: The kernel. Each block copies one row of `half` complex values; the rows of all spectra are one sequence.
SOURCE = """
extern "C" __global__ void hermitian_copy(float2* target, const float2* source, int height, int half, int width)
{
    int k = blockIdx.x % height;
    long long row = (long long)blockIdx.x * half;
    long long mirror = ((long long)blockIdx.x - k + (height - k) % height) * half;
    for (int f = threadIdx.x; f < half; f += blockDim.x) {
        float2 z = source[row + f];
        if (f == 0 || 2 * f == width) {
            float2 m = source[mirror + f];
            z.x = 0.5f * (z.x + m.x);
            z.y = 0.5f * (z.y - m.y);
        }
        target[row + f] = z;
    }
}
"""
_KERNEL_NAME = b"hermitian_copy"


def compile_kernel(architecture: str) -> bytes:
    """Compile the kernel. This needs NVRTC (of the CUDA toolkit), but no GPU.

    Args:
        architecture: The GPU's architecture, such as `sm_87`.

    Returns:
        Machine code.

    Raises:
        EngineError: NVRTC is missing or does not know the architecture.
    """
    nvrtc = require("cuda.bindings.nvrtc", "cuda-python", "pip install cuda-python")
    try:
        program = _check_status(nvrtc, nvrtc.nvrtcCreateProgram(SOURCE.encode(), b"hermitian.cu", 0, [], []))
    except RuntimeError as error:  # what the bindings raise where they find no library
        remedy = "install the CUDA toolkit, or: pip install nvidia-cuda-nvrtc-cu12 (CUDA 13: nvidia-cuda-nvrtc)"
        raise EngineError(f"NVRTC, CUDA's run-time compiler, does not load ({error}); {remedy}") from error
    _check_status(nvrtc, nvrtc.nvrtcCompileProgram(program, 1, [f"--gpu-architecture={architecture}".encode()]))
    code = bytes(_check_status(nvrtc, nvrtc.nvrtcGetCUBINSize(program)))
    _check_status(nvrtc, nvrtc.nvrtcGetCUBIN(program, code))
    _check_status(nvrtc, nvrtc.nvrtcDestroyProgram(program))
    return code


class HermitianCopy:
    """The kernel on the GPUs of this process. Each GPU loads the kernel once."""

    def __init__(self) -> None:
        """Import CUDA's bindings.

        Raises:
            EngineError: cuda-python is not installed.
        """
        self._runtime = require("cuda.bindings.runtime", "cuda-python", "pip install cuda-python")
        self._driver = require("cuda.bindings.driver", "cuda-python", "pip install cuda-python")
        self._kernels: dict[int, Any] = {}

    def prepare(self) -> int:
        """Load the kernel on the current GPU.

        Returns:
            The GPU's number.

        Raises:
            EngineError: the driver or the GPU is missing.
        """
        runtime, driver = self._runtime, self._driver
        device = int(_check_status(runtime, runtime.cudaGetDevice()))
        if device not in self._kernels:
            kinds = runtime.cudaDeviceAttr
            capability = (kinds.cudaDevAttrComputeCapabilityMajor, kinds.cudaDevAttrComputeCapabilityMinor)
            major, minor = (_check_status(runtime, runtime.cudaDeviceGetAttribute(kind, device)) for kind in capability)
            code = np.frombuffer(compile_kernel(f"sm_{major}{minor}"), np.uint8)
            module = _check_status(driver, driver.cuModuleLoadData(code.ctypes.data))
            self._kernels[device] = _check_status(driver, driver.cuModuleGetFunction(module, _KERNEL_NAME))
        return device

    def run(self, device: int, source: int, target: int, size: Size, stream: int) -> None:
        """Launch the copy on a prepared GPU.

        Args:
            device: The GPU's number.
            source: The device address of the half spectra.
            target: The device address of the copy.
            size: Number and sides of the spectra.
            stream: CUDA's handle of the stream.
        """
        threads = min(256, -(-size.half // 32) * 32)
        types = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_int, ctypes.c_int)
        arguments = ((target, source, size.height, size.half, size.width), types)
        launch = self._driver.cuLaunchKernel
        blocks = size.batch * size.height
        _check_status(self._driver, launch(self._kernels[device], blocks, 1, 1, threads, 1, 1, 0, stream, arguments, 0))


def _check_status(api: Any, answer: tuple[Any, ...]) -> Any:
    """Return the value of a binding's answer (status, value…). Raises EngineError for any status but success."""
    status, *values = answer
    if status != 0:
        raise EngineError(f"{status.name} from {api.__name__.rpartition('.')[2]} for the FFT plugins")
    return values[0] if values else None
