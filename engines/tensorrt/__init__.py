"""TensorRT and TensorRT-RTX engines: the builder, its options, and the inspection of engines."""
