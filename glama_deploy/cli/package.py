"""glama-package: write a bundle as the model repository of an inference server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast, get_args

from glama_deploy.catalogue import join_names
from glama_deploy.cli.entry import Command, argument, option
from glama_deploy.cli.output.console import Console
from glama_deploy.engines.repositories import triton
from glama_deploy.engines.repositories.repository import DEFAULT_NAME, SERVERS, RepositoryRequest, write_repository
from glama_deploy.remote.description import Color
from glama_deploy.runtime.base import MAX_THREADS


def glama_package(
    bundle: Annotated[Path, argument(help="Folder of the bundle.", show_default=False)],
    server: Annotated[
        str,
        option("--for", help="The server: triton, or ovms for OpenVINO Model Server.", metavar="|".join(SERVERS)),
    ],
    out: Annotated[Path, option("--out", help="Folder of the repository. It must not exist yet (see --overwrite).")],
    backend: Annotated[
        str | None,
        option(
            "--backend",
            help=f"Triton's backend: {join_names(triton.list_backends())}. python, the default, runs this software in "
            "the server, with boxes and tiles. The others run the graph of a bundle that was exported with --io uint8.",
        ),
    ] = None,
    name: Annotated[str, option("--name", help="The name that clients give to the model.")] = DEFAULT_NAME,
    instances: Annotated[
        int, option("--instances", help="Requests that the server runs at once.", min=1, max=MAX_THREADS)
    ] = 1,
    color: Annotated[
        str | None,
        option(
            "--color",
            help=f"For ovms: the order of the channels, {join_names(get_args(Color))}. OpenVINO Model Server decodes "
            "PNG and JPEG files to bgr, the default.",
        ),
    ] = None,
    overwrite: Annotated[bool, option("--overwrite", help="Replace a repository that exists.")] = False,
) -> None:
    """Write a bundle as a model repository, which an inference server loads as it is.

    The server needs nothing of this software, except with Triton's Python backend. Exit codes: 0 success; 2 bad input,
    nothing was written.
    """
    request = RepositoryRequest(
        bundle=bundle,
        server=server,
        out=out,
        backend=backend,
        name=name,
        instances=instances,
        color=cast(Color | None, color),
        overwrite=overwrite,
    )
    Console().print(f"model: {write_repository(request)}", soft_wrap=True)


main = Command("glama-package", glama_package)
