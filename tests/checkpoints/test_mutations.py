"""A small fixed set of damaged checkpoints: each is refused in one line, or read as the format's own reader reads it.

A flipped bit of a number cannot be told from a number where the format has no checksum, so other programs say what a
damaged file holds: `torch.load` and safetensors.
"""

from __future__ import annotations

import io
import tracemalloc
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from glama_deploy.checkpoints import formats
from glama_deploy.errors import CheckpointError
from glama_deploy.network import NetworkConfig

MUTATIONS = 70
#: The smallest network there is, so that a mutation often meets what matters.
SMALLEST = NetworkConfig(ngf=2, n_blocks=1, n_downsampling=1, ratio=0.5)
#: Beside some copies of the file: tracemalloc counts Python's and NumPy's memory.
MAX_BYTES = 12 << 20

Mutation = Callable[[bytearray, np.random.Generator], bytearray]


def flip_a_bit(data: bytearray, rng: np.random.Generator) -> bytearray:
    data[rng.integers(len(data))] ^= 1 << rng.integers(8)
    return data


def flip_a_bit_of_the_head(data: bytearray, rng: np.random.Generator) -> bytearray:
    """Where the pickle or the header stands."""
    data[rng.integers(min(len(data), 4000))] ^= 1 << rng.integers(8)
    return data


def write_a_byte(data: bytearray, rng: np.random.Generator) -> bytearray:
    data[rng.integers(len(data))] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, ord("."), ord("("), ord("}")])
    return data


def cut(data: bytearray, rng: np.random.Generator) -> bytearray:
    return data[: rng.integers(len(data))]


def remove_a_part(data: bytearray, rng: np.random.Generator) -> bytearray:
    begin, length = rng.integers(len(data)), rng.integers(1, 40)
    return data[:begin] + data[begin + length :]


def repeat_a_part(data: bytearray, rng: np.random.Generator) -> bytearray:
    begin, length, place = rng.integers(len(data)), rng.integers(1, 200), rng.integers(len(data))
    return data[:place] + data[begin : begin + length] + data[place:]


def exchange_two_parts(data: bytearray, rng: np.random.Generator) -> bytearray:
    length = int(rng.integers(1, 60))
    one, other = (int(place) for place in rng.integers(0, len(data) - length, 2))
    data[one : one + length], data[other : other + length] = data[other : other + length], data[one : one + length]
    return data[:]


ALL: tuple[Mutation, ...] = (
    flip_a_bit,
    flip_a_bit_of_the_head,
    write_a_byte,
    cut,
    remove_a_part,
    repeat_a_part,
    exchange_two_parts,
)


def pickle_of_a_zip(mutate: Mutation) -> Mutation:
    """The same mutation in the pickle alone, with a directory and checksums that fit."""

    def inside(data: bytearray, rng: np.random.Generator) -> bytearray:
        with io.BytesIO() as buffer:
            with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(buffer, "w") as target:
                for name in source.namelist():
                    content = bytearray(source.read(name))
                    target.writestr(name, bytes(mutate(content, rng) if name.endswith("data.pkl") else content))
            return bytearray(buffer.getvalue())

    return inside


@pytest.fixture(scope="module")
def state() -> OrderedDict[str, torch.Tensor]:
    from glama_deploy.reference.random_weights import untrained

    return OrderedDict((name, torch.from_numpy(values)) for name, values in untrained(SMALLEST).items())


def make(kind: str, state: OrderedDict[str, torch.Tensor], tmp_path: Path) -> bytearray:
    path = tmp_path / "whole"
    if kind == "ours":
        formats.save(tmp_path / "x.pt", SMALLEST, {name: values.numpy() for name, values in state.items()})
        return bytearray((tmp_path / "x.pt").read_bytes())
    if kind == "safetensors":
        safetensors.torch.save_file(dict(state), path)
    elif kind == "torchscript":
        weights = {name: values.numpy() for name, values in state.items()}
        generator = formats.build_module(formats.Checkpoint(path, "", "", SMALLEST, weights))
        with pytest.warns(match="deprecated"):
            torch.jit.trace(generator, torch.rand(1, 4, 16, 16)).save(str(path))
    else:
        torch.save(state, path, _use_new_zipfile_serialization=kind == "zip")
    return bytearray(path.read_bytes())


def by_another_reader(kind: str, path: Path) -> dict[str, torch.Tensor] | None:
    """What another program reads from the file, or None where it refuses the file."""
    try:
        if kind == "safetensors":
            return safetensors.torch.load_file(path)
        if kind == "torchscript":
            return None  # its reader compiles code; values are compared with the whole file's
        found = torch.load(path, weights_only=True)
        return found["state_dict"] if kind == "ours" else found
    except Exception:  # noqa: BLE001 (it raises many)
        return None


def read_or_refuse(path: Path) -> tuple[dict[str, np.ndarray], str]:
    """A file's parameters and an empty text, or nothing and the refusal. Any other exception is the test's failure."""
    try:
        return formats.read(path).weights, ""
    except CheckpointError as error:
        return {}, str(error)


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors", "ours", "torchscript"])
def test_a_damaged_file_is_refused_in_one_line_or_read_right(tmp_path, state, kind):
    whole = make(kind, state, tmp_path)
    rng = np.random.default_rng(18)
    mutations = ALL + (tuple(map(pickle_of_a_zip, ALL)) if kind in ("zip", "ours", "torchscript") else ())
    path = tmp_path / "damaged"
    for number in range(MUTATIONS):
        path.write_bytes(mutations[number % len(mutations)](bytearray(whole), rng))
        counted = number % 5 == 0  # counting makes reading several times slower
        if counted:
            tracemalloc.start()
        weights, refusal = read_or_refuse(path)
        if counted:
            assert tracemalloc.get_traced_memory()[1] < MAX_BYTES + 20 * len(whole), number
            tracemalloc.stop()
        assert refusal.isprintable(), number
        assert len(refusal) < 600, number
        expected = by_another_reader(kind, path) or state
        for name, values in weights.items():
            np.testing.assert_array_equal(values, expected[name].float().numpy(), f"{number}: {name}")
