"""What an evaluation depends on: photographs, masks, sizes, methods and metrics.

Runs of one protocol have the same holes.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from pydantic import Field

from glama_deploy.errors import GlamaError, ImageError
from glama_deploy.evaluation.metrics.registry import MetricName
from glama_deploy.frozen import FrozenModel
from glama_deploy.inpainting.inpainter import Region
from glama_deploy.io.files import check_path, sha256
from glama_deploy.io.images import SUFFIXES, read_bytes
from glama_deploy.masks import RANDOM_TYPES, TYPES, by_name


class Dataset(FrozenModel):
    """A folder of photographs and its name in the tables."""

    name: str
    folder: Path


class Identity(FrozenModel):
    """A method: its name in the tables, what opened, and what tells its weights from others."""

    label: str
    description: str
    digest: str = ""


class Weights(FrozenModel):
    """A file that a metric is computed with."""

    metric: MetricName
    digest: str


class Protocol(FrozenModel):
    """All that a result depends on, except the contents of the images.

    The protocol is written beside the results. Results of another protocol are not added.
    """

    datasets: tuple[Dataset, ...]
    methods: tuple[Identity, ...]
    masks: tuple[str, ...]
    metrics: tuple[MetricName, ...]
    weights: tuple[Weights, ...] = ()
    definitions: int = Field(default=1, description="the version of the metrics' definitions")
    mask_definitions: int = Field(default=1, description="the version of what the masks' names draw")
    size: tuple[int, int] | None = Field(default=None, description="height and width; None: the images' own")
    limit: int | None = Field(default=None, ge=1, description="the first so many images of each dataset")
    seed: int = Field(default=0, ge=0, description="of the masks, with the image's name")
    region: Region = Field(default="full", description="what a network is shown of an image")
    threads: int = Field(default=1, ge=1, description="of engines and metrics, on which the order of sums depends")
    device: str = Field(default="cpu", description="of the metrics' networks")
    shown: int = Field(default=14, ge=0, description="images of each dataset whose results are kept as pictures")

    def difference(self, other: Protocol) -> str:
        """Describe the first difference that an image's result depends on.

        Args:
            other: the protocol of results that are there.

        Returns:
            A text for people; empty without a difference.
        """
        for name in type(self).model_fields:
            here, there = getattr(self, name), getattr(other, name)
            if here != there and name not in _IGNORED_FIELDS:
                return f"{name} {_abbreviate(there)}, not {_abbreviate(here)}"
        return ""


#: Fields that no result of an image depends on: how many images are evaluated and shown.
_IGNORED_FIELDS = {"limit", "shown"}


def _abbreviate(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(_abbreviate, value)) or "none"
    if isinstance(value, Dataset):
        return f"{value.name}={value.folder}"
    if isinstance(value, Weights):
        return f"{value.metric} ({value.digest[:8]})"
    if isinstance(value, Identity):
        return f"{value.label} ({value.description}{f', {value.digest[:8]}' if value.digest else ''})"
    return str(value)


class Item(FrozenModel):
    """An image of a dataset, by its path below the folder, and the mask with which its results are kept as pictures."""

    dataset: str
    folder: Path
    image: str
    shown: str | None = None

    @property
    def path(self) -> Path:
        """The file of the image."""
        return self.folder / self.image

    def digest(self) -> str:
        """Compute the SHA-256 of the file.

        Returns:
            The digest, in hexadecimal.

        Raises:
            ImageError: the file cannot be read, or its name is not UTF-8.
        """
        try:
            self.image.encode()
            return sha256(self.path)
        except UnicodeEncodeError as error:
            raise ImageError(f"{self.path} has a name that is not UTF-8; rename it") from error
        except OSError as error:
            raise ImageError(f"{self.path} cannot be read ({error.strerror}); check the file") from error


#: Names that stand for several columns of the table.
_MASK_GROUPS = {"general": tuple(TYPES), "random-attribute": tuple(RANDOM_TYPES)}


def expand_masks(names: Sequence[str]) -> tuple[str, ...]:
    """Return the masks of the table, a column for each.

    Args:
        names: masks or mixtures. `general` is the seven types with the public settings, `random-attribute` the seven
            with random settings. Any other mixture is one column.

    Returns:
        The names of the columns, each once.

    Raises:
        GlamaError: a name is unknown. The message has the name that was probably meant.
    """
    expanded = [column for name in names for column in _MASK_GROUPS.get(name, (name,))]
    for name in expanded:
        by_name(name)
    return tuple(dict.fromkeys(expanded))


def find_datasets(texts: Sequence[str]) -> tuple[Dataset, ...]:
    """Return the datasets of texts.

    Args:
        texts: `FOLDER` or `NAME=FOLDER` each. Without a name the dataset has the folder's.

    Returns:
        A dataset for each text.

    Raises:
        GlamaError: a folder does not exist or has no images, two datasets have one name, or a file cannot have it.
    """
    found: dict[str, Dataset] = {}
    for text in texts:
        name, equals, folder = text.partition("=")
        if not equals or os.path.exists(text):
            name, folder = Path(text).resolve().name, text
        check_path(Path(folder))
        if not Path(folder).is_dir():
            raise GlamaError(f"`data` {folder} is no folder; give one with images ({', '.join(sorted(SUFFIXES))})")
        if not name or name.startswith(".") or "/" in name:
            raise GlamaError(f"`data` {text} is called {name!r}, as no file may be; name it, as in `data=A={folder}`")
        if name in found:
            raise GlamaError(f"two datasets are called {name!r}; name them, as in `data=A={folder}`")
        found[name] = Dataset(name=name, folder=Path(folder).resolve())
        if not _list_images(found[name].folder):
            raise GlamaError(f"`data` {folder} has no images ({', '.join(sorted(SUFFIXES))}); give a folder that has")
    return tuple(found.values())


def _list_images(folder: Path) -> list[str]:
    """Return the paths of the images below a folder, relative to it, sorted."""
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    return sorted(p.as_posix() for p in paths if not any(part.startswith(".") for part in p.parts))


def list_items(protocol: Protocol) -> list[Item]:
    """List every image of every dataset.

    Args:
        protocol: what is evaluated.

    Returns:
        The images. Some, far apart, are shown, each with another mask.
    """
    found: list[Item] = []
    for dataset in protocol.datasets:
        images = _list_images(dataset.folder)[: protocol.limit]
        chosen = np.linspace(0, len(images) - 1, min(protocol.shown, len(images))).round().astype(int).tolist()
        masks = {index: protocol.masks[n % len(protocol.masks)] for n, index in enumerate(chosen)}
        found += [
            Item(dataset=dataset.name, folder=dataset.folder, image=image, shown=masks.get(index))
            for index, image in enumerate(images)
        ]
    return found


def read_truth(path: Path, size: tuple[int, int] | None) -> np.ndarray:
    """Read a photograph.

    Args:
        path: the file.
        size: height and width. The largest part of that shape in the middle of the photograph is brought to that size.
            None keeps the photograph as it is.

    Returns:
        uint8 H×W×3.

    Raises:
        ImageError: the file is damaged or refused.
    """
    rgb = read_bytes(path)
    if size is None:
        return rgb
    image, (height, width) = Image.fromarray(rgb), size
    return np.asarray(
        image.resize((width, height), Image.Resampling.LANCZOS, _find_middle(image.size, (width, height)))
    )


def _find_middle(there: tuple[int, int], shape: tuple[int, int]) -> tuple[float, float, float, float]:
    """Return the largest part of a picture that has a given shape and lies in its middle.

    Args:
        there: width and height of the picture, in pixels.
        shape: width and height whose ratio the part has.

    Returns:
        Left, top, right and bottom, in pixels. They lie within the picture: Pillow refuses a box that a rounding error
        of 1e-15 moves out of it.
    """
    scale = min(extent / side for extent, side in zip(there, shape, strict=True))
    starts = [max(0.0, (extent - scale * side) / 2) for extent, side in zip(there, shape, strict=True)]
    stops = [extent - start for extent, start in zip(there, starts, strict=True)]
    return starts[0], starts[1], stops[0], stops[1]


def draw_missing(mask: str, image: str, height: int, width: int, seed: int) -> np.ndarray:
    """Draw the missing pixels of an image.

    Args:
        mask: the name of the mask.
        image: the image's path below its dataset's folder.
        height: of the image, in pixels.
        width: of the image, in pixels.
        seed: the protocol's seed.

    Returns:
        bool H×W, a function of the arguments alone.
    """
    entropy = hashlib.sha256(f"{mask}/{image}".encode()).digest()
    rng = np.random.default_rng([seed, *np.frombuffer(entropy, "<u4").tolist()])
    return by_name(mask)(height, width, rng)
