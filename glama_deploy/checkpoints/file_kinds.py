"""Identify files by content, because the suffix of a download may be wrong."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Literal

from glama_deploy.checkpoints.safetensors_file import MAX_HEADER_BYTES
from glama_deploy.checkpoints.torch_zip import LEGACY_MAGIC
from glama_deploy.errors import CheckpointError

#: The reader that a file needs: a zip of torch or TorchScript, a file of torch < 1.6, or safetensors.
Kind = Literal["zip", "legacy", "safetensors"]

#: Number of first bytes that are read to identify a file.
_HEAD_BYTES = 1024

_LFS_POINTER = re.compile(rb"version https://git-lfs\.github\.com/spec/\S+\s+oid \S+\s+size (\d{1,15})")
_WEB_PAGE = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*(?:<!--.{,500}?-->\s*)?<(?:!doctype\s+html|html|head|body|\?xml|error)", re.I | re.S
)

#: Files that are given by mistake: their first bytes, and the end of the message.
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
    """Find the reader that a file needs.

    Args:
        path: The file.

    Returns:
        The kind of the file.

    Raises:
        CheckpointError: The file is empty, a placeholder (Git LFS pointer, web page), truncated, or of another kind.
            The message gives the number of bytes and, where known, the expected number.
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
                f"{path} is truncated: {size} bytes found of a zip archive without its end; fetch the file again"
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
        raise CheckpointError(f"{path} is a JSON text of {size} bytes, perhaps a server's error message; {_EXPECTED}")
    raise CheckpointError(f"{path} ({size} bytes) is damaged, truncated or not a checkpoint; {_EXPECTED}")


def check_placeholder(path: Path, head: bytes, size: int) -> None:
    """Check that a file is not a placeholder.

    Args:
        path: The file, for messages.
        head: The first bytes of the file.
        size: Size of the file in bytes.

    Raises:
        CheckpointError: The file is empty, a Git LFS pointer or a web page.
    """
    if size == 0:
        raise CheckpointError(f"{path} is empty (0 bytes); fetch or save the file again")
    if pointer := _LFS_POINTER.match(head):
        raise CheckpointError(
            f"{path} is a Git LFS pointer of {size} bytes; the file itself has {int(pointer[1])} bytes: "
            "run git lfs pull, or download the file from its page"
        )
    if _WEB_PAGE.match(head):
        raise CheckpointError(
            f"{path} is a web page (HTML or XML) of {size} bytes; download the file by its direct link"
        )
