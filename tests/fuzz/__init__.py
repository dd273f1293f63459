"""Seeded campaigns against the readers, the commands and the engines; docs/reliability.md explains how to run them.

The package is importable as `fuzz` (pytest and the Makefile put the folder `tests` on the path).
"""
