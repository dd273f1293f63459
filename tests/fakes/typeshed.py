"""What Python's standard library has on a system, as typeshed's stubs say. mypy brings the stubs."""

from __future__ import annotations

import ast
import importlib.util
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace


@cache
def _find_stubs() -> Path:
    spec = importlib.util.find_spec("mypy")
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0], "typeshed", "stdlib")


@cache
def list_names(module: str, platform: str) -> frozenset[str]:
    """The public names of a module where `sys.platform` is the platform; none where the module is missing."""
    path = _find_stubs() / f"{module}.pyi"
    path = path if path.is_file() else _find_stubs() / module / "__init__.pyi"
    if not path.is_file():
        return frozenset()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return frozenset(name for name in _walk(tree.body, platform) if not name.startswith("_"))


@cache
def find_lacking(module: str, platform: str) -> frozenset[str]:
    """The names that a module has on Linux, and not on the platform."""
    return list_names(module, "linux") - list_names(module, platform)


def is_missing(module: str, platform: str) -> bool:
    """Whether a module that Linux has is not on the platform."""
    return bool(list_names(module, "linux")) and not list_names(module, platform)


def _walk(body: list[ast.stmt], platform: str) -> Iterator[str]:
    for node in body:
        match node:
            case ast.If():
                holds = _evaluate(node.test, platform)
                yield from _walk(node.body if holds else node.orelse, platform)
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield node.name
            case ast.AnnAssign(annotation=ast.Name(id="TypeAlias")):
                continue
            case ast.AnnAssign(target=ast.Name(id=name)):
                yield name
            case ast.Assign(targets=targets):
                yield from (target.id for target in targets if isinstance(target, ast.Name))
            case ast.ImportFrom(module=source, names=[ast.alias(name="*")]) if source:
                yield from list_names(source, platform)
            case ast.ImportFrom(names=names):
                yield from (each.asname for each in names if each.asname)


def _evaluate(test: ast.expr, platform: str) -> bool:
    there = SimpleNamespace(platform=platform, version_info=sys.version_info)
    return bool(eval(compile(ast.Expression(test), "stub", "eval"), {"sys": there}))
