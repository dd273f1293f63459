"""Bundles: mutated manifests, artifacts that are changed, missing, elsewhere or of another type.

The outside truth is the picture that the unchanged bundle gives, and for a graph that was changed together with its
hash, the known pixels.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

import glama_deploy
from fuzz.case import Case, Wrong
from fuzz.generators import checkpoints
from fuzz.generators.mutation import ODD_NAMES, mutate_bytes, mutate_tree
from glama_deploy.bundle import MANIFEST
from glama_deploy.checkpoints import formats
from glama_deploy.export.pipeline import Request, export
from glama_deploy.reference.random_weights import untrained

#: A bundle of the least network has 60 kB; an engine takes some megabytes.
GROWTH_BYTES = 256 << 20
ADDRESS_BYTES = 8 << 30

_SIDE = 32


def prepare(base: Path) -> None:
    """Export the least network for ONNX Runtime and OpenVINO."""
    source = base / "network.safetensors"
    formats.save(source, checkpoints.NETWORK, untrained(checkpoints.NETWORK))
    export(Request(source, base / "bundle", ("openvino",), parity=False))


@lru_cache(maxsize=1)
def _files(base: Path) -> dict[str, bytes]:
    folder = base / "bundle"
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def generate(seed: int, base: Path) -> Case:
    """Return the unchanged bundle for seeds that end in 00, else one with one thing changed."""
    rng = random.Random(seed)
    files, links = dict(_files(base)), dict[str, str]()
    backend = rng.choice(("onnxruntime", "openvino"))
    manifest = json.loads(files[MANIFEST])
    if seed % 100 == 0:
        return _case("valid", files, links, backend, "same")
    artifacts = sorted(name for name in files if name != MANIFEST)
    chosen = rng.choice(artifacts)
    kind = rng.choice(
        (
            *("tree", "tree", "tree", "text", "path", "path"),
            *("changed", "missing", "link", "rehashed", "exchanged", "deep"),
        )
    )
    expected = "same"
    if kind == "tree":
        files[MANIFEST] = json.dumps(mutate_tree(rng, manifest, rng.choice((1, 1, 3)))).encode()
        expected = "any"  # a mean or a note of the manifest may change without changing the picture
    elif kind == "text":
        files[MANIFEST] = mutate_bytes(rng, files[MANIFEST])[1]
    elif kind == "path":
        artifact = rng.choice(list(_artifacts(manifest)))
        odd = ("../escape", "a/../../escape", "/etc/hostname", "./model.onnx", "openvino", "a\\..\\b", "model.onnx/x")
        artifact["path"] = rng.choice((*odd, *ODD_NAMES))
        files[MANIFEST] = json.dumps(manifest).encode()
    elif kind == "changed":
        files[chosen] = mutate_bytes(rng, files[chosen])[1]
    elif kind == "missing":
        del files[rng.choice((chosen, MANIFEST))]
    elif kind == "link":
        name = rng.choice((chosen, MANIFEST))
        del files[name]
        links[name] = rng.choice(
            ("/etc/hostname", "/dev/zero", "/nowhere", name.rsplit("/", 1)[-1], "..", "/dev/stdin")
        )
    elif kind == "rehashed":
        files[chosen] = mutate_bytes(rng, files[chosen])[1]
        for artifact in _artifacts(manifest):
            if artifact["path"] == chosen:
                artifact |= {"sha256": hashlib.sha256(files[chosen]).hexdigest(), "bytes": len(files[chosen])}
        files[MANIFEST] = json.dumps(manifest).encode()
        expected = "any"
    elif kind == "exchanged":
        other = rng.choice(artifacts)
        files[chosen], files[other] = files[other], files[chosen]
    else:
        files[MANIFEST] = b'{"network":' * rng.choice((500, 200_000))
    return _case(kind, files, links, backend, expected)


def _case(kind: str, files: dict[str, bytes], links: dict[str, str], backend: str, expected: str) -> Case:
    placed = {f"bundle/{name}": data for name, data in files.items()}
    linked = {f"bundle/{name}": target for name, target in links.items()}
    return Case(f"{backend}: {kind}", placed, linked, (backend,), expected)


def _artifacts(node: Any) -> Iterator[dict[str, Any]]:
    """Yield every artifact of a manifest."""
    if isinstance(node, dict):
        if node.keys() >= {"path", "sha256", "bytes"}:
            yield node
        node = list(node.values())
    if isinstance(node, list):
        for each in node:
            yield from _artifacts(each)


def check(case: Case, folder: Path, base: Path) -> None:
    """Load the bundle and fill a hole; the picture is the unchanged bundle's, or at least keeps the known pixels."""
    (backend,) = case.arguments
    image, mask = _inputs()
    found = _fill(folder / "bundle", backend)
    if found.shape != image.shape or not np.array_equal(found[~mask], image[~mask]):
        raise Wrong("known pixels changed")
    if case.expected == "same" and not np.array_equal(found, _truth(base, backend)):
        raise Wrong("another picture")


def _fill(bundle: Path, backend: str) -> np.ndarray:
    return glama_deploy.load(bundle, backend, threads=1, compile_sizes=False)(*_inputs())


@lru_cache(maxsize=2)
def _truth(base: Path, backend: str) -> np.ndarray:
    return _fill(base / "bundle", backend)


@lru_cache(maxsize=1)
def _inputs() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    mask = np.zeros((_SIDE, _SIDE), bool)
    mask[8:20, 10:24] = True
    return rng.integers(0, 256, (_SIDE, _SIDE, 3), np.uint8), mask


def may_remain(case: Case, name: str, refused: bool) -> bool:
    """Loading writes nothing into a bundle."""
    return False
