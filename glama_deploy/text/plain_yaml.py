"""Read plain YAML: mappings, lists and scalars, with bounds on size and depth.

Configs come from files that are not trusted. A few lines of full YAML can expand to gigabytes (aliases, merge keys),
and tags make the reader's constructors fail in many ways. Configs of LaMa and of this project do not use these parts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from glama_deploy.text.excerpts import excerpt, first_line

#: Largest size of a file. A training config has some kilobytes.
MAX_YAML_BYTES = 64 << 10

#: Largest number of nested mappings and lists. LaMa's config has 6 levels.
MAX_YAML_DEPTH = 32

#: Longest string.
MAX_SCALAR_CHARACTERS = 10_000

#: Longest number.
MAX_NUMBER_CHARACTERS = 100

_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
#: Types of YAML that are read as strings, because no config has a field of these types.
_STRINGS = ("tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:merge", "tag:yaml.org,2002:value")


class PlainYamlError(ValueError):
    """The text is not plain YAML. The message is one line."""


def parse(text: str) -> Any:
    """Parse a text of plain YAML.

    Args:
        text: One YAML document.

    Returns:
        Dicts, lists, strings, numbers, booleans and None. A date such as 2024-12-31 is a string.

    Raises:
        PlainYamlError: The text is not YAML, has more than `MAX_YAML_DEPTH` levels, or contains an anchor, an alias, a
            tag, a merge key, a repeated key of a mapping, or a number that cannot be read.
    """
    try:
        return yaml.load(text, _PlainLoader)
    except yaml.MarkedYAMLError as error:
        place = f"line {error.problem_mark.line + 1}: " if error.problem_mark is not None else ""
        raise PlainYamlError(f"{place}{excerpt(error.problem or 'damaged', 160)}") from error
    except (yaml.YAMLError, ValueError, ArithmeticError) as error:
        raise PlainYamlError(first_line(error)) from error


def read(path: Path) -> Any:
    """Read a file of plain YAML.

    Args:
        path: The file, in UTF-8.

    Returns:
        The value, as :func:`parse` returns.

    Raises:
        PlainYamlError: The file cannot be read, is not UTF-8, is larger than `MAX_YAML_BYTES`, or is not plain YAML.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_YAML_BYTES + 1)
    except OSError as error:
        raise PlainYamlError(error.strerror or type(error).__name__) from error
    if len(data) > MAX_YAML_BYTES:
        raise PlainYamlError(f"the file is larger than {MAX_YAML_BYTES >> 10} KiB; a config of some KiB is expected")
    try:
        return parse(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise PlainYamlError(f"byte {error.start} is not UTF-8") from error


class _PlainLoader(yaml.SafeLoader):
    """Refuse everything that is not plain YAML, before a value is constructed.

    Args:
        stream: The text.
    """

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
            raise _refusal(
                event, f"a value has {len(event.value)} characters; at most {MAX_SCALAR_CHARACTERS} are supported"
            )
        if self._depth == MAX_YAML_DEPTH:
            raise _refusal(event, f"more than {MAX_YAML_DEPTH} nested levels are not supported")
        self._depth += 1
        node: Any = super().compose_node(parent, index)
        self._depth -= 1
        if node.tag in _NUMBERS and len(node.value) > MAX_NUMBER_CHARACTERS:
            raise _refusal(
                event, f"a number has {len(node.value)} characters; at most {MAX_NUMBER_CHARACTERS} are supported"
            )
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _refusal(key, "a key is a mapping or a list; a string is expected")
            if key.value == "<<" and key.style is None:
                raise _refusal(key, "merge keys (<<) are not supported; write the values out")
            if (key.tag, key.value) in seen:
                raise _refusal(key, f"the key {excerpt(key.value, 40)} is repeated in one mapping; remove one")
            seen.add((key.tag, key.value))
        return super().construct_mapping(node, deep)


def _refusal(event: Any, problem: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)
