"""What a file is, by its content: a suffix says little about a download."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Literal

from glama_deploy.checkpoints.safetensors_file import MAX_HEADER_BYTES
from glama_deploy.checkpoints.torch_zip import LEGACY_MAGIC
from glama_deploy.errors import CheckpointError

Kind = Literal["zip", "legacy", "safetensors"]

_HEAD_BYTES = 1024

_LFS_POINTER = re.compile(rb"version https://git-lfs\.github\.com/spec/\S+\s+oid \S+\s+size (\d{1,15})")
_WEB_PAGE = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*(?:<!--.{,500}?-->\s*)?<(?:!doctype\s+html|html|head|body|\?xml|error)", re.I | re.S
)

#: How files begin that are given by mistake, and what they are.
_OTHERS = {
    b"\x1f\x8b": "a gzip archive; unpack it first",
    b"BZh": "a bzip2 archive; unpack it first",
    b"\xfd7zXZ\x00": "an xz archive; unpack it first",
    b"\x28\xb5\x2f\xfd": "a Zstandard archive; unpack it first",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive; unpack it first",
    b"Rar!\x1a\x07": "a RAR archive; unpack it first",
    b"\x89HDF\r\n\x1a\n": "an HDF5 file",
    b"GGUF": "a GGUF file",
    b"\x93NUMPY": "a NumPy array",
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"%PDF": "a PDF document",
}
_EXPECTED = "a torch, TorchScript or safetensors file is expected"


def identify(path: Path) -> Kind:
    """Return which reader a file needs.

    Raises:
        CheckpointError: empty, a placeholder (Git LFS pointer, web page), truncated, or of another kind; the message
            says which, with the bytes found and, where known, the bytes expected.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or type(error).__name__}") from error
    check_placeholder(path, head, size)
    if head.startswith(b"PK\x03\x04"):
        if not zipfile.is_zipfile(path):
            raise CheckpointError(
                f"{path} is truncated: {size} bytes found of a zip archive whose end is missing; fetch it again"
            )
        return "zip"
    if head.startswith(LEGACY_MAGIC):
        return "legacy"
    if head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") <= MAX_HEADER_BYTES:
        return "safetensors"
    for magic, name in _OTHERS.items():
        if head.startswith(magic):
            raise CheckpointError(f"{path} is {name}; {_EXPECTED}")
    if head[257:262] == b"ustar":
        raise CheckpointError(f"{path} is a tar archive; unpack it first; {_EXPECTED}")
    if head.lstrip()[:1] in (b"{", b"["):
        raise CheckpointError(f"{path} is a JSON text of {size} bytes, perhaps an error of the server; {_EXPECTED}")
    raise CheckpointError(f"{path} ({size} bytes) is damaged, truncated or no checkpoint; {_EXPECTED}")


def check_placeholder(path: Path, head: bytes, size: int) -> None:
    """Raise CheckpointError where a file of `size` bytes is empty, a Git LFS pointer or a web page, by its `head`."""
    if size == 0:
        raise CheckpointError(f"{path} is empty (0 bytes); fetch or save it again")
    if pointer := _LFS_POINTER.match(head):
        raise CheckpointError(
            f"{path} is a Git LFS pointer of {size} bytes; the file itself has {int(pointer[1])} bytes: "
            "run git lfs pull, or download it from its page"
        )
    if _WEB_PAGE.match(head):
        raise CheckpointError(
            f"{path} is a web page (HTML or XML) of {size} bytes, not the file; download it by its direct link"
        )
