"""The PyTorch networks, the reference for every exported artifact.

Importing this package does not import torch. Importing one of its modules does.
"""
