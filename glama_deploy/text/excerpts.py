"""Short, printable excerpts of what a file says, for messages of one line."""

from __future__ import annotations

from glama_deploy.text.escapes import escape_controls

#: Longest excerpt in a message, in characters.
MAX_EXCERPT = 80
#: Longest line of an engine's own error, which may name files with their whole paths.
MAX_ENGINE_LINE = 500


def excerpt(value: object, limit: int = MAX_EXCERPT) -> str:
    """Return a short printable form of a value that a file or a user gave.

    Args:
        value: a string is shown without quotes. Numbers, booleans and None are shown as Python writes them. Any other
            object is shown by the name of its class, because its `repr` may be of any size.
        limit: the longest result, in characters.

    Returns:
        One line, escaped by :func:`~glama_deploy.text.escapes.escape_controls`. An ellipsis stands for what was cut
        off.
    """
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 256:
        return f"an integer of {value.bit_length()} bits"
    if value is None or isinstance(value, bool | int | float):
        return repr(value)
    if not isinstance(value, str):
        return f"a {type(value).__name__}"
    shown = escape_controls(value[:limit])
    return shown if len(value) <= limit and len(shown) <= limit else shown[: limit - 1] + "…"


def quoted(value: object, limit: int = MAX_EXCERPT) -> str:
    """Return :func:`excerpt` with quotes around a string."""
    return f"'{excerpt(value, limit)}'" if isinstance(value, str) else excerpt(value, limit)


def first_line(error: BaseException, limit: int = 2 * MAX_EXCERPT) -> str:
    """Return the first line of an exception's text, or the name of its class where it has no text."""
    return excerpt(_lines(error)[0], limit)


def last_line(error: BaseException, limit: int = 2 * MAX_EXCERPT) -> str:
    """Return the last line, where OpenVINO says the reason; see :func:`first_line`."""
    return excerpt(_lines(error)[-1], limit)


def _lines(error: BaseException) -> list[str]:
    return str(error).strip().splitlines() or [type(error).__name__]
