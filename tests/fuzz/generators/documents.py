"""YAML: the `config.yaml` of a LaMa folder and the config files and overrides of a training, mutated and crafted.

The outside truth of a LaMa config is a list of the values under which our generator computes what LaMa computes; a
training config must come back from its own text.
"""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import yaml

from fuzz.case import Case, Wrong
from fuzz.generators import checkpoints
from fuzz.generators.mutation import ODD_NAMES, ODD_VALUES, mutate_bytes, mutate_tree
from glama_deploy.checkpoints import formats
from glama_deploy.text import plain_yaml
from glama_deploy.training import config

GROWTH_BYTES = 128 << 20
ADDRESS_BYTES = 4 << 30

_CONFIG = "config.yaml"

#: A LaMa config of `checkpoints.NETWORK`.
_LAMA: dict[str, Any] = {
    "run_title": "b18_ffc075",
    "training_model": {"kind": "default", "concat_mask": True, "store_discr_outputs_for_vis": True},
    "generator": {
        "kind": "ffc_resnet",
        "input_nc": 4,
        "output_nc": 3,
        "ngf": 4,
        "n_downsampling": 1,
        "n_blocks": 1,
        "add_out_act": "sigmoid",
        "init_conv_kwargs": {"ratio_gin": 0, "ratio_gout": 0, "enable_lfu": False},
        "downsample_conv_kwargs": {"ratio_gin": 0, "ratio_gout": 0, "enable_lfu": False},
        "resnet_conv_kwargs": {"ratio_gin": 0.75, "ratio_gout": 0.75, "enable_lfu": False},
    },
    "optimizers": {"generator": {"kind": "adam", "lr": 0.001}},
}

#: Fields of LaMa that change what the network computes, and the values that the embedded generator computes with; None
#: stands for a field that is absent.
_MEANING: dict[str, tuple[Any, ...]] = {
    "generator.kind": ("ffc_resnet",),
    "generator.input_nc": (4,),
    "generator.output_nc": (3,),
    "generator.ngf": (4, None),
    "generator.n_downsampling": (1, None),
    "generator.n_blocks": (1, None),
    "generator.add_out_act": ("sigmoid",),
    "generator.padding_type": ("reflect", None),
    "generator.resnet_conv_kwargs.enable_lfu": (False, None),
    "generator.resnet_conv_kwargs.fft_norm": ("ortho", None),
    "generator.resnet_conv_kwargs.spatial_scale_factor": (None,),
    "generator.resnet_conv_kwargs.dilation": (1, None),
    "generator.resnet_conv_kwargs.use_se": (False, None),
    "generator.resnet_conv_kwargs.ffc3d": (False, None),
    "generator.spatial_transform_layers": (None,),
    "generator.out_ffc": (False, None),
    "training_model.noise_fill_hole": (False, None),
    "training_model.concat_mask": (True, None),
}

_TRAINING: dict[str, Any] = {
    "base": "glama-tiny",
    "network": {"ngf": 8, "n_blocks": 1},
    "data": {"train": ["photos"], "side": 32, "masks": "general", "workers": 0},
    "optimization": {"steps": 3, "batch": 2, "generator_rate": 0.001, "schedule": "constant"},
    "saving": {"every": 1, "keep": 2},
    "weights": {},
}

#: Lines that YAML readers stumble over.
_ODD_YAML = (
    "a: &a [x, x]\nb: &b [*a, *a]\n",
    "!!python/object/apply:os.system ['touch CODE-WAS-RUN']",
    "x: !!bool maybe",
    "x: !!int twelve",
    "x: !!timestamp 2024-99-99",
    "x: 2024-99-99",
    "x: !!float x",
    "x: !!binary '*'",
    "x: !!set {a, b}",
    "x: !!omap [a: 1]",
    "<<: 1",
    "<<: [1, 2]",
    "? [a, b]\n: c",
    "? {a: b}\n: c",
    "x: !unknown y",
    "%YAML 9.9\n---\nx: 1",
    "--- a\n--- b",
    "\tx: 1",
    "x: '\x00'",
    "x: \x1b[31m",
    "x: 0o777777777777777777777777777777777777777777777777777777",
    "x: 1_000:99:99",
    "x: " + "9" * 5_000,
    "x: 1e999999999",
    "x: *missing",
    "base: [1]",
    "base: {a: b}",
    "generator: &g\n  kind: ffc_resnet\n  self: *g",
)


def prepare(base: Path) -> None:
    """Write the weights that the LaMa folders share."""
    (base / "networks").mkdir()
    checkpoints.prepare(base / "networks")
    shutil.copy(base / "networks" / "bare.ckpt", base / "best.ckpt")


def generate(seed: int, base: Path) -> Case:
    """Return a LaMa folder, a training config or overrides; the valid ones for seeds that end in 00."""
    rng = random.Random(seed)
    if rng.random() < 0.45:
        tree: dict[str, Any] = _LAMA
        make = _lama_case
    else:
        tree, make = _TRAINING, _training_case
    if seed % 100 == 0:
        return make(base, "valid", _text(tree))
    kind = rng.choice(
        ("tree", "tree", "meaning", "bytes", "odd line", "deep", "bomb", "merge bomb", "encoding", "override")
    )
    if kind == "tree":
        return make(base, kind, _text(mutate_tree(rng, tree, rng.choice((1, 1, 2, 4)))))
    if kind == "meaning":
        return _lama_case(base, kind, _text(_with_meaning(rng)))
    if kind == "override":
        return _override_case(rng)
    if kind == "bytes":
        return make(base, kind, mutate_bytes(rng, _text(tree))[1])
    if kind == "odd line":
        lines = (_text(tree).decode(), rng.choice(_ODD_YAML))
        return make(base, kind, "\n".join(rng.sample(lines, 2)).encode())
    if kind == "deep":
        depth = rng.choice((30, 1_000, 100_000))
        opened = rng.choice(("[", "{a: ", "- "))
        return make(base, kind, _text(tree) + f"\nx: {opened * depth}\n".encode())
    if kind in ("bomb", "merge bomb"):
        return make(base, kind, _text(tree) + _bomb(rng.choice((5, 12, 30)), merge=kind == "merge bomb"))
    coded = _text(tree).decode().encode(rng.choice(("utf-16", "utf-32", "utf-8-sig")))
    return make(base, kind, rng.choice((coded, b"\xff\xfe" + _text(tree), _text(tree) + b"\nx: \xe9\n", b"")))


def _text(tree: Any) -> bytes:
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True).encode("utf-8", "surrogatepass")


def _lama_case(base: Path, kind: str, text: bytes) -> Case:
    files = {f"lama/{_CONFIG}": text, "lama/models/best.ckpt": (base / "best.ckpt").read_bytes()}
    return Case(f"lama: {kind}", files, expected="lama")


def _training_case(base: Path, kind: str, text: bytes) -> Case:
    return Case(f"training: {kind}", {_CONFIG: text}, expected="training")


def _override_case(rng: random.Random) -> Case:
    keys = ("data.side", "data.train", "network.ngf", "optimization.steps", "saving.keep", "weights.l1", "data", "")
    key = rng.choice((*keys, *ODD_NAMES))
    value = rng.choice(
        (*map(str, ODD_VALUES), "2024-99-99", "[photos", "!!bool x", "&a [*a]", "9" * 5_000, "[" * 5_000)
    )
    override = rng.choice((f"{key}={value}", f"{key}.x={value}", key, f"={value}"))
    return Case("training: override", {_CONFIG: _text(_TRAINING)}, arguments=(override,), expected="training")


def _with_meaning(rng: random.Random) -> dict[str, Any]:
    """A LaMa config in which one meaningful field has another value, or is absent."""
    tree = yaml.safe_load(_text(_LAMA))
    *parents, last = rng.choice(list(_MEANING)).split(".")
    node = tree
    for parent in parents:
        node = node[parent]
    value = rng.choice((None, True, False, 0, 2, 0.5, "tanh", "backward", "forward", "none", "zero", {"kind": "x"}))
    if rng.random() < 0.3:
        node.pop(last, None)
    else:
        node[last] = value
    return dict(tree)


def _bomb(levels: int, *, merge: bool) -> bytes:
    """Aliases of aliases: each level has ten times the nodes of the level below."""
    lines = ["a0: &a0 {x: y}" if merge else "a0: &a0 [x, x]"]
    for level in range(1, levels):
        names = ", ".join([f"*a{level - 1}"] * 10)
        lines.append(
            f"a{level}: &a{level} {{<<: [{names}], k{level}: 1}}" if merge else f"a{level}: &a{level} [{names}]"
        )
    return ("\n" + "\n".join(lines) + "\n").encode()


def check(case: Case, folder: Path, base: Path) -> None:
    """Read the config; what it says is what was read."""
    if case.expected == "training":
        found = config.load(str(folder / _CONFIG), case.arguments)
        again = folder / "again.yaml"
        again.write_text(config.to_yaml(found), encoding="utf-8")
        try:
            if config.load(str(again)) != found:
                raise Wrong("the config that is written is not the config that was read")
        finally:
            again.unlink()
        return
    read = formats.read(folder / "lama")
    if read.config != checkpoints.NETWORK:
        raise Wrong("the network is another one")
    tree = plain_yaml.read(folder / "lama" / _CONFIG)  # PyYAML's own loader fails on odd dates
    for name, meant in _MEANING.items():
        value = _at(tree, name)
        if not any(_same(value, each) for each in meant):
            raise Wrong(f"{name} is not what the network computes with")


def _same(one: Any, other: Any) -> bool:
    """LaMa asks whether a flag is true: 0 and False are one value, 1 and True, too."""
    return one == other and (type(one) is type(other) or (isinstance(one, int) and isinstance(other, int)))


def _at(tree: Any, dotted: str) -> Any:
    for key in dotted.split("."):
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree


def may_remain(case: Case, name: str, refused: bool) -> bool:
    """Reading writes nothing."""
    return False
