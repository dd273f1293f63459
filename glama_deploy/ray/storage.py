"""Folders and object stores, which have one address each: a path, or an address such as `s3://bucket/folder`.

fsspec opens the addresses. Its packages for object stores raise exceptions of their own, so every exception of theirs
becomes a GlamaError that names the address.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

from glama_deploy.errors import GlamaError
from glama_deploy.io.files import PREFIX, atomic_file, write_error
from glama_deploy.runtime.base import require
from glama_deploy.text.excerpts import describe_error, first_line

#: The scheme of an address. A letter alone is a drive of Windows.
_SCHEME = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]+)://")

#: fsspec's names of storages in which an object appears whole, once all of its bytes are there.
_OBJECT_STORES = frozenset(("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss", "oci", "tos"))

#: fsspec's names of storages that can only be read.
_READ_ONLY = frozenset(("http", "https", "github", "zip", "tar"))


def is_remote(address: str) -> bool:
    """Return whether an address is not a path of this machine.

    Args:
        address: the address.

    Returns:
        True for an address with a scheme other than `file`.
    """
    found = _SCHEME.match(address)
    return found is not None and found["scheme"].lower() not in ("file", "local")


def join(folder: str, name: str) -> str:
    """Return the address of a file in a folder.

    Args:
        folder: the address of the folder.
        name: the name of the file below the folder, with slashes.

    Returns:
        The address of the file.
    """
    return f"{folder.rstrip('/')}/{name}"


@contextmanager
def _explain(action: str, address: str) -> Iterator[None]:
    """Turn every error of a storage into a GlamaError that says what was done and what to do."""
    try:
        yield
    except GlamaError:
        raise
    except FileNotFoundError as error:
        raise GlamaError(f"cannot {action} {address}: it does not exist; check the address") from error
    except PermissionError as error:
        raise GlamaError(
            f"cannot {action} {address}: permission denied; check the credentials, and the rights of the account"
        ) from error
    except ImportError as error:
        raise GlamaError(f"cannot {action} {address}: a package is missing ({error}); pip install it") from error
    except Exception as error:  # each package of a storage has exceptions of its own
        raise GlamaError(
            f"cannot {action} {address}: {describe_error(error)}; check the address, network and credentials"
        ) from error


class Storage:
    """A folder of a file system or an object store.

    Args:
        address: the address of the folder.

    Raises:
        GlamaError: the scheme of the address is unknown, or its package is not installed.
    """

    def __init__(self, address: str) -> None:
        require("fsspec", "fsspec", "pip install 'glama-deploy[ray]'")
        from fsspec.core import url_to_fs

        self.address = address
        self._files: Any
        with _explain("open", address):
            self._files, self._root = url_to_fs(address)
        protocol = self._files.protocol
        self._protocols = {protocol} if isinstance(protocol, str) else set(protocol)

    def _place(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}" if name else self._root

    def list_names(self, *, recursive: bool) -> list[str]:
        """List the files below the folder. Links to folders are not followed.

        `find` and `walk` of fsspec leave out folders that may not be read, so each folder is listed by itself.

        Args:
            recursive: whether the files of subfolders are listed, too.

        Returns:
            Names relative to the folder, in order. Empty if the folder does not exist.

        Raises:
            GlamaError: the folder cannot be listed.
        """
        with _explain("list", self.address):
            self._files.invalidate_cache()
            try:
                return sorted(self._walk(recursive=recursive))
            except FileNotFoundError:
                return []

    def _walk(self, *, recursive: bool) -> Iterator[str]:
        root = self._root.rstrip("/")
        folders = [root]
        while folders:
            for entry in self._files.ls(folders.pop(), detail=True):
                path = entry["name"].rstrip("/")
                if path == root or not path.startswith(f"{root}/"):
                    continue  # the folder's own object, or a file that is listed as a folder
                if entry["type"] != "directory":
                    yield path[len(root) + 1 :]
                elif recursive and not entry.get("islink"):
                    folders.append(path)

    def is_file(self, name: str = "") -> bool:
        """Return whether a file exists.

        Args:
            name: the name of the file below the folder. Empty: the address itself.

        Returns:
            True for a file, False for a folder and where nothing is.

        Raises:
            GlamaError: the storage cannot be asked.
        """
        with _explain("look for", join(self.address, name) if name else self.address):
            try:
                return self._files.info(self._place(name))["type"] == "file"
            except FileNotFoundError:
                return False

    def find_matches(self) -> list[str]:
        """List the files that the address matches as a pattern with `*`.

        Returns:
            Their addresses, in order.

        Raises:
            GlamaError: the storage cannot be listed.
        """
        with _explain("list", self.address):
            found = sorted(self._files.glob(self._root))
        return found if self._protocols & {"file", "local"} else [self._files.unstrip_protocol(path) for path in found]

    def read(self, name: str = "") -> bytes:
        """Read a file.

        Args:
            name: the name of the file below the folder. Empty: the address itself.

        Returns:
            The bytes of the file.

        Raises:
            GlamaError: the file cannot be read.
        """
        with _explain("read", join(self.address, name) if name else self.address):
            return bytes(self._files.cat_file(self._place(name)))

    def write(self, name: str, data: bytes) -> None:
        """Write a file completely or not at all.

        Args:
            name: the name of the file below the folder.
            data: the bytes of the file.

        Raises:
            GlamaError: the file cannot be written. A file of this name is as it was before.
        """
        place = self._place(name)
        if self._protocols & {"file", "local"}:
            _write_local(Path(place), data)
            return
        if self._protocols & _READ_ONLY:
            raise GlamaError(f"cannot write {self.address}: such an address can only be read; choose another `out`")
        with _explain("write", join(self.address, name)):
            if self._protocols & _OBJECT_STORES:
                self._files.pipe_file(place, data)
                return
            folder, _, last = place.rpartition("/")
            self._files.makedirs(folder, exist_ok=True)
            temporary = f"{folder}/{PREFIX}{secrets.token_hex(4)}.tmp"
            self._files.pipe_file(temporary, data)
            self._files.mv(temporary, f"{folder}/{last}")


def _write_local(path: Path, data: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(path, error) from error
    with atomic_file(path) as temporary:
        temporary.write_bytes(data)


@lru_cache(maxsize=64)
def open_storage(address: str) -> Storage:
    """Return the storage of an address, which is opened once in a process.

    Args:
        address: the address of the folder.

    Returns:
        The storage.

    Raises:
        GlamaError: as :class:`Storage` says.
    """
    return Storage(address)


def read_file(address: str) -> bytes:
    """Read a file by its address.

    Args:
        address: the address of the file.

    Returns:
        The bytes of the file.

    Raises:
        GlamaError: the file cannot be read.
    """
    folder, _, name = address.rpartition("/")
    return open_storage(folder or "/").read(name)


@contextmanager
def open_file(address: str) -> Iterator[IO[bytes]]:
    """Open a file by its address, in order to read it in parts.

    Args:
        address: the address of the file.

    Yields:
        The open file.

    Raises:
        GlamaError: the file cannot be opened, or the block finds damage.
    """
    import fsspec

    try:
        with fsspec.open(address, "rb") as opened:
            yield opened
    except GlamaError:
        raise
    except Exception as error:  # each format, and each package of a storage, has exceptions of its own
        reason = first_line(error).rstrip(".")
        raise GlamaError(
            f"{address} cannot be read ({reason}); repair the file or the connection, or leave the file out"
        ) from error
