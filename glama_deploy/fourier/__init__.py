"""The split FFT as steps, without ONNX."""
