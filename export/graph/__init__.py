"""The generator as an ONNX graph."""
