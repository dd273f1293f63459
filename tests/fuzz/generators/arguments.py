"""The command lines: odd values for every option of every command, and odd sets of options.

The outside truth is the documented contract: an exit code of those that a command's help names, one line for what is
wrong, nothing written by a command that refuses its input, and no temporary file.
"""

from __future__ import annotations

import io
import random
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import typer

from fuzz.case import Case, Wrong
from fuzz.generators.commands import ARGUMENTS, COMMANDS, write_inputs
from fuzz.generators.mutation import ODD_NAMES
from glama_deploy.errors import GlamaError

#: A user may ask for as much as there is: no bound but the address space, beyond which "not enough memory" is right.
GROWTH_BYTES = ADDRESS_BYTES = 12 << 30

#: glama-demo and glama-bench take half a minute where their arguments are right.
_WEIGHTS = {"glama-demo": 0.02, "glama-bench": 0.02}

#: Exit codes in the help: all well, bad input, over the tolerance, not built here.
_EXIT_CODES = (0, 2, 3, 4)

_ODD = (
    *(name for name in ODD_NAMES if "\x00" not in name and name not in ("..", "/etc/passwd", "../../escape")),
    *("0", "-1", "1", "1.5", "1e9", "nan", "2147483648", "99999999999999999999", "9" * 5_000, "0x10", "١", "true"),
    *("0x0", "8x8", "-8x-8", "16x16x16", "16X24", " 16x16", "x", "16385x16", "2147483648x8", f"{'9' * 5_000}x16"),
    *(
        "image.png",
        "images",
        "bundle",
        "network.safetensors",
        "training.yaml",
        "missing/x.png",
        "~",
        "$HOME",
        "~nobody/x",
    ),
    *(
        "/dev/full",
        "/dev/null/x.png",
        "/proc/x.png",
        "\udcff\udcfe.png",
        "d/" * 2_500,
        "a=b",
        "@",
        "x@y/z",
        "=",
        "a\tb.png",
    ),
)

#: Values that start so many processes or runs that the machine, and not the command, would be under test.
_MANY = ("--processes", "--runs", "--count", "--show")

#: Options that open a connection.
_LEFT_OUT = ("--download",)

_OVERRIDES = ("data.side=2024-99-99", "data", "=", "a.b.c=1", "data.side=[", "network.ngf=9e99", "data=1", "x\n=y")


@dataclass(frozen=True)
class _Option:
    name: str
    flag: bool


@lru_cache(maxsize=1)
def _options() -> dict[str, tuple[_Option, ...]]:
    """Every option of every command, as the command line itself lists them."""
    found = {}
    for name, command in COMMANDS.items():
        parameters = typer.main.get_command(command._app).params
        found[name] = tuple(
            _Option(spelling, bool(getattr(parameter, "is_flag", False)))
            for parameter in parameters
            for spelling in (*parameter.opts, *parameter.secondary_opts)
            if spelling.startswith("--") and spelling not in _LEFT_OUT
        )
    return found


def prepare(base: Path) -> None:
    """Write the inputs of every command."""
    write_inputs(base)


@lru_cache(maxsize=1)
def _files(base: Path) -> dict[str, bytes]:
    return {path.relative_to(base).as_posix(): path.read_bytes() for path in base.rglob("*") if path.is_file()}


def generate(seed: int, base: Path) -> Case:
    """Return a command with its valid arguments, of which some are changed; unchanged ones for seeds that end in 00."""
    rng = random.Random(seed)
    names = list(COMMANDS)
    (name,) = rng.choices(names, [_WEIGHTS.get(each, 1.0) for each in names])
    if seed % 100 == 0:
        name = "glama-masks"
        return Case(f"{name}: valid", _files(base), arguments=(name, *ARGUMENTS[name]))
    arguments = list(ARGUMENTS[name])
    kind = rng.choice(
        ("value", "value", "value", "option", "option", "flag", "drop", "repeat", "extra", "unknown", "random")
    )
    label = f"{name}: {kind}"
    if name in _WEIGHTS or kind == "random":
        arguments, label = _random(rng, name), f"{name}: random"
    elif kind == "value":
        place = rng.choice([n for n, text in enumerate(arguments) if not text.startswith("--")])
        arguments[place] = _odd(rng, arguments[place - 1] if place else "")
        label = f"{name}: value of {arguments[place - 1] if place else 'argument'}"
    elif kind in ("option", "flag"):
        options = [option for option in _options()[name] if option.flag == (kind == "flag")]
        for option in rng.sample(options, min(len(options), rng.choice((1, 1, 2)))):
            arguments += [option.name] if option.flag else [option.name, _odd(rng, option.name)]
            label = f"{name}: {option.name}"
    elif kind == "drop":
        del arguments[rng.randrange(len(arguments))]
    elif kind == "repeat":
        arguments += rng.choice((arguments, arguments[:2]))
    elif kind == "extra":
        arguments.insert(rng.randrange(len(arguments) + 1), rng.choice((*_ODD, "--", *_OVERRIDES)))
    else:
        arguments.append(rng.choice(("--unknown", "--o", "-x", "--out=", "--=x", "---", "--out")))
    return Case(label, _files(base), arguments=(name, *arguments))


def _odd(rng: random.Random, option: str) -> str:
    """An odd value; for options that multiply the work, one that is refused or small."""
    if option in _MANY:
        return rng.choice(("", "0", "-1", "1", "x", "1.5", "nan", "a\nb", "9" * 5_000))
    return rng.choice(_ODD)


def _random(rng: random.Random, name: str) -> list[str]:
    """A few options with odd values and without the required ones; `--out` is a file in the way of a folder."""
    arguments = (
        [] if name != "glama-demo" else ["--out", rng.choice(("image.png", "images", "d/" * 2_500, "missing\n/x/y"))]
    )
    options = [option for option in _options()[name] if option.name != "--out"]
    for option in rng.sample(options, min(len(options), rng.randint(1, 3))):
        arguments += [option.name] if option.flag else [option.name, _odd(rng, option.name)]
    return [*arguments, "--no-such-option"] if name in _WEIGHTS and rng.random() < 0.5 else arguments


def check(case: Case, folder: Path, base: Path) -> None:
    """Run the command in this process; the exit code and what is printed keep to the contract."""
    name, *arguments = case.arguments
    with _streams() as (out, err):
        code = COMMANDS[name].run(arguments)
    printed, said = (_text(stream) for stream in (out, err))
    if code not in _EXIT_CODES:
        raise Wrong(f"{name}: exit code {code}")
    if "Traceback" in printed + said:
        raise Wrong(f"{name}: a traceback")
    if code == 2:
        raise GlamaError(_refusal(name, said))


def _refusal(name: str, said: str) -> str:
    """Return the one line in which a command says why it refuses its input."""
    start = f"{name}: "
    at = said.rfind(f"\n{start}") + 1
    if not said.startswith(start, at):
        summary = re.search(
            r"^failed: (.*)\n\d+ written, \d+ skipped, [1-9]\d* failed$", said, re.MULTILINE | re.DOTALL
        )
        if summary is None:
            raise Wrong(f"{name}: exit code 2 without a line that says why")
        return summary[1].splitlines()[0]
    return said[at + len(start) :].removesuffix("\n").removeprefix("note: ")


@contextmanager
def _streams() -> Iterator[Sequence[io.TextIOWrapper]]:
    """Take what is printed, with the encodings and error handlers of a process in a UTF-8 terminal."""
    before = sys.stdout, sys.stderr
    streams = [io.TextIOWrapper(io.BytesIO(), "utf-8", errors) for errors in ("strict", "backslashreplace")]
    sys.stdout, sys.stderr = streams
    try:
        yield streams
    finally:
        sys.stdout, sys.stderr = before


def _text(stream: io.TextIOWrapper) -> str:
    stream.flush()
    buffer = stream.buffer
    assert isinstance(buffer, io.BytesIO)
    return buffer.getvalue().decode()


def may_remain(case: Case, name: str, refused: bool) -> bool:
    """A command that refuses its input leaves nothing; every other command leaves no temporary file."""
    return not refused and not Path(name).name.startswith(".glama-")
