"""Benchmarks: `glama-bench` in bench/, and scripts for quality and speed."""
