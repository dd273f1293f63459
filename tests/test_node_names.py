"""Names in graphs that one module writes and another module reads."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path

from glama_deploy import node_names
from glama_deploy.export.graph.network import OUTPUTS, build
from glama_deploy.network import NetworkConfig
from glama_deploy.reference.random_weights import untrained

ROOT = Path(__file__).parents[1]

TINY = NetworkConfig(ngf=8, n_blocks=1)
TWO_STAGES = NetworkConfig(ngf=8, n_blocks=1, coarse=TINY, coarse_side=64)
FILLED = NetworkConfig(ngf=8, n_blocks=1, fill="pull-push", fine_blocks=1)
UNSCALED = NetworkConfig(ngf=8, n_blocks=1, fft_norm="backward")

#: Every constant, as bundles that exist already have it.
STORED = {
    "IMAGE": "image",
    "CARVE_OUTPUT": "output",
    "MIGAN_OUTPUT": "result",
    "MASK": "mask",
    "INPAINTED": "inpainted",
    "PREDICTED": "predicted",
    "BATCH": "batch",
    "HEIGHT": "height",
    "WIDTH": "width",
    "WINDOW": "window",
    "COARSE_PREFIX": "coarse/",
    "COMPOSE": "compose",
    "MASKED": "compose/masked",
    "KEEP": "compose/keep",
    "COMPOSE_PREDICTED": "compose/predicted",
    "COMPOSE_CROPPED": "compose/cropped",
    "SHRINK": "shrink",
    "COARSE_PICTURE": "coarse_picture",
    "ENLARGE": "enlarge",
    "FILL": "fill",
    "FFT": "fft",
    "STEM": "stem",
    "DOWN": "down",
    "BLOCK": "block",
    "BOTTLENECK": "bottleneck",
    "UP": "up",
    "HEAD": "head",
    "SKIP": "skip",
    "FINE": "fine",
    "BLOCK_LAYERS": ("conv1", "conv2"),
    "LOCAL": "local",
    "GLOBAL": "global",
    "LOCAL_TO_LOCAL": "l2l",
    "LOCAL_TO_GLOBAL": "l2g",
    "GLOBAL_TO_LOCAL": "g2l",
    "GLOBAL_TO_GLOBAL": "g2g",
    "PAD": "pad",
    "RELU": "relu",
    "TRANSFORM_INPUT": "in_relu",
    "SPECTRUM": "spectrum",
    "SUM": "sum",
    "RFFT": "rfft",
    "IRFFT": "irfft",
    "NORM_SHIFT": "norm_shift",
    "ROW": "row",
    "COLUMN": "column",
    "ROW_MAJOR": "row_major",
    "ROW_MINOR": "row_minor",
    "COLUMN_MAJOR": "column_major",
    "COLUMN_MINOR": "column_minor",
    "INTERLEAVE": "interleave",
    "DEINTERLEAVE": "deinterleave",
    "PARTS_FIRST": "parts_first",
    "SCALE": "scale",
    "COMPLEX": "complex",
    "INVERSE_SUFFIX": "_inverse",
    "ROW_BASIS": "fft/row",
    "COLUMN_BASIS": "fft/column",
    "ROW_INVERSE_BASIS": "fft/row_inverse",
    "COLUMN_INVERSE_BASIS": "fft/column_inverse",
}

#: Words that stand in no other string of the software.
DISTINCTIVE = {
    *("compose", "coarse_picture", "enlarge", "l2l", "l2g", "g2l", "g2g", "in_relu", "rfft", "irfft"),
    *("row_major", "row_minor", "column_major", "column_minor", "interleave", "deinterleave", "parts_first"),
}


def test_names_are_as_bundles_have_them():
    names = {name: value for name, value in vars(node_names).items() if name.isupper()}
    assert names == STORED


def written_names() -> set[str]:
    """All names of nodes, values and axes of the graphs of each kind of network in each lowering."""
    names = set()
    for config, (size, fft), io in product(
        (TINY, TWO_STAGES, FILLED, UNSCALED),
        ((None, "matmul"), ((64, 64), "matmul"), ((64, 64), "split"), (None, "dft"), (None, "plugin")),
        ("float", "uint8", "carve", "migan"),
    ):
        graph = build(config, untrained(config), size, OUTPUTS, fft, io).graph
        names.update(node.name for node in graph.node)
        names.update(constant.name for constant in graph.initializer)
        for value in (*graph.input, *graph.output):
            names.add(value.name)
            names.update(side.dim_param for side in value.type.tensor_type.shape.dim)
    return names


def test_every_name_is_written_by_the_exporter():
    # numbers follow some words, and _ joins some: block0, up1, local_pad
    words = {word for name in written_names() for word in re.split(r"/|\d+|(_)", name) if word}
    paths = "\n".join(sorted(written_names()))
    for name, value in STORED.items():
        for each in (value,) if isinstance(value, str) else value:
            assert each in words or each in paths, name


def sources() -> list[Path]:
    folders = ("glama_deploy", "export", "engines", "benchmarks")
    return [path for folder in folders for path in (ROOT / folder).rglob("*.py") if path.name != "node_names.py"]


def literals(path: Path) -> Iterator[str]:
    """The strings in a file that are not documentation."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    documentation = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
            yield node.value


def test_no_other_file_has_such_a_name_as_a_string():
    own = {
        (str(path.relative_to(ROOT)), text)
        for path in sources()
        for text in literals(path)
        if " " not in text and DISTINCTIVE & set(re.split(r"\W", text))
    }
    assert own == set()  # the constants of glama_deploy.node_names are used in their place
