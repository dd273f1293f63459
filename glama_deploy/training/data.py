"""Photographs and masks for training. Photographs come from folders or WebDataset shards, masks are drawn.

A sample depends only on the seed and on the sample's position in the run. Both determine the photograph (each one once
an epoch, in a new order for each epoch), the square, mirroring, and the mask. Workers need no seeds of their own, and
their number does not change the samples. A run that is resumed at a position continues with the same samples.
"""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from braceexpand import braceexpand
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from glama_deploy.errors import GlamaError, ImageError
from glama_deploy.io.decoding import decode
from glama_deploy.io.images import SUFFIXES
from glama_deploy.masks import Mask, by_name
from glama_deploy.system.spawning import protect_worker_start
from glama_deploy.text.excerpts import excerpt
from glama_deploy.training import distortions
from glama_deploy.training.config import Data

#: Exceptions for a picture that cannot be read.
_BROKEN = (ImageError, OSError)

#: Largest number of files of one source. The largest public sets of images have some ten thousand shards.
MAX_SHARDS = 100_000

#: Largest number of nested braces of a source.
_MAX_NESTED_BRACES = 8

#: Tokens of a source with braces: an escaped character, a range of numbers or letters, a brace, a comma.
_BRACES = re.compile(
    r"\\."
    r"|\{(?P<first>-?\d+)\.\.(?P<last>-?\d+)(?:\.\.(?P<step>-?\d+))?\}"
    r"|\{(?P<letter>[A-Za-z])\.\.(?P<other>[A-Za-z])(?:\.\.-?\d+)?\}"
    r"|[{},]"
)

#: A run ends when this number of photographs in succession cannot be read.
_MAX_BROKEN = 100


@dataclass(frozen=True)
class Photo:
    """The place of a photograph: a file, or a part of a tar file.

    Attributes:
        path: The file, or the tar file.
        offset: First byte of the photograph.
        size: Number of bytes, or -1 for all bytes from the offset on.
    """

    path: Path
    offset: int = 0
    size: int = -1

    def read(self) -> bytes:
        """Read the encoded photograph.

        Returns:
            The bytes of the image file.

        Raises:
            OSError: The file cannot be read.
        """
        with self.path.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.size)

    def __str__(self) -> str:
        return str(self.path) if self.size < 0 else f"{self.path} at byte {self.offset}"


@dataclass(frozen=True)
class Batch:
    """A batch of samples.

    Attributes:
        image: float32 [B, 3, S, S], 0…1.
        mask: float32 [B, 1, S, S], 1 = missing.
        broken: Names of photographs that cannot be read and were replaced by others.
    """

    image: Tensor
    mask: Tensor
    broken: tuple[str, ...]


def list_photos(sources: Sequence[str]) -> list[Photo]:
    """List the photographs of folders and shards.

    Args:
        sources: Folders (with their subfolders), tar files, or tar files with WebDataset's braces (x-{000..123}.tar).

    Returns:
        The photographs in a fixed order.

    Raises:
        GlamaError: There are no sources, a source does not exist or has no pictures, or a tar file is damaged.
    """
    if not sources:
        raise GlamaError("no photographs are given; set data.train to folders or shards, such as data.train=[photos]")
    found: list[Photo] = []
    for source in sources:
        of_source = [photo for path in _expand(source) for photo in _list_photos(path)]
        if not of_source:
            raise GlamaError(f"{source} has no pictures ({', '.join(sorted(SUFFIXES))}); give a folder with pictures")
        found += of_source
    return found


def _expand(source: str) -> Iterator[Path]:
    """Yield the paths of a source one by one, so that reading ends at the first missing file.

    Raises:
        GlamaError: The braces cannot be expanded, or give more than `MAX_SHARDS` paths.
    """
    try:
        count = _count_paths(source)
        names = iter(braceexpand(source)) if count <= MAX_SHARDS else iter(())
    except ValueError as error:
        raise GlamaError(
            f"{excerpt(source, 200)} has unbalanced or too deeply nested braces; x-{{000..123}}.tar is expected"
        ) from error
    if count > MAX_SHARDS:
        raise GlamaError(f"{excerpt(source, 200)} gives more than {MAX_SHARDS} files; give fewer and larger shards")
    yield from map(Path, names)


def _count_paths(source: str) -> int:
    """Count the paths of a source without expanding its braces, which would make lists of all values of a range.

    Raises:
        ValueError: More than `_MAX_NESTED_BRACES` braces are nested, or a number has thousands of digits.
    """
    sums, products = [0], [1]
    for token in _BRACES.finditer(source):
        if token["first"]:
            step = abs(int(token["step"] or 1)) or 1
            products[-1] *= abs(int(token["last"]) - int(token["first"])) // step + 1
        elif token["letter"]:
            products[-1] *= abs(ord(token["other"]) - ord(token["letter"])) + 1
        elif token[0] == "{":
            if len(sums) > _MAX_NESTED_BRACES:
                raise ValueError("the braces are nested too deeply")
            sums.append(0)
            products.append(1)
        elif token[0] == "," and len(sums) > 1:
            sums[-1] += products[-1]
            products[-1] = 1
        elif token[0] == "}" and len(sums) > 1:
            alternatives = sums.pop() + products.pop()
            products[-1] *= alternatives
    return products[0]


def _list_photos(path: Path) -> list[Photo]:
    if path.is_dir():
        return [Photo(file) for file in sorted(path.rglob("*")) if file.suffix.lower() in SUFFIXES and file.is_file()]
    if not path.is_file():
        raise GlamaError(f"{path} is neither a folder nor a tar file; give photographs that exist")
    try:
        with tarfile.open(path, "r:") as archive:  # uncompressed, because single pictures are read by their offset
            members = [m for m in archive if m.isfile() and Path(m.name).suffix.lower() in SUFFIXES]
            return [Photo(path, member.offset_data, member.size) for member in members]
    except tarfile.TarError as error:
        raise GlamaError(
            f"{path} is not an uncompressed tar file ({error}); give a folder or WebDataset shards"
        ) from error


class Squares(Dataset[tuple[np.ndarray, np.ndarray, tuple[str, ...]]]):
    """Samples by their position in the run: image uint8 S×S×3, mask bool S×S, names of photographs that cannot be read.

    Args:
        sources: Folders or shards, as :func:`list_photos` takes them.
        data: The side S, the masks, and the changes of photographs.
        seed: Seed of all random choices.

    Raises:
        GlamaError: The sources cannot be read, or the mask is unknown.
    """

    def __init__(self, sources: Sequence[str], data: Data, seed: int) -> None:
        self._photos, self._data, self._seed = list_photos(sources), data, seed
        self._mask: Mask = by_name(data.masks)
        self._kept: dict[Photo, Image.Image] = {}
        self._epoch, self._order = -1, np.empty(0, np.int64)

    def __len__(self) -> int:
        return len(self._photos)

    def __getitem__(self, position: int) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
        broken: list[str] = []
        rng = np.random.default_rng((self._seed, 1, position))
        epoch, place = divmod(position, len(self._photos))
        while len(broken) < _MAX_BROKEN:
            photo = self._photos[self._shuffle(epoch)[place]]
            try:
                image = cut_square(self._read(photo), self._data, rng)
            except _BROKEN:
                broken.append(str(photo))
                place = int(rng.integers(len(self._photos)))
                continue
            return image, self._mask(self._data.side, self._data.side, rng), tuple(broken)
        raise GlamaError(
            f"{_MAX_BROKEN} pictures in succession cannot be read, the last {broken[-1]}; check the photographs"
        )

    def _read(self, photo: Photo) -> Image.Image:
        picture = self._kept.get(photo) or _decode(photo)
        if len(self._kept) < self._data.keep:
            self._kept[photo] = picture
        return picture

    def _shuffle(self, epoch: int) -> np.ndarray:
        if epoch != self._epoch:
            self._epoch, self._order = epoch, np.random.default_rng((self._seed, 0, epoch)).permutation(len(self))
        return self._order


def _decode(photo: Photo) -> Image.Image:
    return decode(io.BytesIO(photo.read()), photo).convert("RGB")


def cut_square(picture: Image.Image, data: Data, rng: np.random.Generator) -> np.ndarray:
    """Make a training image from a photograph.

    Args:
        picture: The photograph, RGB.
        data: The side S, and settings of cropping, resizing and changes. With a zoom below 1, the crop is S to S/zoom
            pixels wide (log-uniform, at most the smaller side) and is then scaled down.
        rng: Generator of random numbers.

    Returns:
        uint8 S×S×3.
    """
    side = data.side
    if data.distort:
        picture = Image.fromarray(distortions.bend(np.asarray(picture), side, rng))
    if data.fit == "resize":
        picture = picture.resize((side, side), Image.Resampling.LANCZOS)
    elif min(picture.size) < side:
        scale = side / min(picture.size)
        picture = picture.resize([max(side, round(s * scale)) for s in picture.size], Image.Resampling.LANCZOS)
    width = side if data.zoom == 1 else min(round(side * data.zoom ** -rng.random()), *picture.size)
    left, top = (int(rng.integers(extent - width + 1)) for extent in picture.size)
    box = (left, top, left + width, top + width)
    array = np.asarray(
        picture.resize((side, side), Image.Resampling.LANCZOS, box) if width > side else picture.crop(box)
    )
    if data.flip and rng.random() < 0.5:
        array = array[:, ::-1]
    if data.distort:
        array = distortions.recolour(np.ascontiguousarray(array), rng)
    if data.recolour and rng.random() < 0.5:
        array = array[..., rng.permutation(3)]
    return array


class Positions(Sampler[list[int]]):
    """The positions of one process, in endless batches.

    The positions of the run are divided into groups of `world` × `batch`. Each process takes its part of each group.

    Args:
        batch: Number of positions in each batch of this process.
        start: The first position of the run.
        rank: Number of this process, from 0.
        world: Number of processes.
    """

    def __init__(self, batch: int, start: int = 0, rank: int = 0, world: int = 1) -> None:
        self._batch, self._start, self._rank, self._world = batch, start, rank, world

    def __iter__(self) -> Iterator[list[int]]:
        position = self._start + self._rank * self._batch
        while True:
            yield list(range(position, position + self._batch))
            position += self._world * self._batch


def read_batches(
    squares: Squares, positions: Positions, workers: int, device: str | torch.device = "cpu"
) -> Iterator[Batch]:
    """Read batches without end.

    Args:
        squares: The samples.
        positions: The positions of this process.
        workers: Number of processes that read samples; 0 reads in this process.
        device: Device of the batches.

    Yields:
        The batches.
    """
    loader: DataLoader[Any] = DataLoader(
        squares,
        batch_sampler=positions,
        num_workers=workers,
        collate_fn=_collate,
        persistent_workers=workers > 0,
        pin_memory=torch.device(device).type == "cuda",
        worker_init_fn=_use_one_thread,
    )
    with protect_worker_start(workers):
        found = iter(loader)
    for image, mask, broken in found:
        image, mask = (tensor.to(device, non_blocking=True) for tensor in (image, mask))
        yield Batch((image.permute(0, 3, 1, 2).float() / 255).contiguous(), mask[:, None].float(), broken)


def _use_one_thread(_worker: int) -> None:
    """Restrict OpenCV to one thread, because a forked process does not have the threads of its parent."""
    cv2.setNumThreads(0)


def _collate(
    samples: list[tuple[np.ndarray, np.ndarray, tuple[str, ...]]],
) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """Join samples to uint8 [B, S, S, 3] and bool [B, S, S], which have a quarter of the bytes of floats."""
    images, masks, broken = zip(*samples, strict=True)
    unread = tuple(name for names in broken for name in names)
    return torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(masks)), unread
