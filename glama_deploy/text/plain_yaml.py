"""Plain YAML: mappings, lists and scalars, read with bounds on size and depth.

Configs come from elsewhere. A few lines of full YAML can stand for gigabytes (aliases, merge keys), and its tags make
the reader's constructors fail in many ways. No config of LaMa or of this project uses them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from glama_deploy.text.excerpts import excerpt, first_line

#: A training config is some kilobytes.
MAX_YAML_BYTES = 64 << 10
#: Nested mappings and lists. LaMa's deepest value is at 6.
MAX_YAML_DEPTH = 32
MAX_SCALAR_CHARACTERS = 10_000
MAX_NUMBER_CHARACTERS = 100

_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
#: Dates, merge keys and the value key `=` stay strings: no config has a field for them.
_STRINGS = ("tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:merge", "tag:yaml.org,2002:value")


class PlainYamlError(ValueError):
    """Text that is not plain YAML; the message is one line."""


def parse(text: str) -> Any:
    """Return the value that a text of plain YAML stands for.

    Args:
        text: one YAML document.

    Returns:
        Dicts, lists, strings, numbers, booleans and None. A date such as 2024-12-31 is a string.

    Raises:
        PlainYamlError: not YAML, more than `MAX_YAML_DEPTH` levels, an anchor, an alias, a tag, a merge key, a key that
            stands twice in a mapping, or a number that cannot be read.
    """
    try:
        return yaml.load(text, _PlainLoader)
    except yaml.MarkedYAMLError as error:
        place = f"line {error.problem_mark.line + 1}: " if error.problem_mark is not None else ""
        raise PlainYamlError(f"{place}{excerpt(error.problem or 'damaged', 160)}") from error
    except (yaml.YAMLError, ValueError, ArithmeticError) as error:
        raise PlainYamlError(first_line(error)) from error


def read(path: Path) -> Any:
    """Return the value of a file of plain YAML; see :func:`parse`.

    Raises:
        PlainYamlError: not plain YAML, not UTF-8, more than `MAX_YAML_BYTES`, or a file that cannot be read.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_YAML_BYTES + 1)
    except OSError as error:
        raise PlainYamlError(error.strerror or type(error).__name__) from error
    if len(data) > MAX_YAML_BYTES:
        raise PlainYamlError(f"the file is larger than {MAX_YAML_BYTES >> 10} KiB; a config is some kilobytes")
    try:
        return parse(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise PlainYamlError(f"byte {error.start} is not UTF-8") from error


class _PlainLoader(yaml.SafeLoader):
    """Refuses all that plain YAML does not have before anything is built from it."""

    yaml_implicit_resolvers = {  # noqa: RUF012 (PyYAML's own name and type)
        first: [(tag, pattern) for tag, pattern in resolvers if tag not in _STRINGS]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise _refusal(event, "anchors and aliases (& and *) are not supported; write the value out")
        if getattr(event, "tag", None) is not None:
            raise _refusal(event, "tags (!) are not supported; write the plain value")
        if isinstance(event, yaml.ScalarEvent) and len(event.value) > MAX_SCALAR_CHARACTERS:
            raise _refusal(event, f"a value of {len(event.value)} characters; at most {MAX_SCALAR_CHARACTERS} are read")
        if self._depth == MAX_YAML_DEPTH:
            raise _refusal(event, f"more than {MAX_YAML_DEPTH} nested levels")
        self._depth += 1
        node: Any = super().compose_node(parent, index)
        self._depth -= 1
        if node.tag in _NUMBERS and len(node.value) > MAX_NUMBER_CHARACTERS:
            raise _refusal(event, f"a number of {len(node.value)} characters")
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _refusal(key, "a key that is a mapping or a list")
            if key.value == "<<" and key.style is None:
                raise _refusal(key, "merge keys (<<) are not supported; write the values out")
            if (key.tag, key.value) in seen:
                raise _refusal(key, f"the key {excerpt(key.value, 40)} stands twice in one mapping")
            seen.add((key.tag, key.value))
        return super().construct_mapping(node, deep)


def _refusal(event: Any, problem: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)
