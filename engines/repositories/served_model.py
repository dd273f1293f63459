"""A model that a repository is made of: the bundle, the engine that the server runs, and what clients read of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import glama_deploy
from glama_deploy.bundle import Bundle, Engine, SizeRange
from glama_deploy.catalogue import EngineRecord
from glama_deploy.errors import BundleError, GlamaError
from glama_deploy.remote.description import Color, ModelDescription

#: The folder of the only version of a model. Both servers name versions by numbers.
VERSION = "1"

#: Names that are folders of one level, and parts of an address without escapes.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


@dataclass(frozen=True)
class ServedModel:
    """A model that a repository is made of.

    Attributes:
        bundle: The bundle.
        name: The name that clients give.
        instances: The number of requests that the server runs at once.
        folder: The model's folder in the repository, which exists.
    """

    bundle: Bundle
    name: str
    instances: int
    folder: Path

    @property
    def version_folder(self) -> Path:
        """The folder of the model's files, which exists."""
        return self.folder / VERSION

    def find_engine(self, record: EngineRecord) -> Engine:
        """Return the entry of the engine that the server runs.

        Args:
            record: The engine in the catalogue.

        Returns:
            The entry of the manifest.

        Raises:
            BundleError: The bundle does not have the engine, or its graph does not take bytes.
        """
        path, engine = self.bundle.path, self.bundle.engine(record.name)
        if engine is None:
            there = ", ".join(self.bundle.manifest.engines)
            remedy = f"add it with `build({path}, target={record.target})`"
            if not record.builder:
                remedy = f"export it with `targets={record.target}` and `fft=matmul`"
            raise BundleError(f"{path} has no engine for {record.title} (it has: {there}); {remedy}")
        if self.bundle.manifest.io != "uint8":
            raise BundleError(
                f"{path} has {self.bundle.manifest.io} tensors, and clients of servers send bytes; export it with "
                f"`io=uint8` and `targets={record.target}`"
            )
        return engine

    def describe(self, sizes: SizeRange, precision: str, color: Color = "rgb") -> ModelDescription:
        """Describe the model for clients.

        Args:
            sizes: The sizes that the server's engine takes.
            precision: What the engine is built in.
            color: The order of the channels.

        Returns:
            The description.
        """
        software = f"glama-deploy {glama_deploy.__version__}"
        network = self.bundle.manifest.network
        return ModelDescription(software=software, network=network, sizes=sizes, precision=precision, color=color)


def check_name(name: str) -> None:
    """Check the name of a model.

    Args:
        name: The name.

    Raises:
        GlamaError: The name cannot be a folder and a part of an address.
    """
    if not _NAME.fullmatch(name):
        raise GlamaError(f"`name` is {name!r}; letters, digits, '_', '.' and '-' are expected, at most 100")


def intersect_sizes(bundle: Bundle) -> SizeRange:
    """Return the sizes that every engine of a bundle takes.

    Args:
        bundle: The bundle.

    Returns:
        The sizes, and the least number of images at once.

    Raises:
        BundleError: No size suits every engine.
    """
    sizes, *others = (engine.sizes for engine in bundle.manifest.engines.values())
    for other in others:
        low = max(sizes.min[0], other.min[0]), max(sizes.min[1], other.min[1])
        high = min(sizes.max[0], other.max[0]), min(sizes.max[1], other.max[1])
        if low[0] > high[0] or low[1] > high[1]:
            raise BundleError(f"no size suits every engine of {bundle.path}; package a bundle with one engine")
        best = tuple(min(max(side, least), most) for side, least, most in zip(sizes.opt, low, high, strict=True))
        batches = [each.max_batch for each in (sizes, other) if each.max_batch is not None]
        sizes = SizeRange(min=low, opt=(best[0], best[1]), max=high, max_batch=min(batches, default=None))
    return sizes
