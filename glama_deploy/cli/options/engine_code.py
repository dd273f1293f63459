"""The option that allows an engine's own code, of every command that opens engines."""

from __future__ import annotations

from typing import Annotated

from glama_deploy.cli.entry import option

AllowEngineCode = Annotated[
    bool,
    option(
        "--allow-engine-code",
        help="Open a version-compatible TensorRT engine, which contains native code that runs here; for a bundle "
        "whose origin you trust.",
    ),
]
