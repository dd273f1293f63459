"""Options that a command takes as one dataclass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from glama_deploy.cli.entry import Command, option


@dataclass(frozen=True)
class Shape:
    height: Annotated[int, option("--height", help="In pixels.")] = 8
    width: Annotated[int, option("--width", help="In pixels.")] = 8


def draw(name: Annotated[str, option("--name", help="A name.")], shape: Shape) -> None:
    print(name, shape)


def test_the_fields_of_a_dataclass_are_options_of_the_command(capsys):
    assert Command("glama-draw", draw).run(["--width", "9", "--name", "x"]) == 0
    assert capsys.readouterr().out == "x Shape(height=8, width=9)\n"


def test_the_help_lists_the_fields_in_place_of_the_dataclass(capsys):
    assert Command("glama-draw", draw).run(["--help"]) == 0
    shown = capsys.readouterr().out
    assert shown.index("--name") < shown.index("--height") < shown.index("--width")
    assert "--shape" not in shown
