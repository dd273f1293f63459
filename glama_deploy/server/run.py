"""Run the application with uvicorn until a signal ends it. Requests that were begun are finished."""

from __future__ import annotations

import contextlib
import errno
import logging
import signal
import socket
import sys
from collections.abc import Callable, Iterator

import uvicorn
from fastapi import FastAPI

from glama_deploy.errors import GlamaError
from glama_deploy.server.app import make_app
from glama_deploy.server.safety.slow_clients import make_protocol
from glama_deploy.server.settings import Settings

#: Connections that are open at once. Above, uvicorn answers 503.
MAX_CONNECTIONS = 1024

# _OWN_ADDRESS: the option of a socket with which no other program listens at its address, and with which a new server
# may follow one that has just ended. With SO_REUSEADDR, Windows would let a second program listen at an address in use.
# _END_SIGNALS: the signals that ask the server to end. On Windows, Ctrl-Break and a closed console are SIGBREAK.
if sys.platform == "win32":
    _OWN_ADDRESS = socket.SO_EXCLUSIVEADDRUSE
    _END_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGBREAK)
else:
    _OWN_ADDRESS = socket.SO_REUSEADDR
    _END_SIGNALS = (signal.SIGINT, signal.SIGTERM)

#: Connections that the system holds until they are accepted.
_BACKLOG = 128


def open_socket(host: str, port: int) -> socket.socket:
    """Listen at an address.

    Args:
        host: a host name or an IP address.
        port: the port; 0 for any that is free.

    Returns:
        The socket.

    Raises:
        GlamaError: the address is unknown or is in use.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, _OWN_ADDRESS, 1)
            listener.bind(address)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        is_taken = error.errno in (errno.EADDRINUSE, errno.EACCES)
        remedy = "choose another `port`" if is_taken else "check `host` and `port`"
        raise GlamaError(f"cannot listen at {host} port {port}: {error.strerror}; {remedy}") from error
    listener.listen(_BACKLOG)
    return listener


def make_config(app: FastAPI, settings: Settings) -> uvicorn.Config:
    """Return the configuration of uvicorn.

    Args:
        app: the application.
        settings: the settings of the application.

    Returns:
        The configuration.
    """
    return uvicorn.Config(
        app,
        http=make_protocol(settings.timeout),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # what a client says about itself
        limit_concurrency=MAX_CONNECTIONS,
        timeout_graceful_shutdown=None,
    )


class _GracefulServer(uvicorn.Server):
    """Ends at a signal as after success. uvicorn would raise the signal again when all is done."""

    def __init__(self, config: uvicorn.Config, on_end: Callable[[], None]) -> None:
        """Keep what is called at the first signal.

        Args:
            config: the configuration.
            on_end: is called in the main thread, before the server waits for its connections.
        """
        super().__init__(config)
        self._on_end = on_end
        self.second_signal: int | None = None

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Note the signals that ask the process to end. A second one ends it without waiting.

        Yields:
            Nothing. At the end the signals have their former actions.
        """

        def end(number: int, frame: object) -> None:
            if self.should_exit:
                self.force_exit, self.second_signal = True, number
                # uvicorn would log a traceback for each request that is cut off
                logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
            self.should_exit = True
            self._on_end()

        before = {number: signal.signal(number, end) for number in _END_SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def serve(settings: Settings, listener: socket.socket, on_ready: Callable[[str], None]) -> int | None:
    """Serve until a signal asks the process to end. Call this function in the main thread.

    Args:
        settings: the settings.
        listener: the socket of :func:`open_socket`.
        on_ready: is called with the engine's description when the engine is open.

    Returns:
        The number of a second signal, which ended the server without waiting; None if all requests were answered.

    Raises:
        GlamaError: the model cannot be opened.
    """
    failures: list[BaseException] = []

    def end(error: BaseException) -> None:
        failures.append(error)
        server.should_exit = True

    app = make_app(settings, on_ready=on_ready, on_failure=end)
    server = _GracefulServer(make_config(app, settings), app.state.server.close)
    server.run([listener])
    if failures:
        raise failures[0]
    return server.second_signal
