"""The evaluation as one HTML page without other files: tables that sort, and images under a slider."""

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
from glama_deploy.evaluation.report.tables import describe_images, describe_masks, make_tables

#: Quality of the pictures on the page, of 100. The PNG files beside the page are exact.
_WEBP_QUALITY = 92


@dataclass(frozen=True)
class Slide:
    """An image on the page: its title, its shape, and each version of it as a data URI, by name."""

    title: str
    width: int
    height: int
    images: dict[str, str]


def render_page(summary: Summary, slides: Sequence[Slide], figures: dict[str, bytes]) -> str:
    """Render the page.

    Args:
        summary: the results.
        slides: the shown images.
        figures: PNG files by their captions.

    Returns:
        HTML that needs no other file.
    """
    loader = jinja2.PackageLoader("glama_deploy.evaluation.report", ".")
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.get_template("page.html").render(
        summary=summary,
        protocol=summary.protocol,
        images=describe_images(summary),
        masks=describe_masks(summary),
        tables=list(make_tables(summary)),
        slides=slides,
        figures={caption: _make_data_uri("png", content) for caption, content in figures.items()},
    )


def make_slide(row: Shown) -> Slide:
    """Encode the pictures of an image for the page.

    Args:
        row: the image.

    Returns:
        The image as the page holds it.
    """
    height, width = row.images[TRUTH].shape[:2]
    title = f"{row.item.dataset}: {row.item.name}, {row.item.shown}"
    return Slide(title, width, height, {name: _encode_picture(image) for name, image in row.images.items()})


def _encode_picture(image: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(image).save(file, format="WEBP", quality=_WEBP_QUALITY)
    return _make_data_uri("webp", file.getvalue())


def _make_data_uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
