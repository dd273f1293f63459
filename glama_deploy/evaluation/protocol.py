"""What an evaluation depends on: photographs, masks, sizes, methods and metrics.

Runs of one protocol have the same holes.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image
from pydantic import Field

from glama_deploy.checkpoints.published.references import split_name
from glama_deploy.errors import GlamaError, ImageError
from glama_deploy.evaluation import image_files
from glama_deploy.evaluation.metrics.registry import MetricName
from glama_deploy.frozen import FrozenModel
from glama_deploy.inpainting.inpainter import Region
from glama_deploy.io.files import check_path, sha256
from glama_deploy.io.images import SUFFIXES, read_bytes
from glama_deploy.io.mask_files import read_mask
from glama_deploy.masks import NAMED, RANDOM_TYPES, TYPES, by_name

log = logging.getLogger("glama_deploy")


class Dataset(FrozenModel):
    """A folder of photographs and its name in the tables."""

    name: str
    folder: Path


class GivenMasks(FrozenModel):
    """A folder of masks, and the name of their column in the tables.

    The masks of several datasets lie in folders of the datasets' names.
    """

    column: str
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
    given: GivenMasks | None = Field(default=None, description="the masks of the only column, if none are drawn")
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
    if isinstance(value, GivenMasks):
        return f"{value.column}={value.folder}"
    if isinstance(value, Weights):
        return f"{value.metric} ({value.digest[:8]})"
    if isinstance(value, Identity):
        return f"{value.label} ({value.description}{f', {value.digest[:8]}' if value.digest else ''})"
    return str(value)


class Item(FrozenModel):
    """An image of a dataset, with the masks of a protocol.

    Attributes:
        dataset: the name of the dataset.
        folder: the folder of the dataset.
        image: the path of the image below its dataset's folder.
        masks_folder: the folder of given masks; None if masks are drawn.
        mask: the path of the given mask below that folder. An image with several masks is several items.
        is_only: whether the image has no other item.
        place: the folder of the image's results below the folder of a method: the dataset's name if there are several.
        shown: the mask with which results are kept as pictures; None for no pictures.
        results: files of results that other programs made, by the method's label and the mask.
    """

    dataset: str
    folder: Path
    image: str
    masks_folder: Path | None = None
    mask: str = ""
    is_only: bool = True
    place: str = ""
    shown: str | None = None
    results: dict[str, dict[str, Path]] = Field(default_factory=dict)

    @property
    def path(self) -> Path:
        """The file of the image."""
        return self.folder / self.image

    @property
    def mask_path(self) -> Path | None:
        """The file of the given mask."""
        return None if self.masks_folder is None else self.masks_folder / self.mask

    @property
    def name(self) -> str:
        """The name in the records: the path of the image, or of its given mask."""
        return self.mask or self.image

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that the results depend on."""
        masks = () if self.mask_path is None else (self.mask_path,)
        return self.path, *masks, *(path for paths in self.results.values() for path in paths.values())

    def digest(self) -> str:
        """Compute the SHA-256 of the item's files.

        Returns:
            The digest of the image in hexadecimal. If there are more files: the digest of all their digests.

        Raises:
            ImageError: a file cannot be read, or its name is not UTF-8.
        """
        digests = [_compute_digest(path) for path in self.files]
        return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def check_name(path: Path) -> None:
    """Check that a file has a name that can be written into other files.

    Args:
        path: the file.

    Raises:
        ImageError: the name is not UTF-8.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise ImageError(f"{path} has a name that is not UTF-8; rename it") from error


def _compute_digest(path: Path) -> str:
    check_name(path)
    try:
        return sha256(path)
    except OSError as error:
        raise ImageError(f"{path} cannot be read ({error.strerror}); check the file") from error


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


#: The column of given masks without a name of their own.
GIVEN = "given"


def find_masks(texts: Sequence[str]) -> tuple[tuple[str, ...], GivenMasks | None]:
    """Return the columns of the tables, and the folder of given masks.

    Args:
        texts: names of masks as :func:`expand_masks` takes them, or one folder: `FOLDER` or `NAME=FOLDER`. A folder
            whose path is a mask's name is given as `./FOLDER`.

    Returns:
        The names of the columns, and the folder; None for the folder if masks are drawn.

    Raises:
        GlamaError: a name is unknown, a folder does not exist, or there are a folder and other masks.
    """
    given = [found for text in texts if (found := _find_given(text)) is not None]
    if not given:
        return expand_masks(texts), None
    if len(texts) > 1:
        raise GlamaError(
            f"`masks` has the folder {given[0].folder} and others; give one folder, or names of masks that are drawn"
        )
    check_path(given[0].folder)
    if not given[0].folder.is_dir():
        raise GlamaError(f"`masks` {given[0].folder} is no folder; give the folder of the masks")
    return (given[0].column,), given[0].model_copy(update={"folder": given[0].folder.resolve()})


def _find_given(text: str) -> GivenMasks | None:
    """Return the folder of masks that a text names; None for a name of masks that are drawn."""
    name, folder = split_name(text)
    if name is not None:
        if not name or name.startswith(".") or "/" in name:
            raise GlamaError(f"`masks` {text} is called {name!r}, as no file may be; name it, as in `masks=A={folder}`")
        return GivenMasks(column=name, folder=Path(folder))
    is_name = all(part in _MASK_GROUPS or part in NAMED for part in text.split("+"))
    is_folder = os.sep in text or "/" in text or Path(text).is_dir()
    if is_name and is_folder:
        _note_folder(text)
        return None
    return GivenMasks(column=GIVEN, folder=Path(text)) if is_folder else None


@cache
def _note_folder(name: str) -> None:
    """Note, once in a process, that a folder has the name of a mask that is drawn."""
    log.warning("%s is drawn as the mask of this name; the folder of this name is ./%s", name, name)


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
        name, folder = split_name(text)
        name = Path(text).resolve().name if name is None else name
        check_path(Path(folder))
        if not Path(folder).is_dir():
            raise GlamaError(f"`data` {folder} is no folder; give one with images ({', '.join(sorted(SUFFIXES))})")
        if not name or name.startswith(".") or "/" in name:
            raise GlamaError(f"`data` {text} is called {name!r}, as no file may be; name it, as in `data=A={folder}`")
        if name in found:
            raise GlamaError(f"two datasets are called {name!r}; name them, as in `data=A={folder}`")
        found[name] = Dataset(name=name, folder=Path(folder).resolve())
        if not image_files.list_files(found[name].folder):
            raise GlamaError(f"`data` {folder} has no images ({', '.join(sorted(SUFFIXES))}); give a folder that has")
    return tuple(found.values())


def list_photographs(dataset: Dataset) -> list[str]:
    """List the photographs of a dataset. Masks of LaMa's naming beside their images are no photographs.

    Args:
        dataset: the dataset.

    Returns:
        Paths below its folder, sorted.
    """
    return image_files.split_masks(image_files.list_files(dataset.folder))[0]


def list_items(protocol: Protocol) -> list[Item]:
    """List every image of every dataset, with every given mask.

    Args:
        protocol: what is evaluated.

    Returns:
        The items. Some, far apart, are shown, each with another mask.

    Raises:
        GlamaError: given masks and images do not go together.
    """
    found: list[Item] = []
    for dataset in protocol.datasets:
        here = _list_items_of(dataset, protocol)
        chosen = np.linspace(0, len(here) - 1, min(protocol.shown, len(here))).round().astype(int).tolist()
        masks = {index: protocol.masks[n % len(protocol.masks)] for n, index in enumerate(chosen)}
        found += [item.model_copy(update={"shown": masks.get(index)}) for index, item in enumerate(here)]
    return found


def _list_items_of(dataset: Dataset, protocol: Protocol) -> list[Item]:
    """Return the items of a dataset, none of them shown."""
    images = list_photographs(dataset)
    place = dataset.name if len(protocol.datasets) > 1 else ""
    first = Item(dataset=dataset.name, folder=dataset.folder, image="", place=place)
    if protocol.given is None:
        return [first.model_copy(update={"image": image}) for image in images[: protocol.limit]]
    folder = protocol.given.folder / place
    pairs = image_files.pair_masks(dataset.folder, images, folder)
    return [
        first.model_copy(
            update={"image": image, "masks_folder": folder, "mask": mask, "is_only": len(pairs[image]) == 1}
        )
        for image in images[: protocol.limit]
        for mask in pairs[image]
    ]


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
    return cut_middle(read_bytes(path), size)


def cut_middle(rgb: np.ndarray, size: tuple[int, int] | None) -> np.ndarray:
    """Cut a photograph to a shape and scale it.

    Args:
        rgb: uint8 H×W×3.
        size: height and width. The largest part of that shape in the middle of the photograph is brought to that size.
            None keeps the photograph as it is.

    Returns:
        uint8 H×W×3.
    """
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


def draw_missing(mask: str, image: str, height: int, width: int, seed: int, variant: int = 0) -> np.ndarray:
    """Draw the missing pixels of an image.

    Args:
        mask: the name of the mask.
        image: the image's path below its dataset's folder.
        height: of the image, in pixels.
        width: of the image, in pixels.
        seed: the protocol's seed.
        variant: the number of the mask, if an image has several. An evaluation has variant 0.

    Returns:
        bool H×W, a function of the arguments alone.
    """
    return by_name(mask)(height, width, make_generator(mask, image, seed, variant))


def make_generator(mask: str, image: str, seed: int, variant: int = 0) -> np.random.Generator:
    """Make the generator of random numbers that :func:`draw_missing` draws with.

    Args:
        mask: the name of the mask.
        image: the image's path below its dataset's folder.
        seed: the seed.
        variant: the number of the mask, if an image has several.

    Returns:
        A new generator.
    """
    entropy = hashlib.sha256(f"{mask}/{image}".encode()).digest()
    return np.random.default_rng([seed, *np.frombuffer(entropy, "<u4").tolist(), *([variant] if variant else [])])


def read_missing(item: Item, mask: str, height: int, width: int, seed: int) -> np.ndarray:
    """Read the given mask of an image, or draw one.

    Args:
        item: the image.
        mask: the column: the name of the mask, if masks are drawn.
        height: of the image, in pixels.
        width: of the image, in pixels.
        seed: the protocol's seed.

    Returns:
        bool H×W.

    Raises:
        ImageError: the given mask cannot be read, has another size, or misses no pixel.
    """
    if item.mask_path is None:
        return draw_missing(mask, item.image, height, width, seed)
    missing = read_mask(item.mask_path)
    if missing.shape != (height, width):
        rows, columns = missing.shape
        raise ImageError(
            f"{item.mask_path} is {rows}x{columns}, and {item.path} {height}x{width}; one size is expected"
        )
    if not missing.any():
        raise ImageError(f"{item.mask_path} marks no pixel as missing; nothing can be measured, remove the mask")
    return missing
