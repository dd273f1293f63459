"""Photographs and masks for training: squares cut or resized from folders or WebDataset shards, masks made beside them.

A sample is a function of the seed and its position in the run alone: which photograph (each once an epoch, in an order
of the epoch's own), which square of it, mirrored or not, and which mask. So the workers need no seeds of theirs, their
number changes nothing, and a run that is resumed at a position goes on as if it had never stopped.
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
from glama_deploy.system.spawning import for_workers
from glama_deploy.text.excerpts import excerpt
from glama_deploy.training import distortions
from glama_deploy.training.config import Data

#: What a picture that cannot be read makes its reader raise.
_BROKEN = (ImageError, OSError)

#: Of one source. The largest public sets of images have some ten thousand shards.
MAX_SHARDS = 100_000
_MAX_NESTED_BRACES = 8

#: What counts in a source with braces: an escaped character, a range of numbers or letters, a brace, a comma.
_BRACES = re.compile(
    r"\\."
    r"|\{(?P<first>-?\d+)\.\.(?P<last>-?\d+)(?:\.\.(?P<step>-?\d+))?\}"
    r"|\{(?P<letter>[A-Za-z])\.\.(?P<other>[A-Za-z])(?:\.\.-?\d+)?\}"
    r"|[{},]"
)

#: So many photographs one after the other that cannot be read end the run.
_MOST_BROKEN = 100


@dataclass(frozen=True)
class Photo:
    """Where a photograph is: a file, or so many bytes of a tar file."""

    path: Path
    offset: int = 0
    size: int = -1

    def read(self) -> bytes:
        with self.path.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.size)

    def __str__(self) -> str:
        return str(self.path) if self.size < 0 else f"{self.path} at byte {self.offset}"


@dataclass(frozen=True)
class Batch:
    """image float32 [B, 3, S, S] (0…1), mask float32 [B, 1, S, S] (1 = missing), and the photographs that could not be
    read and were replaced by others."""

    image: Tensor
    mask: Tensor
    broken: tuple[str, ...]


def photos(sources: Sequence[str]) -> list[Photo]:
    """Every picture of the folders (with all that is in them) and of the shards, in a fixed order.

    A source is a folder, a tar file, or tar files by WebDataset's braces (x-{000..123}.tar). Raises GlamaError: none
    given, one that is not there, one without a picture, a tar file that is damaged.
    """
    if not sources:
        raise GlamaError("no photographs are given; set data.train to folders or shards, such as data.train=[photos]")
    found: list[Photo] = []
    for source in sources:
        here = [photo for path in _expanded(source) for photo in _of(path)]
        if not here:
            raise GlamaError(f"{source} has no pictures ({', '.join(sorted(SUFFIXES))}); give a folder that has")
        found += here
    return found


def _expanded(source: str) -> Iterator[Path]:
    """Yield the paths of a source one after another, so that the first that is missing ends the reading.

    Raises:
        GlamaError: braces that cannot be expanded, or that stand for more than `MAX_SHARDS` paths.
    """
    try:
        count = _count(source)
        names = iter(braceexpand(source)) if count <= MAX_SHARDS else iter(())
    except ValueError as error:
        raise GlamaError(
            f"{excerpt(source, 200)} has unbalanced braces, or too many in each other; x-{{000..123}}.tar is expected"
        ) from error
    if count > MAX_SHARDS:
        raise GlamaError(
            f"{excerpt(source, 200)} stands for more than {MAX_SHARDS} files; give fewer and larger shards"
        )
    yield from map(Path, names)


def _count(source: str) -> int:
    """Return how many paths the braces of a source stand for. (The library makes lists of all values of a range.)

    Raises:
        ValueError: more than `_MAX_NESTED_BRACES` braces in each other, or a number of thousands of digits.
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
                raise ValueError("braces that are nested too deep")
            sums.append(0)
            products.append(1)
        elif token[0] == "," and len(sums) > 1:
            sums[-1] += products[-1]
            products[-1] = 1
        elif token[0] == "}" and len(sums) > 1:
            alternatives = sums.pop() + products.pop()
            products[-1] *= alternatives
    return products[0]


def _of(path: Path) -> list[Photo]:
    if path.is_dir():
        return [Photo(file) for file in sorted(path.rglob("*")) if file.suffix.lower() in SUFFIXES and file.is_file()]
    if not path.is_file():
        raise GlamaError(f"{path} is neither a folder nor a tar file; give photographs that are there")
    try:
        with tarfile.open(path, "r:") as archive:  # uncompressed, so that a picture can be read by itself
            members = [m for m in archive if m.isfile() and Path(m.name).suffix.lower() in SUFFIXES]
            return [Photo(path, member.offset_data, member.size) for member in members]
    except tarfile.TarError as error:
        raise GlamaError(f"{path} is no uncompressed tar file ({error}); give a folder or WebDataset shards") from error


class Squares(Dataset[tuple[np.ndarray, np.ndarray, tuple[str, ...]]]):
    """Samples by their position in the run: image uint8 S×S×3, mask bool S×S, and what could not be read on the way."""

    def __init__(self, sources: Sequence[str], data: Data, seed: int) -> None:
        self._photos, self._data, self._seed = photos(sources), data, seed
        self._mask: Mask = by_name(data.masks)
        self._kept: dict[Photo, Image.Image] = {}
        self._epoch, self._order = -1, np.empty(0, np.int64)

    def __len__(self) -> int:
        return len(self._photos)

    def __getitem__(self, position: int) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
        broken: list[str] = []
        rng = np.random.default_rng((self._seed, 1, position))
        epoch, place = divmod(position, len(self._photos))
        while len(broken) < _MOST_BROKEN:
            photo = self._photos[self._shuffled(epoch)[place]]
            try:
                image = square(self._picture(photo), self._data, rng)
            except _BROKEN:
                broken.append(str(photo))
                place = int(rng.integers(len(self._photos)))
                continue
            return image, self._mask(self._data.side, self._data.side, rng), tuple(broken)
        raise GlamaError(
            f"{_MOST_BROKEN} pictures one after the other cannot be read, the last {broken[-1]}; check the photographs"
        )

    def _picture(self, photo: Photo) -> Image.Image:
        picture = self._kept.get(photo) or _decoded(photo)
        if len(self._kept) < self._data.keep:
            self._kept[photo] = picture
        return picture

    def _shuffled(self, epoch: int) -> np.ndarray:
        if epoch != self._epoch:
            self._epoch, self._order = epoch, np.random.default_rng((self._seed, 0, epoch)).permutation(len(self))
        return self._order


def _decoded(photo: Photo) -> Image.Image:
    return decode(io.BytesIO(photo.read()), photo).convert("RGB")


def square(picture: Image.Image, data: Data, rng: np.random.Generator) -> np.ndarray:
    """Return a square of a photograph as it is trained on.

    Args:
        picture: The photograph, RGB.
        data: The square's side S, and how the photograph is cropped, resized and changed. With a zoom below 1 the crop
            is S to S/zoom pixels wide (log-uniformly, at most the smaller side) and made smaller.
        rng: Draws the crop and the changes.

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
    """The positions of one process, a batch of them after the other, without end: of each group of `world` × `batch`
    positions of the run the part of this process."""

    def __init__(self, batch: int, start: int = 0, rank: int = 0, world: int = 1) -> None:
        self._batch, self._start, self._rank, self._world = batch, start, rank, world

    def __iter__(self) -> Iterator[list[int]]:
        position = self._start + self._rank * self._batch
        while True:
            yield list(range(position, position + self._batch))
            position += self._world * self._batch


def batches(
    squares: Squares, positions: Positions, workers: int, device: str | torch.device = "cpu"
) -> Iterator[Batch]:
    """Batches on the device, without end, read by so many processes beside this one."""
    loader: DataLoader[Any] = DataLoader(
        squares,
        batch_sampler=positions,
        num_workers=workers,
        collate_fn=_collated,
        persistent_workers=workers > 0,
        pin_memory=torch.device(device).type == "cuda",
        worker_init_fn=_use_one_thread,
    )
    with for_workers(workers):
        found = iter(loader)
    for image, mask, broken in found:
        image, mask = (tensor.to(device, non_blocking=True) for tensor in (image, mask))
        yield Batch((image.permute(0, 3, 1, 2).float() / 255).contiguous(), mask[:, None].float(), broken)


def _use_one_thread(_worker: int) -> None:
    """Keep OpenCV to the worker's own thread: a forked process does not have the threads of the one before it."""
    cv2.setNumThreads(0)


def _collated(
    samples: list[tuple[np.ndarray, np.ndarray, tuple[str, ...]]],
) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """uint8 [B, S, S, 3], bool [B, S, S]: a quarter of the floats that a process would hand over, and a GPU copy."""
    images, masks, broken = zip(*samples, strict=True)
    unread = tuple(name for names in broken for name in names)
    return torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(masks)), unread
