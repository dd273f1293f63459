"""Guards around the application: who may ask, how much may be sent, and what a browser may do with an answer.

Each guard is an ASGI application around the next one. :func:`glama_deploy.server.app.make_app` puts them in order.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import time
from contextlib import suppress
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from glama_deploy.server.errors import ApiError, make_error_response
from glama_deploy.server.settings import BATCH_BODIES, Settings

#: The name of the cookie that stands for the token.
COOKIE = "glama_token"

#: Paths that need no token: probes, and the page, which has no secrets.
_OPEN_PATHS = frozenset({"/healthz", "/readyz", "/", "/favicon.ico"})
_OPEN_FOLDER = "/page/"

#: The path that may send larger bodies.
_BATCH_PATH = "/v1/batch"

#: Paths whose bodies are a few fields, and the bytes that these bodies may have.
_FIELD_PATHS = frozenset({"/v1/model", "/api/v1/model", "/model"})
_MAX_FIELD_BYTES = 64 << 10

#: Digits of a length that are read. More of them are a length that no server takes.
_MAX_LENGTH_DIGITS = 20

_CONTENT_SECURITY_POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; worker-src 'self' blob:; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors {ancestors}"
)


class Gate:
    """Lets a request pass that comes from an allowed host name and origin, and has the token."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        """Read the settings.

        Args:
            app: the application behind the gate.
            settings: the settings.
        """
        self._app, self._settings = app, settings
        self._hosts = {"localhost", *(host.lower() for host in settings.allowed_hosts)}
        self._cookie = _derive_cookie(settings.token) if settings.token else ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request pass, or answer it with an error.

        Args:
            scope: the request.
            receive: receives the body.
            send: sends the answer.
        """
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # a web socket, which no interface here has; uvicorn answers 403
            return
        headers = Headers(scope=scope)
        try:
            self._check_host(headers)
            self._check_origin(scope, headers)
            if self._settings.token and (redirect := self._exchange_token(scope)) is not None:
                await redirect(scope, receive, send)
                return
            self._check_token(scope, headers)
        except ApiError as error:
            await make_error_response(scope["path"], error)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _check_host(self, headers: Headers) -> None:
        """Refuse a host name that is not this server's: a page of an attacker, whose name leads here (DNS rebinding).

        An IP address is not a name that someone else can point here.
        """
        for host in headers.getlist("host"):
            name = _strip_port(host)
            if not (name in self._hosts or "*" in self._hosts or _is_address(name)):
                raise ApiError(
                    421, "host", "the header `Host` names another server; start glama-serve with --allow-host NAME"
                )

    def _check_origin(self, scope: Scope, headers: Headers) -> None:
        """Refuse a page of another origin that makes the browser of a user send requests."""
        origin = headers.get("origin")
        if origin is None or origin in self._settings.allowed_origins:
            return
        if scope["method"] in ("GET", "HEAD") or origin.partition("://")[2] == headers.get("host"):
            return
        raise ApiError(
            403, "origin", "the request comes from a page of another origin; start glama-serve with --allow-origin"
        )

    def _exchange_token(self, scope: Scope) -> RedirectResponse | None:
        """Return a redirect that sets the cookie, where the query of the page has the token."""
        if scope["path"] != "/" or scope["method"] != "GET":
            return None
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = [value for name, value in query if name == "token"]
        if not given:
            return None
        if not _is_equal(given[0], self._settings.token or ""):
            raise ApiError(401, "token", "the token in the address is wrong; take the address that glama-serve printed")
        rest = urlencode([pair for pair in query if pair[0] != "token"])
        response = RedirectResponse(f"./?{rest}" if rest else "./", 303)  # also below a path of a proxy
        is_secure = scope.get("scheme") == "https"
        response.set_cookie(COOKIE, self._cookie, httponly=True, samesite="strict", secure=is_secure, path="/")
        return response

    def _check_token(self, scope: Scope, headers: Headers) -> None:
        token, path = self._settings.token, scope["path"]
        if not token or path in _OPEN_PATHS or path.startswith(_OPEN_FOLDER):
            return
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and _is_equal(given.strip(), token):
            return
        if any(_is_equal(value, self._cookie) for value in _find_cookies(headers)):
            return
        raise ApiError(
            401,
            "token",
            "the token is missing or wrong; send the header `Authorization: Bearer TOKEN`, or open /?token=TOKEN",
            {"WWW-Authenticate": "Bearer"},
        )


def _derive_cookie(token: str) -> str:
    """Return the value of the cookie. It stands for the token, and does not tell it."""
    return hmac.new(token.encode(), b"glama-serve cookie", hashlib.sha256).hexdigest()


def _is_equal(given: str, wanted: str) -> bool:
    """Compare two secrets in constant time."""
    return hmac.compare_digest(given.encode("utf-8", "replace"), wanted.encode())


def _find_cookies(headers: Headers) -> list[str]:
    found = []
    for header in headers.getlist("cookie"):
        try:
            cookies = SimpleCookie(header)
        except CookieError:
            continue
        if COOKIE in cookies:
            found.append(cookies[COOKIE].value)
    return found


def _strip_port(host: str) -> str:
    name = host.strip().lower()
    if name.startswith("["):
        return name.partition("]")[0].removeprefix("[")
    return name.partition(":")[0].removesuffix(".")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class BodyLimit:
    """Bounds the bytes and the seconds of a body while it is received."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        """Read the settings.

        Args:
            app: the application behind the limit.
            settings: the settings.
        """
        self._app, self._settings = app, settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, with its body bounded.

        Args:
            scope: the request.
            receive: receives the body.
            send: sends the answer.
        """
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = _BoundedBody(receive, self._find_limit(scope["path"]), self._settings.timeout, Headers(scope=scope))

        async def send_and_close(message: Message) -> None:
            if message["type"] == "http.response.start":
                await body.finish()
                if not body.is_complete:
                    # uvicorn would read the rest of the body for as long as the client likes
                    MutableHeaders(scope=message)["connection"] = "close"
            await send(message)

        await self._app(scope, body.receive, send_and_close)

    def _find_limit(self, path: str) -> int:
        """Return the bytes that a body may have."""
        if path in _FIELD_PATHS:
            return min(_MAX_FIELD_BYTES, self._settings.max_bytes)
        return self._settings.max_bytes * (BATCH_BODIES if path == _BATCH_PATH else 1)


class _BoundedBody:
    """A body that ends with an ApiError where it is too long or too slow.

    Args:
        receive: receives a part of the body.
        most: the bytes that the body may have.
        seconds: the seconds in which the body must arrive.
        headers: the headers of the request.
    """

    def __init__(self, receive: Receive, most: int, seconds: float, headers: Headers) -> None:
        self._receive, self._most, self._seconds = receive, most, seconds
        self._end = time.monotonic() + seconds
        self._count = 0
        length = headers.get("content-length", "")[:_MAX_LENGTH_DIGITS]
        self._announced = int(length) if length.isascii() and length.isdigit() else 0
        self._waits = headers.get("expect", "").lower() == "100-continue"
        has_body = self._announced > 0 or "transfer-encoding" in headers
        self.is_complete = not has_body

    async def receive(self) -> Message:
        """Receive a part of the body, or the news that the client left.

        Returns:
            The message.

        Raises:
            ApiError: the body is too long or too slow.
        """
        if self.is_complete:
            return await self._receive()
        if self._announced > self._most:
            raise self._describe_long()
        message = await self._receive_in_time()
        if self._count > self._most:
            raise self._describe_long()
        return message

    async def finish(self) -> None:
        """Take the rest of a body that the application did not read.

        A client that still sends would not see the answer if the connection was closed.
        """
        if not (self._waits and self._count == 0):
            with suppress(ApiError):
                await self._discard()

    async def _receive_in_time(self) -> Message:
        try:
            message = await asyncio.wait_for(self._receive(), max(0.0, self._end - time.monotonic()))
        except asyncio.TimeoutError as error:
            raise ApiError(
                408, "timeout", f"the request took longer than {self._seconds:g} s to arrive; send it faster"
            ) from error
        self._count += len(message.get("body", b""))
        self.is_complete = not message.get("more_body", False)
        return message

    async def _discard(self) -> None:
        """Receive the rest, as far as the bounds allow."""
        while not self.is_complete and self._count <= 2 * self._most:
            await self._receive_in_time()

    def _describe_long(self) -> ApiError:
        return ApiError(
            413,
            "bytes",
            f"the request has more than {self._most} bytes, the limit of this path; send a smaller file, or a JPEG",
        )


class SecureHeaders:
    """Adds the headers that keep browsers from doing what the page does not need."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        """Read the settings.

        Args:
            app: the application whose answers get the headers.
            settings: the settings.
        """
        self._app = app
        ancestors = " ".join(settings.frame_ancestors) or "'none'"
        self._headers = {
            "content-security-policy": _CONTENT_SECURITY_POLICY.format(ancestors=ancestors),
            "x-content-type-options": "nosniff",
            "referrer-policy": "no-referrer",
            "cross-origin-resource-policy": "cross-origin" if settings.allowed_origins else "same-origin",
        }
        if not settings.frame_ancestors:
            self._headers["x-frame-options"] = "DENY"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and add the headers to the answer.

        Args:
            scope: the request.
            receive: receives the body.
            send: sends the answer.
        """

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers.setdefault(name, value)
                # a browser asks whether a file of the page has changed, and keeps no pictures
                headers.setdefault(
                    "cache-control", "no-cache" if scope["path"].startswith(_OPEN_FOLDER) else "no-store"
                )
            await send(message)

        await self._app(scope, receive, send_with_headers if scope["type"] == "http" else send)
