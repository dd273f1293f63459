from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import typer

import glama_deploy
import glama_deploy.engines
import glama_deploy.export
from glama_deploy.cli import bench, build, export, inpaint, masks, mcp, package, serve, train
from glama_deploy.cli import eval as evaluation
from glama_deploy.cli.entry import Command
from glama_deploy.cli.output.console import Console
from glama_deploy.cli.output.option_names import FIELDS, show_options
from glama_deploy.errors import GlamaError


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("give a larger `max_size`", "give a larger --max-size"),
        ("use `fft=matmul`, or `size=HxW`", "use --fft matmul, or --size HxW"),
        ("or pass `overwrite=True`", "or pass --overwrite"),
        ("with `parity=False`", "with --no-parity"),
        (
            "make one: `export(checkpoint=CHECKPOINT, out=a b/c)`",
            "make one: glama-export --ckpt CHECKPOINT --out a b/c",
        ),
        ("rebuild: `build(/tmp/a-b, target=trt)`", "rebuild: glama-build /tmp/a-b --target trt"),
        ("rebuild: `build(a, b/c, target=trt)`", "rebuild: glama-build a, b/c --target trt"),
        ("give `calibration=FOLDER` or fewer `gpus`", "give --calib FOLDER or fewer --gpu"),
        ("a file's name keeps its `backticks`.png", "a file's name keeps its `backticks`.png"),
        ("PyTorch says `weights_only=False`", "PyTorch says `weights_only=False`"),
    ],
)
def test_a_field_is_shown_as_its_option(message, shown):
    assert show_options(message) == shown


def test_a_command_shows_options_where_the_library_names_fields(capsys):
    def fail() -> None:
        raise GlamaError("the output is there; choose another `out` or pass `overwrite=True`")

    assert Command("glama-test", fail).run([]) == 2
    assert capsys.readouterr().err == "glama-test: the output is there; choose another --out or pass --overwrite\n"


def test_the_console_shows_options_in_the_reasons_that_it_prints(capsys):
    Console().print("openvino: export again with `fft=matmul`", soft_wrap=True)
    assert capsys.readouterr().out == "openvino: export again with --fft matmul\n"


#: The packages whose messages name fields.
LIBRARY = [Path(package.__file__).parent for package in (glama_deploy, glama_deploy.export, glama_deploy.engines)]


def find_named_fields(path: Path) -> set[str]:
    """Return the fields in backticks in a module's texts, without docstrings and the descriptions of records."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    others = [node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)]
    others += [node.value for node in ast.walk(tree) if isinstance(node, ast.keyword) and node.arg == "description"]
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and node not in others]
    named = re.findall(r"`([^`]*)`", " ".join(text for text in texts if isinstance(text, str)))
    return {field for text in named for field in re.findall(r"(?:^|\(|, )([a-z_]+)(?==|$)", text)}


def test_every_field_that_a_message_names_is_known_to_the_commands():
    own = {"cli", "server"}  # the server's clients send the fields that its messages name
    found = {
        (path.name, field)
        for folder in LIBRARY
        for path in folder.rglob("*.py")
        if own.isdisjoint(path.relative_to(folder).parts)
        for field in find_named_fields(path)
    }
    assert {(name, field) for name, field in found if field not in FIELDS} == set()


def test_every_field_is_an_option_of_a_command():
    options = {
        option
        for module in (bench, build, evaluation, export, inpaint, masks, mcp, package, serve, train)
        for parameter in typer.main.get_command(module.main._app).params
        for option in parameter.opts
    }
    assert {field for field in FIELDS if show_options(f"`{field}`") not in options} == set()
