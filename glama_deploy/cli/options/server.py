"""The option that fills pictures with the engine of a server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from glama_deploy.cli.entry import option
from glama_deploy.errors import GlamaError
from glama_deploy.inpainting.inpainter import Inpainter

#: Pictures of a folder that are sent at once: one is computed while another is on its way.
_PICTURES_AT_ONCE = 2

#: The value of `--model` that stands for the server's own choice.
_ANY_MODEL = "default"


@dataclass(frozen=True)
class ServerOptions:
    """The server, as the command line has it."""

    server: Annotated[
        str | None,
        option(
            "--server",
            help="HTTP address of Triton, OpenVINO Model Server or glama-serve, which computes in place of this "
            "machine. --model is then the server's name of the model; without it, the only one. GLAMA_TOKEN has the "
            "token.",
            metavar="URL",
        ),
    ] = None

    def check(self, **given: bool) -> None:
        """Check that no option chooses an engine of this machine.

        Args:
            **given: whether an option was given, by its name.

        Raises:
            GlamaError: an option has no effect with a server.
        """
        wrong = [f"`{name}`" for name, is_given in given.items() if is_given]
        if self.server is not None and wrong:
            raise GlamaError(f"`server` has an engine of its own; leave out {' and '.join(wrong)}")

    def connect(self, model: str, jobs: int | None, *, is_single: bool) -> Inpainter:
        """Open the model of the server.

        Args:
            model: the option `--model`.
            jobs: the option `--jobs`.
            is_single: whether one picture is filled.

        Returns:
            The inpainter.

        Raises:
            EngineError: the server cannot be used.
        """
        from glama_deploy.remote.connect import connect

        assert self.server is not None
        streams = 1 if is_single else jobs or _PICTURES_AT_ONCE
        return connect(self.server, None if model == _ANY_MODEL else model, streams=streams)
