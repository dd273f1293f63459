"""Servers that fill pictures: clients of Triton, OpenVINO Model Server and glama-serve, and the model inside Triton."""
