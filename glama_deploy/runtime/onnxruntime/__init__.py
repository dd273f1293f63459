"""ONNX Runtime: the runner, and its execution providers."""
