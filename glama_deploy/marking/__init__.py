"""Marks of missing pixels that are no mask file: rectangles, colors, and annotations."""

from __future__ import annotations

from glama_deploy.marking.annotations import Annotations, read_annotations
from glama_deploy.marking.marks import NO_MARKS, Marks
from glama_deploy.marking.rectangles import Rectangle

__all__ = ["NO_MARKS", "Annotations", "Marks", "Rectangle", "read_annotations"]
