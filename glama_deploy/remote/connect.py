"""Open the model of a server as an inpainter: the client plans and cuts boxes, and only the boxes travel."""

from __future__ import annotations

from glama_deploy.errors import EngineError
from glama_deploy.inpainting.inpainter import Inpainter
from glama_deploy.remote.connection import TOKEN_VARIABLE, Answer, Connection
from glama_deploy.remote.glama_serve import GlamaServeRunner
from glama_deploy.remote.kserve import KServeRunner, is_kserve

#: HTTP statuses of a server that wants to know who asks.
_UNAUTHORIZED = (401, 403)


def connect(server: str, model: str | None = None, *, streams: int = 1) -> Inpainter:
    """Open the model of a server.

    The kind of the server is found by asking. The environment variable `GLAMA_TOKEN` has a token for servers that ask
    for one.

    Args:
        server: the address of Triton, OpenVINO Model Server or glama-serve, such as `http://host:8000`.
        model: the name of the model on the server; None for the only one, or for the one that glama-serve has open.
        streams: number of threads that may call the inpainter at once.

    Returns:
        The inpainter. Results are those of a program that opens the same bundle with the engine of the server.

    Raises:
        EngineError: no server answers, the server is of another kind, or does not have the model.
    """
    connection = Connection(server)
    runner: KServeRunner | GlamaServeRunner
    if is_kserve(connection):
        runner = KServeRunner(connection, model, streams)
    else:
        _check_glama_serve(connection, connection.get("/v1/info"))
        runner = GlamaServeRunner(connection, model, streams)
    inpainter = Inpainter(runner, runner.network)
    inpainter.remember_opening(_reconnect, server, model, streams)
    return inpainter


def _reconnect(server: str, model: str | None, streams: int) -> Inpainter:
    return connect(server, model, streams=streams)


def _check_glama_serve(connection: Connection, answer: Answer) -> None:
    """Raise EngineError if a server is not glama-serve."""
    if answer.status in _UNAUTHORIZED:
        raise EngineError(
            f"{connection.url} refuses the request ({answer.reason}); give the server's token in {TOKEN_VARIABLE}"
        )
    if answer.status != 200 or "version" not in answer.read_json():
        raise EngineError(
            f"{connection.url} speaks neither KServe's protocol, version 2, nor glama-serve's ({answer.reason}); give "
            "the HTTP address of Triton, OpenVINO Model Server or glama-serve in `server`"
        )
