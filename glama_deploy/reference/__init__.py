"""The PyTorch networks: what every exported artifact is measured against.

Importing this package does not import torch; its modules do, but for :mod:`checkpoint`, which reads and writes
safetensors without it.
"""
