"""The nodes `glama::RFFT2` and `glama::IRFFT2` as TensorRT plugins over cuFFT. Importing this package needs numpy only.

    fft.py            the nodes' shapes, and their reference in numpy
    cufft.py          cuFFT through ctypes: search, plans, errors
    hermitian.py      the copy of a spectrum that cuFFT may consume
    transforms.py     a node's transform of one size: plans, scratch memory
    registration.py   the plugin classes; `register(trt)` makes TensorRT know them
    cpu_reference.py  whole graphs with these nodes on a CPU, for development

The engine needs cuFFT, NVRTC (both of the CUDA toolkit) and cuda-python on the device.
"""

from glama_deploy.runtime.tensorrt.plugins.registration import register

__all__ = ["register"]
