"""Image in, image out: boxes, tiles, tensors and compositing around a runner."""
