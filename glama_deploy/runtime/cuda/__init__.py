"""CUDA through cuda-python or pycuda."""
