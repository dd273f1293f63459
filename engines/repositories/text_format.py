"""Write a message in protobuf's text format, in which Triton reads `config.pbtxt`.

The format is short, and Triton's messages are in no package that a device needs. Fields are checked against Triton's
own messages in the tests.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias, Union


class Constant(str):
    """The name of an enumeration's value, which is written without quotes."""


#: A field of a message. A sequence is a repeated field.
Field: TypeAlias = Union[str, int, "Message", Sequence[Union[str, int, "Message"]]]  # (a cycle)
Message: TypeAlias = Mapping[str, Field]


def write_message(message: Message) -> str:
    """Write a message.

    Args:
        message: The fields by name, in the order in which they are written.

    Returns:
        The text in ASCII, with a line for each field and bracket.
    """
    return "".join(f"{line}\n" for line in _write_fields(message))


def _write_fields(message: Message) -> Iterator[str]:
    for name, field in message.items():
        if isinstance(field, Mapping):
            yield from _write_submessage(name, field)
        elif isinstance(field, str | int):
            yield f"{name}: {_write_scalar(field)}"
        else:
            for value in field:
                if isinstance(value, Mapping):
                    yield from _write_submessage(name, value)
            scalars = [_write_scalar(value) for value in field if not isinstance(value, Mapping)]
            if scalars:
                yield f"{name}: [{', '.join(scalars)}]"


def _write_submessage(name: str, message: Message) -> Iterator[str]:
    yield f"{name} {{"
    yield from (f"  {line}" for line in _write_fields(message))
    yield "}"


def _write_scalar(value: str | int) -> str:
    if isinstance(value, Constant):
        return str(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f'"{"".join(map(_escape, value.encode("utf-8")))}"'
    return str(value)


def _escape(byte: int) -> str:
    """Return a byte of a string as the format writes it."""
    character = chr(byte)
    if character in '"\\':
        return f"\\{character}"
    return character if 0x20 <= byte < 0x7F else f"\\{byte:03o}"
