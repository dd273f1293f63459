"""Mutations that several subjects share: of bytes, of names and of JSON-like trees."""

from __future__ import annotations

import copy
import random
from typing import Any

#: Names that have led readers astray.
ODD_NAMES = (
    "",
    ".",
    "..",
    "a\nb",
    "\x1b[31mred\x1b[0m",
    "\x00",
    "\u202egnp.exe",
    "n" * 5_000,
    "../../escape",
    "/etc/passwd",
    "C:\\windows\\x",
    "ü😀",
    "%s%n",
    "{0}",
    "[red]x[/red]",
    "-",
    "model.1.ffc.convl2l.weight",
)

#: Values of other types and sizes than the readers expect.
ODD_VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1,
    2,
    7,
    255,
    2**31,
    2**63,
    10**400,
    0.5,
    -0.0,
    1e308,
    float("inf"),
    float("nan"),
    "",
    "text",
    [],
    [1],
    {},
    {"a": 1},
    [[[[[]]]]],
    *ODD_NAMES,
)

#: What downloads often are instead of the file.
NOT_THE_FILE = (
    b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 205669692\n",
    b"<!DOCTYPE html><html><head><title>404 Not Found</title></head></html>",
    b'{"error": "Repository not found"}',
    b"\x80\x02}q\x00.",
    b"PK\x03\x04",
    b"PK\x05\x06" + bytes(18),
    b"\x00" * 64,
    b"\xff" * 4096,
)


def mutate_bytes(rng: random.Random, data: bytes) -> tuple[str, bytes]:
    """Return the name of a mutation, and the mutated bytes."""
    kind = rng.choice(("flip", "flips", "truncate", "insert", "delete", "repeat", "zeros", "ends", "other"))
    at = rng.randrange(len(data) + 1)
    length = min(rng.choice((1, 4, 16, 200)), len(data) - at)
    changed = bytearray(data)
    if kind in ("flip", "flips"):
        for _ in range(1 if kind == "flip" else rng.randint(2, 30)):
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    elif kind == "truncate":
        del changed[at:]
    elif kind == "insert":
        changed[at:at] = rng.randbytes(rng.choice((1, 4, 16, 200)))
    elif kind == "delete":
        del changed[at : at + length]
    elif kind == "repeat":
        changed[at:at] = changed[at : at + length] * rng.choice((1, 2, 50))
    elif kind == "zeros":
        changed[at : at + length] = bytes(length)
    elif kind == "ends":  # headers and directories lie at the ends of most formats
        place = rng.choice((rng.randrange(min(64, len(changed))), -1 - rng.randrange(min(200, len(changed)))))
        changed[place] = rng.choice((0, 1, 0x7F, 0x80, 0xFF))
    else:
        return kind, rng.choice(NOT_THE_FILE)
    return kind, bytes(changed)


def mutate_tree(rng: random.Random, tree: Any, times: int = 1) -> Any:
    """Return a copy of nested dicts and lists in which nodes were replaced, removed, renamed or repeated."""
    tree = copy.deepcopy(tree)
    for _ in range(times):
        places = list(_places(tree))
        if not places:
            break
        parent, key = rng.choice(places)
        kind = rng.choice(("replace", "replace", "replace", "remove", "rename", "wrap", "move"))
        if kind == "replace":
            parent[key] = copy.deepcopy(rng.choice(ODD_VALUES))
        elif kind == "remove":
            del parent[key]
        elif kind == "rename" and isinstance(parent, dict):
            parent[rng.choice((*ODD_NAMES, f"{key}x"))] = parent.pop(key)
        elif kind == "wrap":
            parent[key] = rng.choice(([parent[key]], {"x": parent[key]}, str(parent[key])))
        else:
            other, name = rng.choice(places)
            parent[key] = copy.deepcopy(other[name]) if name in other or isinstance(other, list) else None
    return tree


def _places(node: Any) -> Any:
    """Yield every (container, key) in a tree."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in list(items):
        yield node, key
        yield from _places(value)
