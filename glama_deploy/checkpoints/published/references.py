"""What users give in place of a path: the name of a published model, or the address of a file.

    big-lama                                   a model of the catalogue
    hf://OWNER/REPO/FILE, hf://OWNER/REPO@REVISION/FILE
    https://HOST/FILE#sha256=HASH

A path that exists comes first: a folder or file named `big-lama` is not the published model.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from glama_deploy.checkpoints import embedded
from glama_deploy.checkpoints.published import hub
from glama_deploy.checkpoints.published.addresses import check_address
from glama_deploy.checkpoints.published.hub import HubFile
from glama_deploy.checkpoints.published.model_list import (
    FILE_PATTERN,
    NAME_PATTERN,
    PublishedModel,
    find_near_name,
    read_models,
)
from glama_deploy.checkpoints.published.remote_file import RemoteFile
from glama_deploy.errors import CheckpointError, DownloadError
from glama_deploy.text.excerpts import excerpt

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")

_HUB_FILE = re.compile(r"hf://([\w.-]+/[\w.-]+)(?:@([^@/]+))?/([^@#?]+)")

#: Parts of a path that do not name a file or folder in a repository.
_NO_PATH_PARTS = frozenset(("", ".", ".."))

_HASH = re.compile(r"sha256=([0-9a-fA-F]{64})")


def is_address(text: str) -> bool:
    """Tell whether a text has the form of an address with a scheme.

    Args:
        text: A path, a name or an address.

    Returns:
        True for `https://…`, `hf://…` and other schemes.
    """
    return _SCHEME.match(text) is not None


def split_name(text: str) -> tuple[str | None, str]:
    """Split `NAME=PATH`. A path that exists and an address may have `=` of their own, and are not split.

    Args:
        text: A path, a name or an address, or `NAME=` and one of these.

    Returns:
        The name, None without `NAME=`, and the rest.
    """
    if "=" not in text or os.path.exists(text) or is_address(text):
        return None, text
    name, _, rest = text.partition("=")
    return name, rest


def locate(model: str | Path) -> str | Path:
    """Return the file of a model that is given by name or address. The file is downloaded at the first use.

    Args:
        model: The name of a published model, `hf://OWNER/REPO/FILE`, `https://HOST/FILE#sha256=HASH`, `default`, or a
            path.

    Returns:
        The path of the verified file. A path and `default` are returned as they are.

    Raises:
        DownloadError: The file cannot be downloaded or verified, or the address is not supported.
        CheckpointError: Neither a path nor a published model has this name.
    """
    reference = find_reference(model)
    if reference is None:
        return model
    if isinstance(reference, HubFile):
        return hub.pull(reference)
    from glama_deploy.checkpoints.published import storage  # imports HTTP, which a path does not need

    return storage.pull(reference)


def find_reference(model: str | Path) -> RemoteFile | HubFile | None:
    """Find out what a text refers to, without any connection.

    Args:
        model: As :func:`locate` takes it.

    Returns:
        The file to download, or None for embedded networks and for paths.

    Raises:
        DownloadError: The address is not supported.
        CheckpointError: Neither a path nor a published model has this name.
    """
    text = str(model)
    if embedded.is_embedded(text) or os.path.lexists(text):
        return None
    if not is_address(text):
        if not re.fullmatch(NAME_PATTERN, text):
            return None
        if text not in read_models():
            raise CheckpointError(
                f"no checkpoint at {text}, no bundle, and no published model of this name; {_suggest(text)}give a "
                "path, 'default', or a name that glama-models list shows"
            )
    return parse_reference(text)


def parse_reference(text: str) -> RemoteFile | HubFile:
    """Find out what a name or address refers to, even where a path of this name exists.

    Args:
        text: The name of a published model, or an address.

    Returns:
        The file to download.

    Raises:
        DownloadError: The address is not supported.
        CheckpointError: No published model has this name.
    """
    if is_address(text):
        return _parse_address(text)
    models = read_models()
    if text not in models:
        raise CheckpointError(
            f"no published model is called {excerpt(text, 200)}; {_suggest(text)}glama-models list shows the names"
        )
    return as_remote_file(models[text])


def as_remote_file(model: PublishedModel) -> RemoteFile:
    """Describe the file of a published model.

    Args:
        model: The model.

    Returns:
        The file.
    """
    return RemoteFile(model.name, model.file, model.sha256, model.urls, model.size_bytes, model.is_size_exact)


def _suggest(text: str) -> str:
    near = find_near_name(text)
    return f"is {near} meant? " if near else ""


def _parse_hub_address(text: str) -> HubFile:
    """Read an address of the Hub. Parts such as `..`, which lead out of huggingface_hub's cache, are refused."""
    match = _HUB_FILE.fullmatch(text)
    revision = unquote(match[2] or "main") if match else ""
    if (
        match is None
        or not _NO_PATH_PARTS.isdisjoint([*revision.split("/"), *match[3].split("/")])
        or not f"{revision}{match[3]}".isprintable()
        or "\\" in f"{revision}{match[3]}"
    ):
        raise DownloadError(
            f"{excerpt(text, 200)} is not hf://OWNER/REPO/FILE or hf://OWNER/REPO@REVISION/FILE (a / in REVISION is "
            "written %2F)"
        )
    return HubFile(match[1], revision, match[3])


def _parse_address(text: str) -> RemoteFile | HubFile:
    scheme = text.partition("://")[0].lower()
    if scheme == "hf":
        return _parse_hub_address(text)
    if scheme not in ("http", "https"):
        raise DownloadError(
            f"{excerpt(text, 200)} has the scheme {excerpt(scheme, 20)}; a path, a name that glama-models list shows, "
            "hf://OWNER/REPO/FILE, or https://HOST/FILE#sha256=HASH is expected"
        )
    url, _, fragment = text.partition("#")
    check_address(url)
    match = _HASH.fullmatch(fragment)
    if match is None:
        found = f"ends in #{excerpt(fragment, 80)}" if fragment else "has no SHA-256"
        raise DownloadError(
            f"{excerpt(url, 200)} {found}; write the SHA-256 of the file behind the address: #sha256= and 64 "
            "hexadecimal digits"
        )
    file = unquote(urlsplit(url).path).rpartition("/")[2]
    if not re.fullmatch(FILE_PATTERN, file):
        raise DownloadError(f"{excerpt(url, 200)} does not end in the name of a file; give the file's own address")
    return RemoteFile(file, file, match[1].lower(), (url,))
