"""Build engines from ONNX models, on the device that runs them. No module here needs PyTorch."""
