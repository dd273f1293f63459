"""Requests to one server over HTTP, with Python's own client.

`tritonclient` would bring gevent, and does not allow the version of protobuf that is pinned here. The protocol of
KServe over HTTP is a JSON header and bytes, which need neither.
"""

from __future__ import annotations

import http.client
import json
import logging
import os
import re
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message
from typing import Any
from urllib.parse import urlsplit

import glama_deploy
from glama_deploy.errors import EngineError
from glama_deploy.text.excerpts import excerpt, first_line

log = logging.getLogger("glama_deploy")

#: The environment variable with the token that a server asks for.
TOKEN_VARIABLE = "GLAMA_TOKEN"

#: Seconds without a byte after which a server counts as gone: one that describes itself, and one that fills a picture,
#: which takes minutes on a small machine if the picture is large.
_GET_TIMEOUT_SECONDS, _POST_TIMEOUT_SECONDS = 20.0, 600.0

#: How often a busy server is asked again, and the longest pause that it may ask for, in seconds.
_MAX_BUSY_ANSWERS, _MAX_PAUSE_SECONDS = 5, 60.0

#: No answer is larger: a picture of the greatest sides, in bytes.
_MAX_ANSWER_BYTES = 1 << 30

#: Longest part of a server's own message that an error repeats, in characters.
_MAX_REASON = 200


@dataclass(frozen=True)
class Answer:
    """An answer of a server.

    Attributes:
        status: the HTTP status.
        headers: the headers, by names in any case.
        body: the bytes.
    """

    status: int
    headers: Message
    body: bytes

    def read_json(self) -> dict[str, Any]:
        """Return the JSON object of the body.

        Returns:
            The object; empty if the body is something else.
        """
        try:
            tree = json.loads(self.body)
        except (ValueError, RecursionError):
            return {}
        return tree if isinstance(tree, dict) else {}

    @property
    def reason(self) -> str:
        """What the server says about a failure, in one line."""
        said = self.read_json().get("error")
        return f"HTTP {self.status}" + (f", {excerpt(said, _MAX_REASON)}" if isinstance(said, str) else "")


class Connection:
    """A server. Each request has a connection of its own, so threads may share this object."""

    def __init__(self, address: str) -> None:
        """Check an address. Nothing is sent.

        Args:
            address: such as `http://host:8000`, or `host:8000`. The path before `/v2` or `/v1` may follow.

        Raises:
            EngineError: the address is not one of HTTP, or contains a password; or the token cannot be a header.
        """
        self.url = _check_address(address)
        token = os.environ.get(TOKEN_VARIABLE, "")
        self._headers = {"User-Agent": f"glama-deploy/{glama_deploy.__version__}"}
        if token:
            if not re.fullmatch(r"[!-~]+", token):
                raise EngineError(f"{TOKEN_VARIABLE} has spaces or characters beyond ASCII; set the token alone")
            self._headers["Authorization"] = f"Bearer {token}"

    def get(self, path: str) -> Answer:
        """Send a request without a body.

        Args:
            path: the path with its slash, such as `/v2`.

        Returns:
            The answer, whatever its status is.

        Raises:
            EngineError: no server answers.
        """
        return self._send(path, None, {})

    def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Send a request with a body. A server that says that it is busy is asked again.

        Args:
            path: the path with its slash.
            body: the bytes.
            headers: further headers.

        Returns:
            The answer, whatever its status is.

        Raises:
            EngineError: no server answers.
        """
        answer = self._send(path, body, headers)
        for _ in range(_MAX_BUSY_ANSWERS):
            pause = _read_pause(answer)
            if pause is None:
                break
            log.info("%s is busy; asking again in %.0f s", self.url, pause)
            time.sleep(pause)
            answer = self._send(path, body, headers)
        return answer

    def _send(self, path: str, body: bytes | None, headers: Mapping[str, str]) -> Answer:
        request = urllib.request.Request(self.url + path, body, {**self._headers, **headers})
        timeout = _GET_TIMEOUT_SECONDS if body is None else _POST_TIMEOUT_SECONDS
        try:
            with _OPENER.open(request, timeout=timeout) as answer:
                return Answer(answer.status, answer.headers, self._read(answer))
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, error.headers, self._read(error))
        except urllib.error.URLError as error:
            raise self._fail(error.reason) from error
        except OSError as error:
            raise self._fail(error) from error
        except http.client.HTTPException as error:
            raise EngineError(
                f"{self.url}: the answer is not HTTP, or broke off; give the server's HTTP address in `server`"
            ) from error

    def _read(self, answer: Any) -> bytes:
        body: bytes = answer.read(_MAX_ANSWER_BYTES + 1)
        if len(body) > _MAX_ANSWER_BYTES:
            raise EngineError(f"{self.url} sent more than {_MAX_ANSWER_BYTES >> 20} MiB; no picture is as large")
        if answer.length:  # http.client tells of a missing rest only where all bytes are asked for
            raise EngineError(f"{self.url} broke off its answer after {len(body)} bytes; run again, or read its log")
        return body

    def _fail(self, reason: object) -> EngineError:
        if isinstance(reason, ssl.SSLCertVerificationError):
            return EngineError(
                f"{self.url} has a certificate that this machine does not accept ({excerpt(reason.verify_message)}); "
                "check the address, or name the certificate's authority in SSL_CERT_FILE"
            )
        strerror = getattr(reason, "strerror", None)
        said = strerror or (first_line(reason) if isinstance(reason, BaseException) else excerpt(reason))
        return EngineError(f"no server answers at {self.url} ({said}); start it, or check the address of `server`")


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Leave redirects to the caller. A token and a picture go to the address of the user only."""

    def redirect_request(self, *arguments: Any) -> None:
        """Refuse a redirect.

        Args:
            *arguments: the request and its answer.
        """


_OPENER = urllib.request.build_opener(_NoRedirects)


def _check_address(address: str) -> str:
    """Return the address of a server without a slash at its end."""
    shown = excerpt(address, _MAX_REASON)
    url = address if "://" in address else f"http://{address}"
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
        (host or "").encode("idna")
    except ValueError as error:
        raise EngineError(f"`server` is {shown!r} ({error}); http://HOST:PORT is expected") from error
    if parts.scheme == "grpc":
        raise EngineError(f"`server` is {shown!r}; gRPC is not supported: give the server's HTTP address")
    if parts.username is not None:
        raise EngineError(f"`server` contains a user name or password; give a token in {TOKEN_VARIABLE} instead")
    is_plain = url.isascii() and url.isprintable() and " " not in url and not parts.query and not parts.fragment
    if parts.scheme not in ("http", "https") or not host or not is_plain:
        raise EngineError(f"`server` is {shown!r}; http://HOST:PORT is expected")
    return url.rstrip("/")


def _read_pause(answer: Answer) -> float | None:
    """Return the seconds after which a busy server wants to be asked again; None if the answer is final."""
    asked = answer.headers.get("Retry-After", "")
    if answer.status != http.client.SERVICE_UNAVAILABLE or not asked.isdecimal():
        return None
    return min(float(asked), _MAX_PAUSE_SECONDS)
