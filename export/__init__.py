"""Export a checkpoint to ONNX: the FFT lowering, the graph, and the pipeline from a checkpoint to a bundle."""
