"""Find the pictures of a run: files of folders and object stores, or WebDataset shards and Parquet files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

from glama_deploy.errors import GlamaError
from glama_deploy.inpainting.pairing import BY_STEM, FolderRule, Job, pair_jobs, pair_names
from glama_deploy.io import images
from glama_deploy.ray.storage import Storage, is_remote, join
from glama_deploy.ray.tasks import Task
from glama_deploy.runtime.base import require

#: Suffixes of files whose rows have pictures.
_SAMPLE_SUFFIXES: dict[str, Literal["shards", "parquet"]] = {".tar": "shards", ".parquet": "parquet"}

#: The most shards that the braces of an address name.
_MAX_FILES = 100_000


@dataclass(frozen=True)
class Found:
    """The pictures of folders.

    Attributes:
        todo: the pictures that have no output yet.
        done: the pictures whose output exists, with its address as their key.
    """

    todo: tuple[Task, ...]
    done: tuple[Task, ...]


def find_sample_kind(address: str) -> Literal["shards", "parquet"] | None:
    """Return the kind of files whose rows have pictures.

    Args:
        address: the address of the pictures.

    Returns:
        The kind by the suffix; None for a folder of pictures.
    """
    return _SAMPLE_SUFFIXES.get(Path(address).suffix.lower())


def find_pictures(image: str, mask: str | None, out: str, rule: FolderRule, *, overwrite: bool) -> Found:
    """Find the pictures of a folder, and their masks.

    Args:
        image: the address of the folder of pictures.
        mask: the address of the folder of masks, or of one mask for all; None for none.
        out: the address of the folder of outputs.
        rule: how pictures find their masks.
        overwrite: whether outputs that exist are replaced.

    Returns:
        The pictures.

    Raises:
        GlamaError: a folder cannot be listed, has no pictures, or the folders do not go together.
    """
    if any(is_remote(address) for address in (image, mask, out) if address is not None):
        jobs = _pair_listed(image, mask, out, rule)
        existing = set() if overwrite else set(Storage(out).list_names(recursive=rule.recursive))
    else:
        jobs = pair_jobs(Path(image), Path(mask) if mask else None, Path(out), overwrite=overwrite, rule=rule)
        existing = set() if overwrite else {_name(job.out, out) for job in jobs if job.is_done()}
    todo: list[Task] = []
    done: list[Task] = []
    for job in jobs:
        key = _name(job.out, out)
        task = Task(
            key,
            join(image, _name(job.file, image)),
            _find_mask_address(job, mask),
            job.expected_mask if job.lacks_mask else "",
        )
        (done if key in existing else todo).append(task)
    return Found(tuple(todo), tuple(done))


def _name(path: Path, folder: str) -> str:
    """Return a path of a job below the folder of an address, with slashes."""
    return path.relative_to(Path(folder)).as_posix()


def _find_mask_address(job: Job, mask: str | None) -> str | None:
    if not isinstance(job.mask, Path) or mask is None:
        return None
    return mask if job.mask == Path(mask) else join(mask, _name(job.mask, mask))


def _pair_listed(image: str, mask: str | None, out: str, rule: FolderRule) -> list[Job]:
    """Pair the files of storages by their names. The paths of the jobs stand for the addresses."""
    source = Storage(image)
    if Path(image) == Path(out) or (mask is not None and Path(mask) == Path(out)):
        raise GlamaError(f"`out` {out} is a folder of the inputs; choose another")
    if mask is None and rule.mask_name != BY_STEM.mask_name:
        raise GlamaError("`mask_name` is set without `mask`; give the folder of the masks")
    is_one_mask = mask is not None and Storage(mask).is_file()
    names = source.list_names(recursive=rule.recursive)
    others = [Path(out), *([Path(mask)] if mask is not None and Path(mask) != Path(image) else [])]
    found = [Path(image, name) for name in names if _is_picture(name)]
    found = [path for path in found if not any(path.is_relative_to(other) for other in others)]
    masks: tuple[Path, Sequence[Path]] | None = None
    if mask is not None and not is_one_mask:
        mask_names = names if Path(mask) == Path(image) else Storage(mask).list_names(recursive=rule.recursive)
        masks = Path(mask), [Path(mask, name) for name in mask_names if not _is_hidden(name)]
        if Path(mask) == Path(image):
            if rule.mask_name == BY_STEM.mask_name:
                raise GlamaError(f"`image` and `mask` are both {image}; pass the masks' own, or set `mask_name`")
            found = [path for path in found if rule.find_stem(path) is None]
    if not found:
        raise GlamaError(
            f"{image} has no images ({', '.join(sorted(images.READ_SUFFIXES))}); check the address, or give files such "
            f"as {image.rstrip('/')}/*.tar or {image.rstrip('/')}/*.parquet"
        )
    jobs = pair_names(Path(image), found, masks, Path(mask) if is_one_mask and mask else None, Path(out), rule)
    if all(job.lacks_mask for job in jobs):
        raise GlamaError(
            f"{mask} has no mask for any of the {len(jobs)} images of {image}: {jobs[0].expected_mask} is expected for "
            f"{jobs[0].image.name}; rename the masks, or set `mask_name`"
        )
    return jobs


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))


def _is_picture(name: str) -> bool:
    return Path(name).suffix.lower() in images.READ_SUFFIXES and not _is_hidden(name)


def list_sample_files(address: str) -> list[str]:
    """List the files that an address names with `*`, and with braces such as `shard-{000..123}.tar`.

    Args:
        address: the address.

    Returns:
        The addresses of the files, in order.

    Raises:
        GlamaError: no file has such an address, or the braces name too many.
    """
    patterns = _expand_braces(address) if "{" in address else [address]
    found: list[str] = []
    for pattern in patterns:
        files = Storage(pattern).find_matches() if "*" in pattern else [pattern]
        if not files or ("*" not in pattern and not Storage(pattern).is_file()):
            raise GlamaError(f"no file at {pattern}; check the address")
        found += files
    return found


def _expand_braces(address: str) -> list[str]:
    """Return the addresses that the braces of an address name."""
    require("braceexpand", "braceexpand", "pip install 'glama-deploy[ray]'")
    from braceexpand import braceexpand

    try:
        found = list(islice(braceexpand(address), _MAX_FILES + 1))
    except ValueError as error:  # unbalanced
        raise GlamaError(f"{address} has unbalanced braces; shard-{{000..123}}.tar is expected") from error
    if len(found) > _MAX_FILES:
        raise GlamaError(f"{address} names more than {_MAX_FILES} files; give fewer at once")
    return found
