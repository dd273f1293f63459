"""Download a file over HTTP, and continue a download that was cut off.

The bytes go into a file `NAME.part`. Beside it, `NAME.part.json` has the address and the server's mark of the content
(ETag or Last-Modified). A later download asks for the missing bytes only (`Range`). It sends the mark (`If-Range`), so
a server whose file has changed sends the whole file. Nothing here decides whether the content is right: the caller
compares the SHA-256.
"""

from __future__ import annotations

import email.utils
import errno
import http.client
import json
import logging
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import glama_deploy
from glama_deploy.checkpoints.published.addresses import check_address, find_host, is_on_this_machine
from glama_deploy.errors import DownloadError
from glama_deploy.io.files import write_error
from glama_deploy.text.excerpts import excerpt, first_line

log = logging.getLogger("glama_deploy")

#: Is called with the bytes that are there, and the bytes of the whole file (None where the server does not say).
Report = Callable[[int, "int | None"], None]

#: Bytes that are read and written at once.
_CHUNK_BYTES = 1 << 18

#: No model is larger. A server may send without end.
MAX_BYTES = 8 << 30

#: Times that one address may make a download begin again, because the file changes or ranges are not supported.
_MAX_RESTARTS = 5

#: Errors of a flush of what has nothing to flush, such as a pipe or a device.
_WITHOUT_FLUSH = frozenset((errno.EINVAL, errno.ENOTSUP))

#: Answers after which the same address may succeed later.
_BUSY = frozenset((408, 425, 429, 500, 502, 503, 504))


class AddressFailedError(DownloadError):
    """An address that does not give the file. Another one may."""


class _UnreachableError(AddressFailedError):
    """A host that cannot be connected to. After an answer of the host, the same address may succeed after a pause."""

    pause: float | None = None


class _BrokenOffError(Exception):
    """A connection that broke off, or a server that is busy. The same address may succeed after a pause.

    Args:
        reason: what happened.
        pause: seconds that the server asks for; None: it does not say.
    """

    def __init__(self, reason: str, pause: float | None = None) -> None:
        super().__init__(reason)
        self.pause = pause


@dataclass(frozen=True)
class Patience:
    """How often and how long a download is tried again.

    Attributes:
        attempts: attempts in turn that bring no byte, before the next address is tried.
        first_pause: seconds before the second attempt. Each further pause is twice as long.
        longest_pause: seconds; a server that asks for a longer pause (`Retry-After`) is left out.
        timeout: seconds without a byte after which a connection counts as broken.
    """

    attempts: int = 5
    first_pause: float = 0.5
    longest_pause: float = 60.0
    timeout: float = 30.0


@dataclass(frozen=True)
class Transfer:
    """A download into a file.

    Attributes:
        part: the file for the bytes. Bytes that are there are continued.
        size_bytes: size of the whole file; None if not exactly known.
        report: is called with the progress.
        patience: how often the download is tried again.
    """

    part: Path
    size_bytes: int | None = None
    report: Report = lambda done, total: None
    patience: Patience = Patience()

    @property
    def mark(self) -> Path:
        """The file with the address and the server's mark of the content."""
        return self.part.with_name(f"{self.part.name}.json")

    @property
    def done(self) -> int:
        """The bytes that are there."""
        return self.part.stat().st_size if self.part.exists() else 0

    def discard(self) -> None:
        """Remove the bytes that are there."""
        for path in (self.mark, self.part):
            path.unlink(missing_ok=True)


def download(url: str, transfer: Transfer) -> None:
    """Download a file, or what is missing of the file.

    Args:
        url: A checked address.
        transfer: Where the bytes go.

    Raises:
        AddressFailedError: The address does not give the file.
        GlamaError: The bytes cannot be written.
    """
    patience = transfer.patience
    failures, restarts, was_reached = 0, 0, False
    while True:
        before = transfer.done
        try:
            _receive(url, transfer)
            return
        except (_BrokenOffError, _UnreachableError) as error:
            if isinstance(error, _UnreachableError) and not was_reached:
                raise
            was_reached = True
            failures = 1 if transfer.done > before else failures + 1
            restarts += transfer.done < before
            if restarts > _MAX_RESTARTS:
                raise AddressFailedError(f"{error}; the download began again {_MAX_RESTARTS} times") from error
            pause = error.pause if error.pause is not None else patience.first_pause * 2 ** (failures - 1)
            if failures >= patience.attempts or pause > patience.longest_pause:
                asked = f", and asks for a pause of {error.pause:.0f} s" if error.pause else ""
                raise AddressFailedError(f"{error}{asked}") from error
            log.warning("%s: %s; trying again in %.1f s", url, error, pause)
        time.sleep(pause)


def _receive(url: str, transfer: Transfer) -> None:
    """Ask once for the bytes that are missing, and write them."""
    there = transfer.done
    with _open(url, _name_range(url, transfer), transfer.patience.timeout) as (answer, status):
        if status == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            if _read_range(answer, r"bytes \*/(\d+)") == (there,):
                return  # all bytes were there already
            transfer.discard()
            raise _BrokenOffError("the server refuses to continue the download", pause=0)
        begin, total = 0, _read_length(answer)
        if status == http.client.PARTIAL_CONTENT:
            found = _read_range(answer, r"bytes (\d+)-\d+/(\d+)")
            if found is None or found[0] != there or not _has_same_mark(answer, url, transfer):
                transfer.discard()
                raise _BrokenOffError("the file has changed since the download began", pause=0)
            begin, total = found
        if transfer.size_bytes is not None and total not in (None, transfer.size_bytes):
            raise AddressFailedError(f"the file has {total} bytes; {transfer.size_bytes} are expected")
        if begin == 0:
            _write_mark(url, answer, transfer)
        _write(answer, transfer, begin, total)


def _name_range(url: str, transfer: Transfer) -> dict[str, str]:
    """Return the headers that ask for the missing bytes alone. Another address is asked without its mark."""
    if not transfer.done:
        return {}
    mark = _read_mark(transfer)
    condition = mark.get("etag") or mark.get("last_modified") if mark.get("url") == url else None
    return {"Range": f"bytes={transfer.done}-", **({"If-Range": condition} if condition else {})}


@contextmanager
def _open(url: str, headers: dict[str, str], timeout: float) -> Iterator[tuple[IO[bytes], int]]:
    """Send a request; give the answer and its status.

    Raises:
        AddressFailedError: the server cannot be reached (`_UnreachableError`), or does not have the file.
        _BrokenOffError: the connection broke off, or the server is busy.
    """
    agent = f"glama-deploy/{glama_deploy.__version__}"
    request = urllib.request.Request(url, headers={"User-Agent": agent, **headers})
    try:
        with urllib.request.build_opener(_Redirects).open(request, timeout=timeout) as answer:
            yield answer, answer.status
    except urllib.error.HTTPError as error:
        with error:
            if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and "Range" in headers:
                yield error, error.code
                return
            said = f"HTTP {error.code} {excerpt(error.reason, 60)}".rstrip()
            if error.code in _BUSY:
                raise _BrokenOffError(said, _read_pause(error)) from error
            raise AddressFailedError(said) from error
    except urllib.error.URLError as error:
        raise _UnreachableError(_describe(error.reason)) from error
    except (OSError, http.client.HTTPException) as error:  # write errors are a GlamaError already
        raise _BrokenOffError(_describe(error)) from error


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follow redirects to addresses that are allowed."""

    def http_error_302(self, req: Any, fp: Any, code: int, msg: str, headers: Any) -> Any:
        """Follow a redirect.

        Args:
            req: the request.
            fp: the answer.
            code: the status.
            msg: the reason.
            headers: the answer's headers.

        Returns:
            The answer of the new address.

        Raises:
            AddressFailedError: the new address is damaged or not allowed.
        """
        try:
            return super().http_error_302(req, fp, code, msg, headers)
        except ValueError as error:  # urllib reads the new address before redirect_request
            raise AddressFailedError(f"the answer leads to a damaged address ({first_line(error, 120)})") from error

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        """Return the next request.

        Args:
            req: the request.
            fp: the answer.
            code: the status.
            msg: the reason.
            headers: the answer's headers.
            newurl: where the answer leads.

        Returns:
            The request for the new address.

        Raises:
            AddressFailedError: the new address is not allowed.
        """
        try:
            check_address(newurl)
        except DownloadError as error:
            raise AddressFailedError(f"the answer leads elsewhere: {error}") from error
        if is_on_this_machine(newurl) and not is_on_this_machine(req.full_url):
            raise AddressFailedError(f"the answer leads to this machine ({find_host(newurl)}), which is not allowed")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _write(answer: IO[bytes], transfer: Transfer, begin: int, total: int | None) -> None:
    """Write the body of an answer behind the first `begin` bytes.

    Raises:
        AddressFailedError: the body is longer than the file.
        _BrokenOffError: the body is shorter than the server promised.
        GlamaError: the bytes cannot be written.
    """
    limit = transfer.size_bytes if transfer.size_bytes is not None else MAX_BYTES
    done = begin
    with _open_part(transfer.part, begin) as write:
        transfer.report(done, total)
        while chunk := answer.read1(_CHUNK_BYTES):  # type: ignore[attr-defined]  # read() would lose what came before
            done += len(chunk)
            if done > limit:
                break
            write(chunk)
            transfer.report(done, total)
    if done > limit:
        transfer.discard()
        raise AddressFailedError(f"the server sends more than {limit} bytes")
    if total is not None and done < total:
        raise _BrokenOffError(f"the connection broke off after {done} of {total} bytes")


@contextmanager
def _open_part(part: Path, begin: int) -> Iterator[Callable[[bytes], None]]:
    """Open the file for the bytes. Gives a function that writes them; its errors are those of the disk.

    Raises:
        GlamaError: the bytes cannot be written.
    """
    try:
        file = part.open("ab" if begin else "wb", buffering=0)
    except OSError as error:
        raise write_error(part, error) from error

    def write(chunk: bytes) -> None:
        rest = memoryview(chunk)
        try:
            while rest:
                rest = rest[file.write(rest) :]
        except OSError as error:
            raise write_error(part, error) from error

    with file:
        yield write
        try:
            os.fsync(file.fileno())
        except OSError as error:
            if error.errno not in _WITHOUT_FLUSH:
                raise write_error(part, error) from error


def _read_mark(transfer: Transfer) -> dict[str, str]:
    """Read the mark beside the bytes; empty where the mark is missing or cut off."""
    try:
        found = json.loads(transfer.mark.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {str(name): value for name, value in found.items() if isinstance(value, str)} if type(found) is dict else {}


def _write_mark(url: str, answer: IO[bytes], transfer: Transfer) -> None:
    """Write the mark for a download that begins. Bytes of an earlier download go first."""
    if transfer.done:
        transfer.discard()
    fields = {"url": url, "etag": _read_etag(answer), "last_modified": _headers(answer).get("Last-Modified")}
    try:
        transfer.mark.write_text(json.dumps({n: v for n, v in fields.items() if v}), encoding="utf-8")
    except OSError as error:
        raise write_error(transfer.mark, error) from error


def _has_same_mark(answer: IO[bytes], url: str, transfer: Transfer) -> bool:
    """Tell whether a part of a file is of the same content. A server without a mark is believed."""
    mark, etag = _read_mark(transfer), _read_etag(answer)
    return mark.get("url") != url or not mark.get("etag") or not etag or etag == mark["etag"]


def _read_etag(answer: IO[bytes]) -> str | None:
    """Return the strong ETag. A weak one does not promise the same bytes."""
    etag = _headers(answer).get("ETag")
    return etag if etag and not etag.startswith("W/") else None


def _read_length(answer: IO[bytes]) -> int | None:
    text = _headers(answer).get("Content-Length", "")
    return int(text) if re.fullmatch(r"\d{1,15}", text) else None


def _read_range(answer: IO[bytes], pattern: str) -> tuple[int, ...] | None:
    match = re.fullmatch(pattern, _headers(answer).get("Content-Range", ""))
    return tuple(map(int, match.groups())) if match else None


def _read_pause(answer: IO[bytes]) -> float | None:
    """Return the seconds of `Retry-After`, which is a number or a date."""
    text = _headers(answer).get("Retry-After", "").strip()
    if re.fullmatch(r"\d{1,9}", text):
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except ValueError:
        return None


def _headers(answer: IO[bytes]) -> Any:
    return answer.headers  # type: ignore[attr-defined]  # answers of urllib are typed as files


def _describe(error: object) -> str:
    """Describe a failed connection in a few words."""
    if isinstance(error, OSError) and error.strerror:
        return excerpt(error.strerror, 120)
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return first_line(error, 120) if isinstance(error, BaseException) else excerpt(str(error), 120)
