"""The evaluation as one HTML page that needs nothing beside it: tables that sort, shown images under a slider."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import jinja2
import numpy as np
from PIL import Image

from glama_deploy.evaluation.records import TRUTH
from glama_deploy.evaluation.report.pictures import Shown
from glama_deploy.evaluation.report.summary import Summary
from glama_deploy.evaluation.report.tables import tables

#: Of the pictures on the page (WebP); the exact ones are the PNGs beside it.
_QUALITY = 92


@dataclass(frozen=True)
class Slide:
    """An image on the page: its title, its shape, and each version of it as a data URI, by name."""

    title: str
    width: int
    height: int
    images: dict[str, str]


def page(summary: Summary, slides: Sequence[Slide], figures: dict[str, bytes]) -> str:
    """The page's HTML; `figures` are PNG files by their captions."""
    loader = jinja2.PackageLoader("glama_deploy.evaluation.report", ".")
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.get_template("page.html").render(
        summary=summary,
        protocol=summary.protocol,
        tables=list(tables(summary)),
        slides=slides,
        figures={caption: _data_uri("png", content) for caption, content in figures.items()},
    )


def slide(row: Shown) -> Slide:
    """The images as the page holds them."""
    height, width = row.images[TRUTH].shape[:2]
    title = f"{row.item.dataset}: {row.item.image}, {row.item.shown}"
    return Slide(title, width, height, {name: _picture(image) for name, image in row.images.items()})


def _picture(image: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(image).save(file, format="WEBP", quality=_QUALITY)
    return _data_uri("webp", file.getvalue())


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
