"""Files of the Hugging Face Hub, which huggingface_hub downloads into its own cache."""

from __future__ import annotations

import logging
import os
import re
import sys
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from urllib.parse import quote

from glama_deploy.checkpoints.published import addresses
from glama_deploy.errors import DownloadError
from glama_deploy.io.files import sha256
from glama_deploy.text.excerpts import first_line

log = logging.getLogger("glama_deploy")

#: The name of a blob in huggingface_hub's cache is the SHA-256 of a large file.
_BLOB_NAME = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class HubFile:
    """A file of a repository on the Hugging Face Hub.

    Attributes:
        repository: such as `OWNER/REPO`.
        revision: a branch, tag or commit.
        file: the path in the repository.
    """

    repository: str
    revision: str
    file: str

    @property
    def subject(self) -> str:
        """The address that users write."""
        revision = "" if self.revision == "main" else f"@{quote(self.revision, safe='')}"
        return f"hf://{self.repository}{revision}/{self.file}"


def find(remote: HubFile) -> Path | None:
    """Find a file in huggingface_hub's cache, without a connection.

    Args:
        remote: The file.

    Returns:
        The path, or None where the cache does not have the file.

    Raises:
        DownloadError: huggingface_hub is not installed, the name is not valid, or the file has another SHA-256 than its
            name says.
    """
    hub = _import_hub(remote)
    try:
        found = hub.try_to_load_from_cache(remote.repository, remote.file, revision=remote.revision)
    except ValueError as error:
        raise DownloadError(f"{remote.subject}: {first_line(error, 200)}") from error
    return _verify(Path(found), remote.subject) if isinstance(found, str) else None


def pull(remote: HubFile) -> Path:
    """Return a file of a repository, and download the file first where huggingface_hub's cache does not have it.

    A file in the cache is used as it is, without a connection. Large files are verified by their SHA-256.

    Args:
        remote: The file.

    Returns:
        The path in huggingface_hub's cache.

    Raises:
        DownloadError: huggingface_hub is not installed or cannot get the file, downloads are forbidden, or the file has
            another SHA-256 than the repository says.
    """
    if path := find(remote):
        return path
    hub = _import_hub(remote)
    if variable := addresses.find_offline_variable():
        raise DownloadError(
            f"{remote.subject} is not in huggingface_hub's cache, and {variable} forbids downloads; unset the variable"
        )
    endpoint = os.environ.get(addresses.HUB_VARIABLE, "").rstrip("/") or None
    if endpoint:
        addresses.check_address(endpoint, f"{addresses.HUB_VARIABLE}=")
    log.warning("downloading %s from %s", remote.subject, endpoint or "https://huggingface.co")
    if not (sys.stderr and sys.stderr.isatty()):
        import_module("huggingface_hub.utils").disable_progress_bars()
    try:
        found = hub.hf_hub_download(remote.repository, remote.file, revision=remote.revision, endpoint=endpoint)
    except _list_errors() as error:
        reason = first_line(error.__cause__ or error, 200)
        raise DownloadError(
            f"{remote.subject} cannot be downloaded ({reason}); check the name, the network, and for a private "
            "repository the token of huggingface_hub"
        ) from error
    return _verify(Path(found), remote.subject)


def _import_hub(remote: HubFile) -> ModuleType:
    """Import huggingface_hub. Raises DownloadError where the package is not installed."""
    try:
        import huggingface_hub
    except ImportError as error:
        raise DownloadError(
            f"{remote.subject} needs huggingface_hub, which is not installed; pip install 'glama-deploy[hub]'"
        ) from error
    return huggingface_hub


def _list_errors() -> tuple[type[Exception], ...]:
    """Return the exceptions of huggingface_hub, which do not have a common base class. Its hf_xet has RuntimeError."""
    found = vars(import_module("huggingface_hub.errors")).values()
    return (OSError, RuntimeError, *(each for each in found if isinstance(each, type) and issubclass(each, Exception)))


def _verify(path: Path, subject: str) -> Path:
    """Check the SHA-256 of a large file, which the name of its blob tells. Small files have another kind of name."""
    blob = path.resolve()
    if not path.is_symlink():  # Windows makes links for few accounts; huggingface_hub then keeps no blob
        log.warning("%s is not verified: huggingface_hub keeps no SHA-256 of the file on this system", subject)
    if _BLOB_NAME.fullmatch(blob.name) and _hash_once(blob, blob.stat().st_mtime_ns) != blob.name:
        raise DownloadError(f"{subject}: {blob} has another SHA-256 than its name says; remove the file and run again")
    return path


@cache
def _hash_once(path: Path, modified_ns: int) -> str:
    """Return the SHA-256 of a file, which is read once in a process unless the file changes."""
    return sha256(path)
