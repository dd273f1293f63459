"""The console that the commands print to."""

from __future__ import annotations

from typing import Any

import rich.console
from rich.text import Text

from glama_deploy.cli.output.option_names import show_options
from glama_deploy.cli.output.streams import as_encodable
from glama_deploy.cli.output.verbosity import is_quiet
from glama_deploy.text.escapes import escape_controls


class Console(rich.console.Console):
    """A console that prints plain text: no markup, emoji codes or highlighting, and control characters are escaped.

    Fields that a message of the library names are shown as options.

    With `--quiet`, a console of standard error prints failures only.

    Colours are for objects that carry a style (:class:`rich.text.Text`), so brackets in a file name stay brackets.

    Args:
        stderr: Whether to print to standard error.
        width: Columns; None: those of the terminal.
        style: The style of all text; None: plain.
    """

    def __init__(self, *, stderr: bool = False, width: int | None = None, style: str | None = None) -> None:
        super().__init__(stderr=stderr, width=width, style=style, markup=False, emoji=False, highlight=False)
        self.quiet = stderr and is_quiet()

    def print_failure(self, text: str) -> None:
        """Print one line of what failed, also with `--quiet`.

        Args:
            text: The text.
        """
        before, self.quiet = self.quiet, False
        try:
            self.print(text, soft_wrap=True)
        finally:
            self.quiet = before

    def render_str(self, text: str, **settings: Any) -> Text:
        """Render a text of `print` or of a table, in characters that the terminal can show.

        Args:
            text: The text.
            **settings: Further arguments of :meth:`rich.console.Console.render_str`.

        Returns:
            The text without markup.
        """
        return super().render_str(as_encodable(escape_controls(show_options(text)), self.encoding), **settings)

    def on_broken_pipe(self) -> None:
        """Raise the error again. The command knows the exit code of a closed pipe."""
        raise
