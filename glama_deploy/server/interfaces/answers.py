"""The answer with a filled picture, which all interfaces give."""

from __future__ import annotations

import time
from collections.abc import Mapping

from starlette.responses import Response

from glama_deploy.server.work.filling import Filled


def make_response(filled: Filled, start: float, headers: Mapping[str, str] | None = None) -> Response:
    """Return a filled picture, with headers that tell how it was filled.

    Args:
        filled: the filled picture.
        start: the time at which the request came, of `time.perf_counter()`.
        headers: further headers.

    Returns:
        The answer. `X-Glama-Seconds` are those of the network.
    """
    told = {
        "X-Glama-Seconds": f"{filled.seconds['network']:.4f}",
        "X-Glama-Queued-Seconds": f"{filled.seconds['queue']:.4f}",
        "X-Glama-Total-Seconds": f"{time.perf_counter() - start:.4f}",
        "X-Glama-Engine": filled.description.encode("ascii", "replace").decode(),
    }
    return Response(filled.data, media_type=filled.media_type, headers={**told, **(headers or {})})
