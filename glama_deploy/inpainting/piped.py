"""Fill one picture whose image, mask or output is a pipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO, get_args

from glama_deploy.errors import GlamaError
from glama_deploy.inpainting.pairing import Job, OutputFormat
from glama_deploy.io import pipes
from glama_deploy.io.decoding import identify_format
from glama_deploy.io.files import check_overwrite, check_writable
from glama_deploy.io.images import ENCODERS, Picture, encode_image

#: Number of first bytes that tell the format of a picture.
_HEAD_BYTES = 64

#: The usual suffix of each format, by Pillow's name.
_SUFFIXES: Mapping[str, str] = MappingProxyType({encoder: suffix for suffix, encoder in reversed(ENCODERS.items())})


@dataclass(frozen=True)
class PipedJob:
    """A job of one picture, some of whose files are pipes.

    Attributes:
        job: the job. If the output is a pipe, its path only has the suffix of the format.
        target: the pipe of the output, open for writing; None for a file.
    """

    job: Job
    target: BinaryIO | None

    def write(self, picture: Picture) -> None:
        """Write the picture into the output's pipe.

        Args:
            picture: the filled picture.

        Raises:
            ImageError: the format does not support the picture.
        """
        assert self.target is not None
        encoder, name = ENCODERS[self.job.out.suffix], self.job.out
        self.target.write(encode_image(picture, encoder, name, self.job.files.quality))
        self.target.flush()


def make_job(image: Path, mask: Path | None, out: Path, format: str | None, *, overwrite: bool) -> PipedJob:
    """Read the pipes of a picture and its mask, and open the pipe of the output.

    Args:
        image: the image, or its pipe.
        mask: the mask, or its pipe; None if other marks say which pixels are missing.
        out: the output, or its pipe.
        format: the format that is written into a pipe: png, jpg, webp; keep and None: that of the image.
        overwrite: whether a file that exists is replaced.

    Returns:
        The job.

    Raises:
        GlamaError: a path does not exist, the paths do not go together, or a pipe cannot be read or written.
    """
    if image == mask == pipes.STANDARD:
        raise GlamaError(
            "`image` and `mask` are both -, and standard input has one picture; give one of them as a file"
        )
    for path, name in ((image, "image"), (mask, "mask")):
        if path is not None and path.is_dir() and not pipes.is_pipe(path):
            raise GlamaError(f"`{name}` {path} is a folder; a pipe goes with one picture and one mask")
    if format is not None and format not in get_args(OutputFormat):
        raise GlamaError(f"`format` is {format!r}; expected {', '.join(get_args(OutputFormat))}")
    for path in (image, mask):
        if path is not None and path.is_file() and out.is_file() and path.samefile(out):
            raise GlamaError(f"{out} is an input itself; choose another output")
    target = _open_output(out, format, overwrite=overwrite)
    sources = pipes.read_source(image, "image"), pipes.read_source(mask, "mask") if mask is not None else None
    if target is None:
        return PipedJob(Job(*sources, out), None)
    suffix = find_suffix(sources[0]) if format in (None, "keep") else f".{format}"
    name = "standard output" if out == pipes.STANDARD else str(out)
    return PipedJob(Job(*sources, Path(f"{name}{suffix}")), target)


def _open_output(out: Path, format: str | None, *, overwrite: bool) -> BinaryIO | None:
    """Open the output if it is a pipe, else check that it can be written."""
    if out == pipes.STANDARD:
        return pipes.open_standard_output("`out` is -")
    if pipes.is_pipe(out):
        return out.open("wb")
    if out.is_dir():
        raise GlamaError(f"`out` {out} is a folder; give the output file of a picture from a pipe, or - ")
    if format is not None:
        raise GlamaError(f"`format` is {format}, and `out` {out} is a file, whose suffix tells the format")
    check_overwrite(out, is_there=out.exists(), overwrite=overwrite, place="output")
    check_writable(out)
    return None


def find_suffix(image: pipes.Source) -> str:
    """Find the usual suffix of an image's format by the first bytes.

    Args:
        image: the image.

    Returns:
        The suffix; .png where the format is not supported, which reading explains.
    """
    if isinstance(image, Path) and not image.is_file():
        return ".png"
    with image.open("rb") as file:
        return _SUFFIXES.get(identify_format(file.read(_HEAD_BYTES)) or "PNG", ".png")
