"""Links, names and options in the Markdown files exist. `make docs` checks the links between pages of the site, not
its pictures, and not the files outside of docs/."""

from __future__ import annotations

import pkgutil
import re
from pathlib import Path

import pytest

from glama_deploy.cli import (
    bench,
    build,
    demo,
    doctor,
    export,
    frames,
    glama,
    inpaint,
    mask,
    masks,
    mcp,
    models,
    package,
    serve,
    train,
)
from glama_deploy.cli import eval as evaluation

ROOT = Path(__file__).parents[1]
FILES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/*.md")])
#: The README and the guides. CONTRIBUTING.md names modules of an engine that does not exist.
GUIDES = [file for file in FILES if file.parent.name == "docs" or file.name == "README.md"]

COMMANDS = {
    "bench": bench,
    "build": build,
    "demo": demo,
    "doctor": doctor,
    "eval": evaluation,
    "export": export,
    "frames": frames,
    "inpaint": inpaint,
    "mask": mask,
    "masks": masks,
    "mcp": mcp,
    "models": models,
    "package": package,
    "run": inpaint,
    "serve": serve,
    "train": train,
}

#: Options in the guides that belong to typer, pip, venv, cmake, npm, Ray, uvicorn and scripts of benchmarks/quality.
FOREIGN_OPTIONS = {"--help", "--force-reinstall", "--system-site-packages", "--build", "--train", "--steps", "--shares"}
FOREIGN_OPTIONS |= {"--timeout-graceful-shutdown", "--ignore-scripts", "--prefix", "--head", "--credits", "--photos"}
#: Options of tritonserver, Docker, OpenVINO Model Server and of the clients in examples/.
FOREIGN_OPTIONS |= {"--model-repository", "--backend-config", "--shm-size", "--config", "--rest", "--grpc", "--url"}

#: Options of torchrun.
FOREIGN_OPTIONS |= {"--nnodes", "--node-rank", "--nproc-per-node", "--master-addr", "--master-port", "--no-python"}

#: README stays short: it is read in two minutes.
MAX_README_LINES, MAX_README_WORDS = 90, 700


def find_links(file: Path) -> list[str]:
    """Return the targets of a file's links and pictures that lie in the checkout, without anchors."""
    text = re.sub(r"^```.*?^```|`[^`\n]*`", "", file.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    targets = re.findall(r"\]\(([^)\s]+)\)", text)
    return [target.partition("#")[0] for target in targets if not re.match(r"https?:|mailto:|#", target)]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_every_link_and_picture_is_a_file(file):
    assert [link for link in find_links(file) if not (file.parent / link).is_file()] == []


def list_options(command: str) -> set[str]:
    """Return the options of a command and its subcommands, with both names of a switch."""
    root = COMMANDS[command].main.make_parser()
    parameters = [each for found in (root, *getattr(root, "commands", {}).values()) for each in found.params]
    return {name for parameter in parameters for name in (*parameter.opts, *parameter.secondary_opts)}


GLAMA_OPTIONS = {name for parameter in glama.main.make_parser().params for name in parameter.opts}


def find_options(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text))


@pytest.mark.parametrize("file", GUIDES, ids=lambda file: file.name)
def test_every_name_of_the_package_in_a_guide_exists(file):
    names = set(re.findall(r"\bglama_deploy(?:\.\w+)+", file.read_text(encoding="utf-8")))
    for name in sorted(names):
        pkgutil.resolve_name(name)  # raises an error that has the name


@pytest.mark.parametrize("file", GUIDES, ids=lambda file: file.name)
def test_every_option_in_a_guide_is_an_option_of_a_command(file):
    known = FOREIGN_OPTIONS.union(GLAMA_OPTIONS, *map(list_options, COMMANDS))
    assert find_options(file.read_text(encoding="utf-8")) - known == set()


@pytest.mark.parametrize("file", GUIDES, ids=lambda file: file.name)
def test_every_command_line_in_a_guide_has_options_of_its_command(file):
    text = file.read_text(encoding="utf-8").replace("\\\n", " ")
    lines = re.findall(rf"\bglama[- ]({'|'.join(COMMANDS)})\b([^`|;#\n]*)", text)
    wrong = [(command, find_options(rest) - list_options(command) - {"--help"}) for command, rest in lines]
    assert [(command, options) for command, options in wrong if options] == []


def test_the_readme_is_short():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MAX_README_LINES
    assert len(text.split()) <= MAX_README_WORDS
