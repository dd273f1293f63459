"""What the server tells its operator: a log line and metrics for each request. Neither has data of pictures."""

from __future__ import annotations

import json
import logging
import sys
import time
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from glama_deploy.server.errors import CLIENT_CLOSED_REQUEST, ClientGoneError
from glama_deploy.server.work.engine import Engine
from glama_deploy.server.work.waiting_line import WaitingLine

#: The log of requests: a line of JSON each.
access_log = logging.getLogger("glama_deploy.server.access")

#: Bounds of the histograms, in seconds.
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)

#: Where a request's record lies in its scope.
_RECORD = "glama_record"


@dataclass
class Record:
    """What is noted about a request while it is answered.

    Attributes:
        seconds: seconds of each stage.
        details: further entries of the log line.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)


def find_record(scope: Scope) -> Record:
    """Return the record of a request.

    Args:
        scope: the request.

    Returns:
        The record.
    """
    record: Record = scope.setdefault(_RECORD, Record())
    return record


class Metrics:
    """The metrics of one server, in the format of Prometheus."""

    def __init__(self, line: WaitingLine, engine: Engine) -> None:
        """Make the metrics.

        Args:
            line: the waiting line, whose length is shown.
            engine: the engine, whose readiness is shown.
        """
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)  # memory, CPU seconds, open files
        PlatformCollector(registry=self._registry)
        self._requests = Counter(
            "glama_requests",
            "Requests by path, method and status.",
            ("path", "method", "status"),
            registry=self._registry,
        )
        self._seconds = Histogram(
            "glama_stage_seconds",
            "Seconds of a request's stages: total, queue, decode, network, encode.",
            ("stage",),
            buckets=_BUCKETS,
            registry=self._registry,
        )
        for name, text, value in (
            ("glama_queue_length", "Requests that wait.", lambda: line.length),
            ("glama_queue_capacity", "Requests that may wait.", lambda: line.capacity),
            ("glama_running", "Requests whose picture is being filled.", lambda: line.running),
            ("glama_ready", "1 if an engine is open.", lambda: int(engine.is_ready)),
        ):
            Gauge(name, text, registry=self._registry).set_function(value)

    def count(self, path: str, method: str, status: int, seconds: dict[str, float]) -> None:
        """Count a request.

        Args:
            path: the route, of which there are few; never what a client made up.
            method: the HTTP method.
            status: the HTTP status.
            seconds: seconds of each stage.
        """
        self._requests.labels(path, method, str(status)).inc()
        for stage, value in seconds.items():
            self._seconds.labels(stage).observe(value)

    def show(self) -> bytes:
        """Return all metrics.

        Returns:
            The text of Prometheus.
        """
        return generate_latest(self._registry)


class Observer:
    """Logs and counts each request."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        """Set the next application.

        Args:
            app: the application whose requests are observed.
            metrics: the metrics.
        """
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and log it when it is answered.

        Args:
            scope: the request.
            receive: receives the body.
            send: sends the answer.
        """
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, record = time.perf_counter(), find_record(scope)
        status, received, sent = CLIENT_CLOSED_REQUEST, 0, 0

        async def counted_receive() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            return message

        async def counted_send(message: Message) -> None:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status = message["status"]
            sent += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, counted_receive, counted_send)
        except ClientGoneError:
            pass  # nobody waits for an answer
        except Exception:
            status = 500
            raise
        finally:
            seconds = {"total": time.perf_counter() - start, **record.seconds}
            route = getattr(scope.get("route"), "path", "") or "other"
            method = scope["method"] if scope["method"] in _METHODS else "other"
            self._metrics.count(route, method, status, seconds)
            _log(scope, status, received, sent, seconds, record)


_METHODS = frozenset(("GET", "HEAD", "POST", "DELETE", "OPTIONS", "PUT", "PATCH"))

#: A longer path is cut in the log.
_MAX_PATH_CHARACTERS = 200


def _log(scope: Scope, status: int, received: int, sent: int, seconds: dict[str, float], record: Record) -> None:
    client = scope.get("client")
    line = {
        "time": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
        "client": client[0] if client else "",
        "method": scope["method"][:16],
        "path": scope["path"][:_MAX_PATH_CHARACTERS],  # without the query, which may have the token
        "status": status,
        "received_bytes": received,
        "sent_bytes": sent,
        "seconds": {stage: round(value, 4) for stage, value in seconds.items()},
        **record.details,
    }
    access_log.info("%s", json.dumps(line, ensure_ascii=True))


def start_access_log() -> None:
    """Write the log of requests to standard output."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(message)s"))
    access_log.addHandler(handler)
    access_log.setLevel(logging.INFO)
    access_log.propagate = False
