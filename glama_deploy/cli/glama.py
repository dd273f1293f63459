"""glama: all commands as subcommands of one. Only the module of the subcommand that runs is imported."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version
from typing import Annotated, Any

import typer
from rich.markup import escape
from typer.core import TyperCommand, TyperGroup

from glama_deploy.cli.entry import CONTEXT_SETTINGS, Program, Quiet, Verbose, option
from glama_deploy.cli.start import start
from glama_deploy.cli.subcommands import SUBCOMMANDS

_NAME = "glama"


class _Subcommand(TyperCommand):
    """A subcommand that is known by its name and help. It keeps its arguments as they are."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Keep the arguments for the command itself.

        Args:
            ctx: The context, which receives the arguments.
            args: The arguments.

        Returns:
            The arguments.
        """
        ctx.args = list(args)
        return ctx.args


class _Group(TyperGroup):
    """The subcommands. The completion of a subcommand's options asks its own parser."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the subcommand.

        Args:
            ctx: The context.
            args: The name, and the arguments of the subcommand.

        Returns:
            The name, the parser and the arguments of the subcommand.
        """
        name, command, rest = super().resolve_command(ctx, args)
        if ctx.resilient_parsing and name is not None:
            command = import_module(f"glama_deploy.cli.{SUBCOMMANDS[name].module}").main.make_parser()
        return name, command, rest


def _print_version(asked: bool) -> None:
    if asked:
        print(f"{_NAME} {version('glama-deploy')}")
        raise typer.Exit


class Glama(Program):
    """The command `glama`. It runs a subcommand under the name `glama NAME`."""

    def __init__(self) -> None:
        app = typer.Typer(
            cls=_Group, context_settings=CONTEXT_SETTINGS, pretty_exceptions_enable=False, rich_markup_mode="rich"
        )
        app.callback()(self._read_options)
        for name, subcommand in SUBCOMMANDS.items():
            app.command(name, cls=_Subcommand, help=escape(subcommand.help))(self._choose)
        super().__init__(_NAME, app)
        self._flags: list[str] = []
        self._chosen: tuple[str, list[str]] | None = None

    def __call__(self, arguments: Sequence[str] | None = None) -> None:
        """Run the subcommand, and end the process with its exit code.

        Args:
            arguments: The arguments; None: those of the process.
        """
        try:
            super().__call__(arguments)
        except SystemExit:
            if self._chosen is None:
                raise
            name, rest = self._chosen
        start(SUBCOMMANDS[name].module, f"{_NAME} {name}", rest)

    def run(self, arguments: Sequence[str]) -> int:
        """Parse the arguments up to the subcommand's name.

        Args:
            arguments: The arguments; without any, the help is printed.

        Returns:
            The exit code: 0 if a subcommand is to be run.
        """
        return super().run(arguments or ["--help"])

    def _read_options(
        self,
        quiet: Quiet = False,
        verbose: Verbose = False,
        asks_version: Annotated[
            bool, option("--version", help="Print the version.", is_eager=True, callback=_print_version)
        ] = False,
    ) -> None:
        """Fill the missing pixels of photographs with LaMa and GLaMa networks, from the checkpoint to the device.

        Each subcommand explains its options with --help.
        """
        self._flags = ["--quiet"] * quiet + ["--verbose"] * verbose

    def _choose(self, ctx: typer.Context) -> None:
        """Note the subcommand, which runs once this parser has ended."""
        assert ctx.info_name is not None
        self._chosen = ctx.info_name, [*self._flags, *ctx.args]


main = Glama()
