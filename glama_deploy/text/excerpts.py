"""Short, printable excerpts of values from files and users, for messages of one line."""

from __future__ import annotations

from glama_deploy.text.escapes import escape_controls

#: Longest excerpt in a message, in characters.
MAX_EXCERPT = 80

#: Longest excerpt of an engine's error in characters. The error may contain whole paths.
MAX_ENGINE_LINE = 500


def excerpt(value: object, limit: int = MAX_EXCERPT) -> str:
    """Return a short printable form of a value from a file or a user.

    Args:
        value: A string is shown without quotes. Numbers, booleans and None are shown as Python writes them. Any other
            object is shown by the name of its class, because its `repr` may have any size.
        limit: Largest number of characters of the result.

    Returns:
        One line, escaped by :func:`~glama_deploy.text.escapes.escape_controls`. If text was cut off, the line ends in
        an ellipsis.
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
    """Return a short printable form of a value, with quotes around a string.

    Args:
        value: See :func:`excerpt`.
        limit: Largest number of characters between the quotes.

    Returns:
        One line.
    """
    return f"'{excerpt(value, limit)}'" if isinstance(value, str) else excerpt(value, limit)


def first_line(error: BaseException, limit: int = 2 * MAX_EXCERPT) -> str:
    """Return the first line of an exception's text.

    Args:
        error: The exception.
        limit: Largest number of characters of the result.

    Returns:
        One line. Where the exception has no text, the line is the name of its class.
    """
    return excerpt(_lines(error)[0], limit)


def describe_error(error: BaseException, limit: int = MAX_ENGINE_LINE) -> str:
    """Describe an exception by its class and the first line of its text.

    Args:
        error: The exception.
        limit: Largest number of characters of the first line.

    Returns:
        One line, such as `OSError: disk full`. Where the exception has no text, the reason is "no reason is given".
    """
    reason = str(error).strip().splitlines() or ["no reason is given"]
    return f"{type(error).__name__}: {excerpt(reason[0], limit)}"


def last_line(error: BaseException, limit: int = 2 * MAX_EXCERPT) -> str:
    """Return the last line of an exception's text, in which OpenVINO gives the reason.

    Args:
        error: The exception.
        limit: Largest number of characters of the result.

    Returns:
        One line. Where the exception has no text, the line is the name of its class.
    """
    return excerpt(_lines(error)[-1], limit)


def _lines(error: BaseException) -> list[str]:
    return str(error).strip().splitlines() or [type(error).__name__]
