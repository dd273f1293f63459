"""The application of `glama-serve`: routes, guards, and the life of the engine."""

from __future__ import annotations

import asyncio
import mimetypes
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.staticfiles import StaticFiles

import glama_deploy
from glama_deploy.inpainting.inpainter import Inpainter
from glama_deploy.server.bodies import describe_invalid
from glama_deploy.server.errors import ApiError, make_error_response
from glama_deploy.server.faults import FaultAnswer
from glama_deploy.server.interfaces import iopaint, iopaint_files, lama_cleaner, own, reference
from glama_deploy.server.observing import Metrics, Observer
from glama_deploy.server.safety import guards
from glama_deploy.server.server import Server
from glama_deploy.server.settings import Settings
from glama_deploy.server.work.engine import Engine, OpenModel
from glama_deploy.server.work.waiting_line import WaitingLine

#: The page's files.
PAGE_FOLDER = Path(__file__).parent / "page"

#: Media types of the page's files and of pictures. Windows keeps such types in its registry, where another program may
#: have made scripts plain text; a browser runs no such script.
_MEDIA_TYPES = {
    ".css": "text/css",
    ".html": "text/html",
    ".jpg": "image/jpeg",
    ".js": "text/javascript",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".webp": "image/webp",
}

#: Headers of answers that pages of other origins may read.
_EXPOSED_HEADERS = (
    "X-Glama-Seconds",
    "X-Glama-Total-Seconds",
    "X-Glama-Queued-Seconds",
    "X-Glama-Engine",
    "X-Seed",
    "X-Width",
    "X-Height",
    "Retry-After",
)


def make_app(
    settings: Settings | None = None,
    *,
    open_model: OpenModel | None = None,
    on_ready: Callable[[str], None] | None = None,
    on_failure: Callable[[BaseException], None] | None = None,
) -> FastAPI:
    """Make the application. Any ASGI server can run it in one process.

    The engine is opened in a thread when the application starts. Requests that come before wait.

    Args:
        settings: the settings; None: the defaults.
        open_model: opens a model in a precision; None: :func:`glama_deploy.load` with the settings.
        on_ready: is called with the engine's description when the engine is open.
        on_failure: is called with the error when the engine cannot be opened; None: requests get 503, and the end of
            the application raises the error.

    Returns:
        The application. Its `state.server` is the :class:`glama_deploy.server.server.Server`.
    """
    settings = settings or Settings()
    engine = Engine(open_model or _make_open(settings), settings.models, settings.precision)
    line = WaitingLine(settings.streams, settings.queue)
    metrics = Metrics(line, engine)
    server = Server(settings, engine, line, metrics)

    @asynccontextmanager
    async def live(app: FastAPI) -> AsyncIterator[None]:
        opening = asyncio.create_task(_open_engine(engine, on_ready, on_failure))
        yield
        server.close()
        await opening
        await asyncio.to_thread(line.close)

    app = FastAPI(
        title="glama-serve",
        version=glama_deploy.__version__,
        description="Fill the missing pixels of pictures with GLaMa and LaMa networks.",
        lifespan=live,
        docs_url=None,  # FastAPI's pages load scripts from another host
        redoc_url=None,
    )
    app.state.server = server
    for interface in (own, iopaint, iopaint_files, lama_cleaner, reference):
        app.include_router(interface.router)
    _add_operations(app, server)
    _add_page(app)
    _add_error_handlers(app)
    _add_guards(app, settings, metrics)
    return app


def _make_open(settings: Settings) -> OpenModel:
    def open_model(model: str, precision: str) -> Inpainter:
        threads, streams, device = settings.threads, settings.streams, settings.device
        return glama_deploy.load(model, settings.backend, precision, threads, streams=streams, device=device)

    return open_model


async def _open_engine(
    engine: Engine,
    on_ready: Callable[[str], None] | None,
    on_failure: Callable[[BaseException], None] | None,
) -> None:
    try:
        opened = await asyncio.to_thread(engine.open)
    except Exception as error:
        if on_failure is None:
            raise
        on_failure(error)
        return
    if on_ready is not None:
        on_ready(opened.inpainter.description)


def _add_operations(app: FastAPI, server: Server) -> None:
    """Add what operators and their programs ask for."""

    @app.get("/healthz", tags=["operation"], summary="Tell whether the process answers")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz", tags=["operation"], summary="Tell whether an engine is open; else 503")
    async def readyz() -> JSONResponse:
        is_ready = server.engine.is_ready and not server.is_closing
        return JSONResponse({"status": "ready" if is_ready else "not ready"}, 200 if is_ready else 503)

    @app.get("/metrics", tags=["operation"], summary="Return the metrics in the format of Prometheus")
    async def metrics() -> Response:
        return Response(server.metrics.show(), media_type="text/plain; version=0.0.4")


def _add_page(app: FastAPI) -> None:
    for suffix, media_type in _MEDIA_TYPES.items():
        mimetypes.add_type(media_type, suffix)

    @app.get("/", include_in_schema=False)
    async def index() -> FileResponse:
        page = PAGE_FOLDER / "index.html"
        if not page.is_file():
            raise ApiError(404, "not_found", "this installation has no page; the interfaces are described at /docs")
        return FileResponse(page)

    app.mount("/page", GZipMiddleware(StaticFiles(directory=PAGE_FOLDER, check_dir=False)), name="page")


def _add_error_handlers(app: FastAPI) -> None:
    @app.exception_handler(ApiError)
    async def answer_error(request: Request, error: ApiError) -> Response:
        return make_error_response(request.url.path, error)

    @app.exception_handler(RequestValidationError)
    async def answer_invalid(request: Request, error: RequestValidationError) -> Response:
        return make_error_response(request.url.path, describe_invalid(error))

    @app.exception_handler(HTTPException)
    async def answer_http_error(request: Request, error: HTTPException) -> Response:
        codes = {404: "not_found", 405: "method"}
        code = codes.get(error.status_code, "http")
        api_error = ApiError(error.status_code, code, f"{request.method}: {error.detail}".lower(), error.headers)
        return make_error_response(request.url.path, api_error)


def _add_guards(app: FastAPI, settings: Settings, metrics: Metrics) -> None:
    """Put the guards around the routes. The last one added is asked first."""
    app.add_middleware(guards.BodyLimit, settings=settings)
    app.add_middleware(guards.Gate, settings=settings)
    app.add_middleware(FaultAnswer)
    if settings.allowed_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.allowed_origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type"],
            expose_headers=_EXPOSED_HEADERS,
        )
    app.add_middleware(guards.SecureHeaders, settings=settings)
    app.add_middleware(Observer, metrics=metrics)
