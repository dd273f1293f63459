"""Read files of annotations, and find the objects of a picture by the name of its file."""

from __future__ import annotations

import difflib
import json
import unicodedata
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

from glama_deploy.errors import GlamaError, ImageError
from glama_deploy.io.files import check_path
from glama_deploy.marking.annotated import AnnotatedObject, AnnotatedPicture
from glama_deploy.marking.coco import read_coco
from glama_deploy.marking.labelme import read_labelme

#: Categories that a message lists.
_MAX_CATEGORIES_SHOWN = 10


@dataclass(frozen=True)
class Annotations:
    """The annotations of pictures.

    Attributes:
        source: the file or folder.
        pictures: the pictures.
        categories: the names of all categories, also of those without objects.
    """

    source: Path
    pictures: tuple[AnnotatedPicture, ...]
    categories: frozenset[str]

    def check_categories(self, wanted: Collection[str]) -> None:
        """Check that categories exist.

        Args:
            wanted: the names.

        Raises:
            GlamaError: a category does not exist. The message has the nearest names.
        """
        for name in wanted:
            if name in self.categories:
                continue
            by_lower = {each.lower(): each for each in sorted(self.categories)}
            near = [by_lower[each] for each in difflib.get_close_matches(name.lower(), by_lower, cutoff=0.6)]
            shown = sorted(self.categories)[:_MAX_CATEGORIES_SHOWN]
            more = ", …" * (len(self.categories) > len(shown))
            advice = (
                f"did you mean {', '.join(map(repr, near))}?" if near else f"it has {', '.join(shown) or 'none'}{more}"
            )
            raise GlamaError(f"{self.source} has no `category` {name!r}; {advice}")

    def find_objects(self, image: Path, size: Sequence[int], wanted: Collection[str]) -> list[AnnotatedObject]:
        """Find the objects of a picture.

        Args:
            image: the picture's file. The end of its path is compared with the names in the annotations.
            size: height and width of the upright picture in pixels.
            wanted: the categories; empty for all.

        Returns:
            The objects of these categories.

        Raises:
            ImageError: the annotations do not have the picture, have several of its name, or have another size.
        """
        picture = self._find_picture(image)
        if picture.size != tuple(size):
            height, width = picture.size
            turned = ": the annotations were made before the picture was turned upright" * (
                (width, height) == tuple(size)
            )
            raise ImageError(
                f"{image} is {size[0]}x{size[1]}, and {picture.source} describes a picture of {height}x{width}{turned}"
                "; give the picture that was annotated"
            )
        return [each for each in picture.objects if not wanted or each.category in wanted]

    @cached_property
    def _by_name(self) -> dict[str, list[AnnotatedPicture]]:
        return _group(self.pictures, lambda picture: picture.path.name)

    @cached_property
    def _by_stem(self) -> dict[str, list[AnnotatedPicture]]:
        return _group(self.pictures, lambda picture: picture.stem)

    def _find_picture(self, image: Path) -> AnnotatedPicture:
        found = self._by_name.get(_compose(image.name)) or self._by_stem.get(_compose(image.stem), [])
        if not found:
            raise ImageError(f"{image} has no annotations: {self.source} names no picture {image.name}")
        if len(found) > 1:
            place = _split(image.absolute())
            found = [each for each in found if place[-len(_split(each.path)) :] == _split(each.path)] or found
            longest = max(len(_split(each.path)) for each in found)
            found = [each for each in found if len(_split(each.path)) == longest]
        if len(found) > 1:
            raise ImageError(
                f"{image} has several annotations: {self.source} names {len(found)} pictures {image.name}; remove or "
                "rename one"
            )
        return found[0]


def read_annotations(source: Path) -> Annotations:
    """Read annotations: a file of COCO's instances or of LabelMe, or a folder of such files.

    Args:
        source: the file; or the folder, whose subfolders are read, too.

    Returns:
        The annotations.

    Raises:
        GlamaError: a file cannot be read, or is of another kind.
    """
    check_path(source)
    if not source.exists():
        raise GlamaError(f"no annotations at {source}; check the path")
    files = sorted(source.rglob("*.json")) if source.is_dir() else [source]
    if not files:
        raise GlamaError(f"{source} has no .json files; the annotations of COCO or LabelMe are expected")
    pictures: list[AnnotatedPicture] = []
    categories: set[str] = set()
    for file in files:
        document = _read_json(file)
        if isinstance(document, dict) and {"images", "annotations"} <= document.keys():
            found, names = read_coco(document, file)
            pictures += found
            categories |= names
        elif isinstance(document, dict) and "shapes" in document:
            place = PurePosixPath(file.relative_to(source) if source.is_dir() else file.name)
            pictures.append(read_labelme(document, file, place))
            categories |= {each.category for each in pictures[-1].objects}
        else:
            raise GlamaError(f"{file} {_describe_other(document)}")
    return Annotations(source, tuple(pictures), frozenset(categories))


def _read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise GlamaError(f"{file} cannot be read ({error.strerror}); check the path and its permissions") from error
    except (ValueError, RecursionError) as error:
        raise GlamaError(f"{file} is not JSON ({error}); the annotations of COCO or LabelMe are expected") from error


def _describe_other(document: Any) -> str:
    """Describe a document of neither kind, as the end of a sentence."""
    if isinstance(document, list) and document and isinstance(document[0], dict) and "segmentation" in document[0]:
        return "has COCO's results, which do not name the pictures; give the instances, with images and categories"
    return (
        "is JSON, but neither of COCO (images, annotations, categories) nor of LabelMe (shapes, imagePath); give one "
        "of these"
    )


def _group(
    pictures: Sequence[AnnotatedPicture], read_key: Callable[[AnnotatedPicture], str]
) -> dict[str, list[AnnotatedPicture]]:
    """Return the pictures by a name. Pictures without the name are left out."""
    groups: dict[str, list[AnnotatedPicture]] = {}
    for picture in pictures:
        if key := _compose(read_key(picture)):
            groups.setdefault(key, []).append(picture)
    return groups


def _split(path: PurePath) -> tuple[str, ...]:
    """Return the parts of a path, without those that lead upwards."""
    return tuple(_compose(part) for part in path.parts if part not in ("..", "/"))


def _compose(name: str) -> str:
    """Return a name in Unicode's composed form."""
    return unicodedata.normalize("NFC", name)
