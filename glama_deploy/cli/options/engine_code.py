"""The option that allows code in an engine, for all commands that open engines."""

from __future__ import annotations

from typing import Annotated

from glama_deploy.cli.entry import option

AllowEngineCode = Annotated[
    bool,
    option(
        "--allow-engine-code",
        help="Open version-compatible TensorRT engines. They contain native code that runs on this machine: use only "
        "with bundles that you trust.",
    ),
]
