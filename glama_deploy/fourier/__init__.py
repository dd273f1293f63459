"""The FFT as matrix products, without ONNX: the bases, and the split form as steps."""
