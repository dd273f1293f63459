"""The tables of keys in docs/training.md are those of the config's models.

`python tests/training/test_config_tables.py` writes the tables anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import annotated_types
import pytest
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from glama_deploy.network import NetworkConfig
from glama_deploy.training import config

GUIDE = Path(__file__).parents[2] / "docs" / "training.md"
HEADING = "## Keys of the config\n"
INTRODUCTION = """
Defaults are those of `glama`, without the network's. A named config changes some of them; `config.yaml` in the run's
folder has all values.
"""

#: The sections in the order of the guide, with the prefixes of their keys. `network.coarse` has the network's keys.
SECTIONS: dict[str, type[BaseModel]] = {
    "": config.Config,
    "network.": NetworkConfig,
    "discriminator.": config.Discriminator,
    "weights.": config.Weights,
    "data.": config.Data,
    "optimization.": config.Optimization,
    "saving.": config.Saving,
}


def find_models(kind: Any) -> list[type[BaseModel]]:
    """Return the models in a field's type, `X` or `X | None`."""
    kinds = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    return [each for each in kinds if isinstance(each, type) and issubclass(each, BaseModel)]


def render_type(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(kind))
    if get_origin(kind) in (Union, UnionType):
        return " or ".join(render_type(each) if each is not type(None) else "`null`" for each in get_args(kind))
    if get_origin(kind) is tuple:
        return "list"
    names = {bool: "`true`, `false`", int: "integer", float: "number", str: "text", Path: "path"}
    return names.get(kind, "as `network`")


def render_values(field: FieldInfo) -> str:
    """Render the type of a field and its bounds."""
    low, high, more = "", "", ""
    for bound in field.metadata:
        match bound:
            case annotated_types.Ge(least):
                low = f"from {least:g}"
            case annotated_types.Gt(limit):
                low = f"above {limit:g}"
            case annotated_types.Le(most):
                high = "to 2^63 − 1" if most == 2**63 - 1 else f"to {most:g}"
            case annotated_types.Lt(limit):
                high = f"below {limit:g}"
            case annotated_types.MultipleOf(divisor):
                more = f"a multiple of {divisor}"
    bounds = " ".join(part for part in (low, high) if part)
    return ", ".join(part for part in (render_type(field.annotation), bounds, more) if part)


def render_default(field: FieldInfo) -> str:
    """Render a default as YAML."""
    value = field.default
    return "`null`" if value is None else f"`{yaml.safe_dump(value, default_flow_style=True).splitlines()[0]}`"


def list_rows(prefix: str, model: type[BaseModel]) -> Iterator[str]:
    """Yield a row for each key that is no section with a table of its own."""
    for name, field in model.model_fields.items():
        if f"{prefix}{name}." in SECTIONS:
            continue
        description = (field.description or "").replace("|", r"\|")
        yield f"| `{prefix}{name}` | {description} | {render_values(field)} | {render_default(field)} |"


def render_tables() -> str:
    tables = []
    for prefix, model in SECTIONS.items():
        summary = (model.__doc__ or "").splitlines()[0] if prefix else "Keys outside of sections."
        title = f"\n### {prefix.removesuffix('.')}\n\n" if prefix else "\n"
        head = "\n\n| key | meaning | values | default |\n|---|---|---|---|\n"
        tables.append(title + summary + head + "\n".join(list_rows(prefix, model)) + "\n")
    return INTRODUCTION + "".join(tables)


def split_guide() -> tuple[str, str, str]:
    """Return the guide before the tables, the tables, and the rest."""
    before, heading, rest = GUIDE.read_text(encoding="utf-8").partition(HEADING)
    tables, next_heading, after = rest.partition("\n## ")
    return before + heading, tables, next_heading + after


def list_fields() -> list[tuple[str, FieldInfo]]:
    return [(p + name, field) for p, model in SECTIONS.items() for name, field in model.model_fields.items()]


@pytest.mark.parametrize(("key", "field"), list_fields(), ids=lambda value: value if isinstance(value, str) else "")
def test_every_key_has_a_description_and_its_section_a_table(key, field):
    assert field.description
    for model in find_models(field.annotation):
        assert model is SECTIONS.get(f"{key}.", NetworkConfig)


def test_the_tables_of_the_guide_are_those_of_the_models():
    assert split_guide()[1] == render_tables(), "write them with: python tests/training/test_config_tables.py"


def test_a_row_has_the_bounds_and_the_default_of_its_key():
    rows = render_tables().splitlines()
    assert "| `optimization.beta2` | Adam's decay of squared gradients | number, from 0 below 1 | `0.999` |" in rows
    side = next(row for row in rows if row.startswith("| `data.side` |"))
    assert side.endswith("| integer, from 16, a multiple of 8 | `256` |")
    fit = next(row for row in rows if row.startswith("| `data.fit` |"))
    assert fit.endswith("| `crop`, `resize` | `crop` |")


if __name__ == "__main__":
    start, _, end = split_guide()
    GUIDE.write_text(start + render_tables() + end, encoding="utf-8")
