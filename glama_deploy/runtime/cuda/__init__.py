"""CUDA through cuda-python or pycuda, and arrays in device memory."""
