"""Web addresses of models: which are allowed, which mirrors stand in for them, and whether downloads are allowed."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Sequence
from urllib.parse import quote, urlsplit

from glama_deploy.errors import DownloadError
from glama_deploy.text.excerpts import excerpt

#: A base address that is tried before the addresses of the catalogue.
MIRROR_VARIABLE = "GLAMA_MODELS_MIRROR"

#: The base address in place of https://huggingface.co, which huggingface_hub obeys, too.
HUB_VARIABLE = "HF_ENDPOINT"

#: Variables that forbid downloads. huggingface_hub obeys the second.
OFFLINE_VARIABLES = ("GLAMA_OFFLINE", "HF_HUB_OFFLINE")

#: The values that allow downloads. Any other value forbids them: a misspelt one must not open a connection.
_NO = frozenset(("", "0", "off", "no", "false"))

_HUB = "https://huggingface.co"

#: The user name and password of an address, which no message shows.
_USER = re.compile(r"//[^/?#]*@")


def find_offline_variable() -> str | None:
    """Find the environment variable that forbids downloads.

    Returns:
        The variable with its value, such as `GLAMA_OFFLINE=1`, or None where downloads are allowed.
    """
    for name in OFFLINE_VARIABLES:
        if os.environ.get(name, "").strip().lower() not in _NO:
            return f"{name}={os.environ[name]}"
    return None


def check_address(url: str, subject: str = "") -> None:
    """Check that a file may be downloaded from an address.

    Args:
        url: The address.
        subject: Where the address comes from, for messages; empty: the address itself.

    Raises:
        DownloadError: The address is damaged, contains a password, or is neither https nor of this machine.
    """
    shown = f"{subject}{excerpt(_USER.sub('//…@', url), 200)}"
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
        (host or "").encode("idna")  # as the connection does: a part of the name may be empty or too long
    except ValueError as error:
        raise DownloadError(f"{shown} is not a web address ({error}); https://HOST/FILE is expected") from error
    if parts.username is not None or parts.password is not None:
        raise DownloadError(f"{shown} contains a user name or password; leave it out")
    if not host or not url.isascii() or not url.isprintable() or " " in url:
        raise DownloadError(f"{shown} is not a web address; https://HOST/FILE in ASCII is expected")
    if parts.scheme == "http" and not _is_loopback(host):
        raise DownloadError(f"{shown} is not encrypted; use https (http is allowed for this machine only)")
    if parts.scheme not in ("http", "https"):
        raise DownloadError(f"{shown} has the scheme {excerpt(parts.scheme, 20)}; https is expected")


def list_addresses(urls: Sequence[str], file: str) -> list[str]:
    """List the addresses of a file in the order in which they are tried.

    Args:
        urls: The addresses of the catalogue.
        file: The name of the file, which a mirror has under its base address.

    Returns:
        The mirror of `GLAMA_MODELS_MIRROR` first, then the addresses. `HF_ENDPOINT` replaces https://huggingface.co.

    Raises:
        DownloadError: A variable has no web address that is allowed.
    """
    hub, mirror = (os.environ.get(name, "").rstrip("/") for name in (HUB_VARIABLE, MIRROR_VARIABLE))
    for name, value in ((HUB_VARIABLE, hub), (MIRROR_VARIABLE, mirror)):
        if value:
            check_address(value, f"{name}=")
    found = [f"{mirror}/{quote(file)}"] if mirror else []
    for url in urls:
        found.append(hub + url.removeprefix(_HUB) if hub and url.startswith(f"{_HUB}/") else url)
    return found


def find_host(url: str) -> str:
    """Return the host of an address, with its port, for messages.

    Args:
        url: A checked address.

    Returns:
        Such as `github.com` or `127.0.0.1:8000`.
    """
    return urlsplit(url).netloc


def is_on_this_machine(url: str) -> bool:
    """Tell whether an address is of this machine.

    Args:
        url: A checked address.

    Returns:
        True for `localhost` and for addresses of the loopback interface.
    """
    return _is_loopback(urlsplit(url).hostname or "")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
