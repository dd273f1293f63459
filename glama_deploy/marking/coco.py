"""Read COCO's instances: polygons, and run lengths in both forms.

`images` has `id`, `file_name`, `height` and `width`. `annotations` has `image_id`, `category_id` and `segmentation`.
`categories` has `id` and `name`.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from glama_deploy.errors import GlamaError
from glama_deploy.marking.annotated import AnnotatedObject, AnnotatedPicture
from glama_deploy.marking.fields import read_points, take, take_name, take_size
from glama_deploy.marking.outlines import mark_polygon
from glama_deploy.marking.run_lengths import decode_counts, mark_runs
from glama_deploy.text.excerpts import quoted

#: The types of ids. COCO has numbers; some programs write texts.
_ID = (int, str)


def read_coco(document: dict[str, Any], name: object) -> tuple[list[AnnotatedPicture], frozenset[str]]:
    """Read the pictures of a COCO file.

    Args:
        document: the file's content.
        name: name of the file in messages.

    Returns:
        The pictures, also those without objects, and the names of all categories.

    Raises:
        GlamaError: a field is missing or wrong. Segmentations are checked when they are drawn.
    """
    categories = {
        take(record, "id", _ID, "an id", place): take(record, "name", str, "a name", place)
        for place, record in _number(document, "categories", name)
    }
    objects: dict[int | str, list[AnnotatedObject]] = {}
    for place, record in _number(document, "images", name):
        if take(record, "id", _ID, "an id", place) in objects:
            raise GlamaError(f"{place} has the id {quoted(record['id'])} of another image")
        objects[record["id"]] = []
    for place, record in _number(document, "annotations", name):
        category = take(record, "category_id", _ID, "the id of a category", place)
        image = take(record, "image_id", _ID, "the id of an image", place)
        if category not in categories:
            raise GlamaError(f"{place} has the category_id {quoted(category)}, which is not among the categories")
        if image not in objects:
            raise GlamaError(f"{place} has the image_id {quoted(image)}, which is not among the images")
        draw = partial(_draw, record, f"{name}: annotation {record.get('id', place)}")
        objects[image].append(AnnotatedObject(categories[category], draw))
    pictures = [
        AnnotatedPicture(
            take_name(record, "file_name", place),
            take_size(record, "height", "width", place),
            tuple(objects[record["id"]]),
            str(name),
        )
        for place, record in _number(document, "images", name)
    ]
    return pictures, frozenset(categories.values())


def _number(document: dict[str, Any], field: str, name: object) -> Iterator[tuple[str, Any]]:
    """Yield the entries of a list of the document, each with its place for messages."""
    for number, record in enumerate(take(document, field, list, "a list", str(name))):
        yield f"{name}: {field}[{number}]", record


def _draw(record: dict[str, Any], place: str, missing: np.ndarray) -> None:
    """Mark the pixels of an annotation."""
    segmentation = record.get("segmentation")
    if not segmentation:
        raise GlamaError(
            f"{place} has no segmentation, and a bbox is not drawn; give rectangles as `box=x,y,w,h`, or leave the "
            "category out"
        )
    if isinstance(segmentation, dict):
        _draw_runs(segmentation, place, missing)
        return
    if not isinstance(segmentation, list):
        take(record, "segmentation", (list, dict), "a list of polygons, or an object with counts and size", place)
    for polygon in segmentation:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            raise GlamaError(f"{place} has a polygon that is no list of x and y of three or more corners")
        mark_polygon(missing, read_points([polygon[at : at + 2] for at in range(0, len(polygon), 2)], place))


def _draw_runs(segmentation: dict[str, Any], place: str, missing: np.ndarray) -> None:
    size = take(segmentation, "size", list, "height and width", place)
    if size != list(missing.shape):
        raise GlamaError(f"{place} has runs of the size {size}; the picture is {list(missing.shape)}")
    counts = take(segmentation, "counts", (str, list), "a list of numbers, or a text", place)
    if isinstance(counts, list) and not all(type(count) is int for count in counts):
        raise GlamaError(f"{place} has counts that are not whole numbers")
    try:
        mark_runs(missing, decode_counts(counts) if isinstance(counts, str) else counts)
    except GlamaError as error:
        raise GlamaError(f"{place} {error}") from error
