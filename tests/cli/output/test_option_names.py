from __future__ import annotations

import pytest

from glama_deploy.cli.entry import Command
from glama_deploy.cli.output.console import Console
from glama_deploy.cli.output.option_names import show_options
from glama_deploy.errors import GlamaError


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("give a larger `max_size`", "give a larger --max-size"),
        ("use `fft=matmul`, or `size=HxW`", "use --fft matmul, or --size HxW"),
        ("or pass `overwrite=True`", "or pass --overwrite"),
        ("with `parity=False`", "with --no-parity"),
        ("make one: `export(ckpt=CHECKPOINT, out=a b/c)`", "make one: glama-export --ckpt CHECKPOINT --out a b/c"),
        ("rebuild: `build(/tmp/a-b, target=trt)`", "rebuild: glama-build /tmp/a-b --target trt"),
        ("rebuild: `build(a, b/c, target=trt)`", "rebuild: glama-build a, b/c --target trt"),
        ("give `calibration=FOLDER` or fewer `gpus`", "give --calib FOLDER or fewer --gpu"),
        ("a file's name keeps its `Backticks`", "a file's name keeps its `Backticks`"),
    ],
)
def test_a_field_is_shown_as_its_option(message, shown):
    assert show_options(message) == shown


def test_a_console_shows_options_where_the_library_names_fields(capsys):
    Console(width=80).print("trt-rtx: export again with `fft=matmul`")
    assert capsys.readouterr().out == "trt-rtx: export again with --fft matmul\n"


def test_a_command_shows_options_where_the_library_names_fields(capsys):
    def fail() -> None:
        raise GlamaError("the output is there; choose another `out` or pass `overwrite=True`")

    assert Command("glama-test", fail).run([]) == 2
    assert capsys.readouterr().err == "glama-test: the output is there; choose another --out or pass --overwrite\n"


def test_the_console_shows_options_in_the_reasons_that_it_prints(capsys):
    Console().print("openvino: export again with `fft=matmul`", soft_wrap=True)
    assert capsys.readouterr().out == "openvino: export again with --fft matmul\n"
