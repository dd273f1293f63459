"""Short, printable excerpts of what a file says, for messages of one line."""

from __future__ import annotations

#: Longest excerpt in a message, in characters.
MAX_EXCERPT = 80


def excerpt(value: object, limit: int = MAX_EXCERPT) -> str:
    """Return a short printable form of a value that a file or a user gave.

    Args:
        value: a string is shown without quotes. Numbers, booleans and None are shown as Python writes them. Any other
            object is shown by the name of its class, because its `repr` may be of any size.
        limit: the longest result, in characters.

    Returns:
        One line. Control characters and line ends are escaped, and an ellipsis stands for what was cut off.
    """
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 256:
        return f"an integer of {value.bit_length()} bits"
    if value is None or isinstance(value, bool | int | float):
        return repr(value)
    if not isinstance(value, str):
        return f"a {type(value).__name__}"
    shown = "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in value[:limit]
    )
    return shown if len(value) <= limit and len(shown) <= limit else shown[: limit - 1] + "…"


def quoted(value: object, limit: int = MAX_EXCERPT) -> str:
    """Return :func:`excerpt` with quotes around a string."""
    return f"'{excerpt(value, limit)}'" if isinstance(value, str) else excerpt(value, limit)


def first_line(error: BaseException, limit: int = 2 * MAX_EXCERPT) -> str:
    """Return the first line of an exception's text, or the name of its class where it has no text."""
    lines = str(error).strip().splitlines()
    return excerpt(lines[0], limit) if lines else type(error).__name__
