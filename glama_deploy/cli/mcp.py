"""glama-mcp: a server of the Model Context Protocol, by which assistants fill pictures."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import glama_deploy
from glama_deploy.cli.entry import Command, option
from glama_deploy.cli.options.engine import DeviceName, EngineName, PrecisionName, ThreadCount
from glama_deploy.cli.options.named_models import ModelNames, name_models
from glama_deploy.cli.output.console import Console
from glama_deploy.errors import GlamaError
from glama_deploy.runtime.base import require


def glama_mcp(
    model: ModelNames = ["default"],  # noqa: B006 - typer copies it
    root: Annotated[
        list[Path],
        option("--root", help="Folder whose files clients may name. Several times for several; without it, any file."),
    ] = [],  # noqa: B006
    backend: EngineName = "auto",
    precision: PrecisionName = "auto",
    threads: ThreadCount = None,
    device: DeviceName = None,
) -> None:
    """Serve tools that fill pictures to an assistant, by the Model Context Protocol.

    The assistant's program starts this command, and speaks with it over standard input and output. Messages go to
    standard error. The command ends when the program closes the connection.
    """
    require("mcp.server.mcpserver", "version 2 of the MCP SDK", "pip install 'glama-deploy[mcp]'")
    from glama_deploy.integrations.mcp_server import make_server, serve

    for path in root:
        if not path.is_dir():
            raise GlamaError(f"`root` {path} is not a folder; make it first")
    models = name_models(model)
    open_model = partial(glama_deploy.load, backend=backend, precision=precision, threads=threads, device=device)
    server = make_server(models, open_model, root)
    Console(stderr=True).print(f"ready for a client on standard input; models: {', '.join(models)}", soft_wrap=True)
    serve(server)


main = Command("glama-mcp", glama_mcp)
