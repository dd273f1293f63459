"""glama-serve: a page and interfaces that fill the missing pixels of pictures."""

from __future__ import annotations

import ipaddress
import re
import socket
import webbrowser
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

from glama_deploy.catalogue import PRECISIONS, join_names
from glama_deploy.cli.entry import SIGNAL_EXIT_CODE_BASE, Command, option
from glama_deploy.cli.options.engine import DeviceName, EngineName, ThreadCount
from glama_deploy.cli.options.named_models import ModelNames, name_models
from glama_deploy.cli.output.console import Console
from glama_deploy.errors import GlamaError
from glama_deploy.runtime.base import require
from glama_deploy.server.settings import (
    DEFAULT_MAX_BYTES,
    DEFAULT_MAX_PIXELS,
    DEFAULT_PORT,
    DEFAULT_QUEUE,
    DEFAULT_TIMEOUT_SECONDS,
    Settings,
)

#: The packages of the extra `serve`, by their modules.
_PACKAGES = {
    "fastapi": "FastAPI",
    "uvicorn": "uvicorn",
    "python_multipart": "python-multipart",
    "prometheus_client": "prometheus-client",
}


def glama_serve(
    model: ModelNames = ["default"],  # noqa: B006 - typer copies it
    host: Annotated[
        str, option("--host", help="Address to listen at. 0.0.0.0 lets other machines connect: give --token, too.")
    ] = "127.0.0.1",
    port: Annotated[
        int, option("--port", help="Port to listen at; 0 for any that is free.", min=0, max=65535)
    ] = DEFAULT_PORT,
    opens: Annotated[bool, option("--open/--no-open", help="Open the page in a browser.")] = True,
    token: Annotated[
        str | None,
        option(
            "--token",
            help="What clients must present. Better in the environment, where other users cannot see it.",
            envvar="GLAMA_TOKEN",
        ),
    ] = None,
    backend: EngineName = "auto",
    device: DeviceName = None,
    precision: Annotated[
        str, option("--precision", help=f"Precision at the start: {join_names(('auto', *PRECISIONS))}.")
    ] = "auto",
    threads: ThreadCount = None,
    streams: Annotated[
        int,
        option(
            "--streams",
            help="Pictures filled at once. More fill more pictures an hour, and each takes longer.",
            min=1,
            max=64,
        ),
    ] = 1,
    queue: Annotated[
        int, option("--queue", help="Requests that may wait; others get 503.", min=0, max=10_000)
    ] = DEFAULT_QUEUE,
    max_bytes: Annotated[int, option("--max-bytes", help="Largest body of a request.", min=1024)] = DEFAULT_MAX_BYTES,
    max_pixels: Annotated[int, option("--max-pixels", help="Largest picture.", min=256)] = DEFAULT_MAX_PIXELS,
    timeout: Annotated[
        float, option("--timeout", help="Seconds in which a client must send a request.", min=0.1, max=86_400)
    ] = DEFAULT_TIMEOUT_SECONDS,
    output_dir: Annotated[
        Path | None, option("--output-dir", help="Folder that clients may save pictures into. Without it they may not.")
    ] = None,
    input: Annotated[  # the name of IOPaint's option
        Path | None, option("--input", help="Picture, or folder of pictures, that is offered to IOPaint's clients.")
    ] = None,
    allow_host: Annotated[
        list[str], option("--allow-host", help="Host name of this server, such as photos.example.org; * for any.")
    ] = [],  # noqa: B006
    allow_origin: Annotated[
        list[str], option("--allow-origin", help="Web origin whose pages may use this server (CORS).")
    ] = [],  # noqa: B006
) -> int:
    """Serve a page, a REST interface, and the interfaces of IOPaint 1.6 and lama-cleaner.

    The server ends at Ctrl-C or SIGTERM, after the requests that it began; a second Ctrl-C does not wait for them.
    docs/serving.md has the reference.
    """
    for module, name in _PACKAGES.items():
        require(module, name, "pip install 'glama-deploy[serve]'")
    from glama_deploy.server.observing import start_access_log
    from glama_deploy.server.run import open_socket, serve

    settings = Settings(
        models=name_models(model),
        backend=backend,
        device=device,
        precision=precision,
        threads=threads,
        streams=streams,
        queue=queue,
        max_bytes=max_bytes,
        max_pixels=max_pixels,
        timeout=timeout,
        token=_check_token(token),
        output_dir=_check_folder(output_dir),
        input=_check_input(input),
        allowed_hosts=(*allow_host, *(() if _is_address(host) else (host,))),
        allowed_origins=tuple(allow_origin),
    )
    console = Console(stderr=True)
    with open_socket(host, port) as listener:
        address = _describe_address(host, listener)
        console.print(f"listening at {address}", soft_wrap=True)
        if not settings.token and not _is_loopback(listener):
            console.print(
                "warning: other machines can use this server; give --token, or listen at 127.0.0.1", style="bold"
            )

        def greet(description: str) -> None:
            console.print(f"ready: {description}")
            page = f"{address}/?token={quote(settings.token, safe='')}" if settings.token else f"{address}/"
            console.print(f"page: {page}", soft_wrap=True)
            if opens:
                webbrowser.open(page)

        start_access_log()
        second_signal = serve(settings, listener, greet)
    if second_signal is not None:
        console.print("ended without waiting; requests that were begun are not answered")
        return SIGNAL_EXIT_CODE_BASE + second_signal
    console.print("ended; all requests were answered")
    return 0


def _check_token(token: str | None) -> str | None:
    if token and not re.fullmatch(r"[!-~]+", token):
        raise GlamaError("`token` has spaces or other characters than ASCII; use letters, digits and punctuation")
    return token or None


def _check_folder(path: Path | None) -> Path | None:
    if path is not None and not path.is_dir():
        raise GlamaError(f"`output_dir` {path} is not a folder; make it first")
    return path


def _check_input(path: Path | None) -> Path | None:
    if path is not None and not path.exists():
        raise GlamaError(f"no picture or folder at `input` {path}; check the path")
    return path


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_loopback(listener: socket.socket) -> bool:
    return ipaddress.ip_address(listener.getsockname()[0].partition("%")[0]).is_loopback


def _describe_address(host: str, listener: socket.socket) -> str:
    """Return the address for a browser on this machine."""
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{shown}:{listener.getsockname()[1]}"


main = Command("glama-serve", glama_serve)
