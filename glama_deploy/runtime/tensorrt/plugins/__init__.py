"""The nodes `glama::RFFT2` and `glama::IRFFT2` as TensorRT plugins over cuFFT. Importing this needs nothing but numpy.

    fft.py         what the nodes are: shapes and the numpy reference
    cufft.py       cuFFT through ctypes: finding it, plans, errors
    hermitian.py   the copy of a spectrum that cuFFT may consume
    transforms.py  a node's transform of one size: plans, scratch memory
    tensorrt.py    the plugin classes; `register(trt)` makes TensorRT know them
    reference.py   whole graphs with these nodes on a CPU, for development

The engine needs cuFFT, NVRTC (both of the CUDA toolkit) and cuda-python on the device.
"""

from glama_deploy.runtime.tensorrt.plugins.registration import register

__all__ = ["register"]
