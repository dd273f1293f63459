"""The settings of a server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

#: The port that IOPaint and its clients use.
DEFAULT_PORT = 8080

#: Requests that may wait beside those that run.
DEFAULT_QUEUE = 32

#: The largest body of a request in bytes: a photograph of 24 megapixels as PNG is about 40 MB, in base64 53 MB.
DEFAULT_MAX_BYTES = 64 << 20

#: The largest picture in pixels.
DEFAULT_MAX_PIXELS = 64_000_000

#: Seconds in which a client must send a request, and take each part of the answer.
DEFAULT_TIMEOUT_SECONDS = 60.0

#: A batch may have this many times the bytes of a single request.
BATCH_BODIES = 8

#: Batches in flight. Their files lie in temporary files while they wait.
MAX_BATCHES = 2

#: Pairs of a picture and a mask in one batch.
MAX_BATCH_PAIRS = 256


@dataclass(frozen=True)
class Settings:
    """The settings of a server. The defaults are safe on a machine that others can reach.

    Attributes:
        models: names that clients use, each with the bundle or checkpoint on this machine. The first is opened first.
        backend: the engine, as :func:`glama_deploy.load` takes it.
        device: where the engine computes, as `load` takes it.
        precision: the precision at the start, as `load` takes it.
        threads: CPU threads of the engine; None for all.
        streams: pictures that are filled at once.
        queue: requests that may wait.
        max_bytes: the largest body of a request.
        max_pixels: the largest picture, in pixels.
        timeout: seconds in which a client must send a request, and take each part of the answer.
        token: what clients must present; None: nothing.
        output_dir: the folder that clients may save pictures into; None: they may not.
        input: a picture, or a folder of pictures, that is offered to clients; None: nothing.
        allowed_hosts: host names in the header `Host`, beside localhost and IP addresses; `*` for any.
        allowed_origins: web origins whose pages may use the server, such as `https://example.org`.
        frame_ancestors: web origins that may show the page in a frame.
    """

    models: Mapping[str, str] = field(default_factory=lambda: {"default": "default"})
    backend: str = "auto"
    device: str | None = None
    precision: str = "auto"
    threads: int | None = None
    streams: int = 1
    queue: int = DEFAULT_QUEUE
    max_bytes: int = DEFAULT_MAX_BYTES
    max_pixels: int = DEFAULT_MAX_PIXELS
    timeout: float = DEFAULT_TIMEOUT_SECONDS
    token: str | None = None
    output_dir: Path | None = None
    input: Path | None = None
    allowed_hosts: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    frame_ancestors: tuple[str, ...] = ()
