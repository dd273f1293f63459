"""ONNX to engines. Nothing here needs torch: an engine is built on the device that runs it."""
