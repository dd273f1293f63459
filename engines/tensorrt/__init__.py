"""Build, inspect and register TensorRT and TensorRT-RTX engines."""
