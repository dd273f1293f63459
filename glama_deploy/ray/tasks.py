"""A picture of a run: where its bytes are, and the key of its output.

A task has the addresses of a picture and its mask, or the bytes of both. The second kind comes from WebDataset shards
and Parquet files, whose columns :class:`Columns` names.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from glama_deploy.errors import GlamaError, ImageError
from glama_deploy.io import images
from glama_deploy.ray.storage import read_file

#: The column of keys that `ray.data.read_webdataset` adds.
SHARD_KEY = "__key__"

#: The most names of columns that a message lists.
_MAX_COLUMNS_SHOWN = 8


@dataclass(frozen=True)
class Columns:
    """The columns of a dataset that have keys, pictures and masks.

    Attributes:
        key: the column of the keys, which name the outputs. Empty: `__key__` of a shard, else `key`.
        image: the column of the pictures. Empty: `image`, else the first column with the suffix of a picture.
        mask: the column of the masks. Empty: `mask`, else the first column such as `mask.png`.
    """

    key: str = ""
    image: str = ""
    mask: str = ""

    def read_row(self, row: Mapping[str, Any]) -> Task:
        """Make the task of a row.

        Args:
            row: the row, whose pictures are the bytes of files.

        Returns:
            The task.

        Raises:
            GlamaError: a column is missing, or has values of another kind.
        """
        key_column, image_column, mask_column = self._find(row, "a row")
        image = _take_bytes(row[image_column], image_column)
        mask = _take_bytes(row[mask_column], mask_column) if mask_column else None
        key = _take_key(row[key_column], key_column)
        if image is None:
            raise GlamaError(f"{key}: the column {image_column!r} is empty; a picture is expected")
        if mask is None and mask_column:
            raise GlamaError(f"{key}: the column {mask_column!r} is empty; a mask is expected")
        return Task(key, key, image_data=image, mask_data=mask)

    def check_file(self, file: str, names: Iterable[str]) -> list[str]:
        """Check that a file has the columns, before its rows are read.

        Args:
            file: the address of the file, for messages.
            names: the names of the columns of the file.

        Returns:
            The names of the columns to read.

        Raises:
            GlamaError: a column is missing.
        """
        names = list(names)
        key, _, _ = self._find(dict.fromkeys(names, b""), file)
        images = [self.image] if self.image else _list_columns(names, "image")
        return [key, *images, *([self.mask] if self.mask else _list_columns(names, "mask"))]

    def _find(self, row: Mapping[str, Any], subject: str) -> tuple[str, str, str]:
        """Return the columns of the key, the picture and the mask; an empty name for no mask.

        Raises:
            GlamaError: a column is missing.
        """
        key_column = self.key or (SHARD_KEY if SHARD_KEY in row else "key")
        if key_column not in row:
            raise GlamaError(f"{subject} {_describe(row)} has no column {key_column!r}; set `key_column`")
        image_column = self.image or _find_column(row, "image")
        if not image_column or image_column not in row:
            raise GlamaError(f"{subject} {_describe(row)} has no column of pictures; set `image_column`")
        if self.mask and self.mask not in row:
            raise GlamaError(f"{subject} {_describe(row)} has no column {self.mask!r}; set `mask_column`")
        return key_column, image_column, self.mask or _find_column(row, "mask")


#: The columns that are found by their names.
BY_NAME = Columns()


@dataclass(frozen=True)
class Task:
    """A picture to fill.

    Attributes:
        key: the name of the output below the folder of outputs. The output of a picture whose bytes are here gets the
            suffix of its format in addition.
        image: the address of the picture, or its name if its bytes are here.
        mask: the address of the mask; None if its bytes are here, or if the picture has no mask.
        expected_mask: names of masks that would have been taken, for messages.
        image_data: the bytes of the picture; None: they lie at `image`.
        mask_data: the bytes of the mask; None: they lie at `mask`.
        reason: why the picture cannot be read; empty if nothing is wrong so far.
    """

    key: str
    image: str
    mask: str | None = None
    expected_mask: str = ""
    image_data: bytes | None = field(default=None, repr=False)
    mask_data: bytes | None = field(default=None, repr=False)
    reason: str = ""

    @property
    def lacks_mask(self) -> bool:
        """Whether the folder of masks has no mask for the picture."""
        return self.mask is None and self.mask_data is None and bool(self.expected_mask)

    @property
    def origin(self) -> str:
        """What tells this picture from another of the same key: the addresses, or a digest of the bytes."""
        if self.image_data is None:
            return f"{self.image} {self.mask or ''}"
        return hashlib.sha256(self.image_data + b"\0" + (self.mask_data or b"")).hexdigest()

    def check(self) -> None:
        """Check that the picture was read, and that the key is the name of a file below the folder of outputs.

        Raises:
            GlamaError: the picture cannot be read.
            ImageError: the key is empty, or leads out of the folder.
        """
        if self.reason:
            raise GlamaError(self.reason)
        parts = self.key.split("/")
        if not self.key or "\\" in self.key or any(part in ("", ".", "..") for part in parts):
            raise ImageError(f"the key {self.key!r} does not name a file below the folder of outputs; rename the key")

    def read_image(self) -> bytes:
        """Read the picture.

        Returns:
            The bytes of its file.

        Raises:
            GlamaError: the file cannot be read.
        """
        return self.image_data if self.image_data is not None else read_file(self.image)

    def read_mask(self) -> bytes | None:
        """Read the mask.

        Returns:
            The bytes of its file; None if the picture has no mask file.

        Raises:
            GlamaError: the file cannot be read.
        """
        if self.mask_data is not None or self.mask is None:
            return self.mask_data
        return read_file(self.mask)


def _list_columns(names: Iterable[str], name: str) -> list[str]:
    """Return the column `name`, or all columns of pictures (`jpg`) or masks (`mask.png`)."""
    names = list(names)
    if name in names:
        return [name]
    prefix = "" if name == "image" else f"{name}."
    suffixes = [f"{prefix}{suffix.lstrip('.')}" for suffix in images.READ_SUFFIXES]
    return [column for column in names if column.lower() in suffixes]


def _find_column(row: Mapping[str, Any], name: str) -> str:
    """Return the column `name`, or the first one that :func:`_list_columns` finds and that has a value; else empty."""
    return next((column for column in _list_columns(row, name) if column == name or not _is_empty(row[column])), "")


def _take_key(value: Any, column: str) -> str:
    """Return a key. `tar -c .` writes names that begin with `./`."""
    if not isinstance(value, str | int):
        found = "is empty" if _is_empty(value) else f"has keys of the type {type(value).__name__}"
        raise GlamaError(f"the column {column!r} {found}; a name for each output is expected")
    return str(value).removeprefix("./")


def _take_bytes(value: Any, column: str) -> bytes | None:
    """Return the bytes of a file. Hugging Face's datasets keep them in a record with the field `bytes`."""
    if isinstance(value, Mapping) and "bytes" in value:
        value = value["bytes"]
    if _is_empty(value):
        return None
    if not isinstance(value, bytes | bytearray | memoryview):
        raise GlamaError(
            f"the column {column!r} has values of the type {type(value).__name__}; the bytes of picture files are "
            "expected"
        )
    return bytes(value)


def _is_empty(value: Any) -> bool:
    """Return whether a row has no value in a column. pandas writes a float that is not a number."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def _describe(row: Mapping[str, Any]) -> str:
    names = list(row)
    shown = ", ".join(names[:_MAX_COLUMNS_SHOWN]) + (", …" if len(names) > _MAX_COLUMNS_SHOWN else "")
    return f"with the columns {shown}"
