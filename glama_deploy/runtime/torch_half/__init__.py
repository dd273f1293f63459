"""PyTorch in fp16 and bf16: folded half layers, channels last, and CUDA graphs for each size.

The folder's name differs from the package `torch`, which the modules import. Importing this package does not import
torch. Importing one of its modules except `graphs` does.
"""
