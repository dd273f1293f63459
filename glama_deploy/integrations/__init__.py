"""Adapters that make the inpainter a part of other programs. Each file has one interface."""
