"""Write a bundle as the model repository of an inference server. No module here needs PyTorch."""
