"""TensorRT and TensorRT-RTX: the runner, execution contexts and the FFT plugins."""
