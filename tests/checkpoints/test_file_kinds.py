"""Files are told by their content, whatever their suffix; a download that is none is called what it is."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import tarfile
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import safetensors.torch
import torch

from glama_deploy.checkpoints import formats
from glama_deploy.errors import CheckpointError
from glama_deploy.network import NetworkConfig

TINY = NetworkConfig(ngf=8, n_blocks=1)


@pytest.fixture(scope="module")
def state(tiny: Path) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(values) for name, values in formats.read(tiny).weights.items()}


def write(path: Path, kind: str, state: dict[str, torch.Tensor]) -> None:
    if kind == "safetensors":
        safetensors.torch.save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=kind == "zip")


@pytest.mark.parametrize("kind", ["safetensors", "zip", "legacy"])
@pytest.mark.parametrize("name", ["x.safetensors", "x.ckpt", "x.pt", "x", "x.zip"])
def test_a_suffix_says_nothing(tmp_path, state, kind, name):
    write(tmp_path / name, kind, state)
    weights = formats.read(tmp_path / name).weights
    for name, values in state.items():
        np.testing.assert_array_equal(weights[name], values.numpy())


@pytest.mark.parametrize("kind", ["safetensors", "zip", "legacy"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64", "float32"])
def test_floats_of_each_type_are_read(tmp_path, state, kind, dtype):
    """ml_dtypes, another program, says what the values are."""
    write(tmp_path / "x", kind, {name: values.to(getattr(torch, dtype)) for name, values in state.items()})
    read = formats.read(tmp_path / "x")
    numpy_type = getattr(ml_dtypes, dtype) if dtype == "bfloat16" else dtype
    for name, values in state.items():
        assert read.weights[name].dtype == np.float32
        np.testing.assert_array_equal(read.weights[name], values.numpy().astype(numpy_type).astype(np.float32))
    read.weights["model.1.bn_l.bias"][0] = 1  # the caller's own


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e5m2", "int8", "int64", "bool"])
def test_other_types_in_safetensors_are_named(tmp_path, state, dtype):
    name = "model.1.bn_l.bias"
    safetensors.torch.save_file({**state, name: state[name].to(getattr(torch, dtype))}, tmp_path / "x")
    with pytest.raises(CheckpointError, match=rf"{name} is \w+; float32, float64, float16, bfloat16 are supported"):
        formats.read(tmp_path / "x")


def test_our_own_safetensors_keep_their_config_under_any_name(tmp_path, tiny):
    shutil.copy(tiny, tmp_path / "x.ckpt")
    read = formats.read(tmp_path / "x.ckpt")
    assert (read.kind, read.config) == ("safetensors", TINY)


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:344c77bb\nsize 205669692\n"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", r"is empty \(0 bytes\)"),
        (LFS, "Git LFS pointer of 78 bytes; the file itself has 205669692 bytes: run git lfs pull"),
        (b"<!DOCTYPE html>\n<html><body>Sign in</body></html>", "web page .* of 49 bytes"),
        (b"\xef\xbb\xbf  \n<HTML>", "web page"),
        (b"<!-- a proxy -->\n<!doctype html>", "web page"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "web page"),
        (b'{"error": "Repository not found"}', "JSON text of 33 bytes"),
        (b"PK\x03\x04" + bytes(100), "truncated: 104 bytes found of a zip archive without its end"),
        (gzip.compress(b"x" * 100, mtime=0), "gzip archive; unpack it first"),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), "a PNG image"),
        (b"\x93NUMPY\x01\x00" + bytes(50), "a NumPy array"),
        (b"\x80\x02}.", r"\(4 bytes\) is damaged, truncated or not a checkpoint"),
        (b"\x08\x00\x00\x00\x00\x00\x00\x00{", "truncated: 9 bytes found, the header alone has 16"),
        (b"\x02\x00\x00\x00\x00\x00\x00\x00{]", "header is not JSON"),
        (b"\xff" * 100, r"\(100 bytes\) is damaged, truncated or not a checkpoint"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("name", ["x.pt", "x.safetensors"])
def test_a_file_that_is_not_a_checkpoint_is_identified_in_the_error(tmp_path, name, content, says):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=says) as caught:
        formats.read(tmp_path / name)
    assert str(caught.value).isprintable()


def test_a_tar_archive_is_identified_in_the_error(tmp_path):
    with tarfile.open(tmp_path / "x.pt", "w") as file:
        file.addfile(tarfile.TarInfo("storages"), io.BytesIO())
    with pytest.raises(CheckpointError, match="tar archive; unpack it first"):
        formats.read(tmp_path / "x.pt")


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["a.npy", "b.npy"], r"zip of a\.npy, b\.npy, without a torch data\.pkl"),
        ([], "damaged, truncated or not a checkpoint"),
        (["a/data.pkl", "b/data.pkl"], "without a torch data"),
    ],
)
def test_zips_that_are_not_checkpoints_are_identified_in_the_error(tmp_path, names, says):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as file:
        for name in names:
            file.writestr(name, b"x")
    with pytest.raises(CheckpointError, match=says):
        formats.read(tmp_path / "x.zip")


@pytest.mark.parametrize("kind", ["safetensors", "legacy"])
def test_a_truncated_file_says_how_much_is_missing(tmp_path, state, kind):
    path = tmp_path / "x"
    write(path, kind, state)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(CheckpointError, match=f"truncated: {len(whole) - 1} bytes found, (at least )?{len(whole)} "):
        formats.read(path)


def test_the_error_of_a_truncated_zip_gives_its_size(tmp_path, state):
    path = tmp_path / "x"
    write(path, "zip", state)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="truncated: 1000 bytes found of a zip archive"):
        formats.read(path)


def test_placeholders_in_a_lama_folder_are_identified_in_the_error(tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "best.ckpt").write_bytes(LFS)
    (tmp_path / "config.yaml").write_bytes(LFS)
    with pytest.raises(CheckpointError, match=r"config\.yaml is a Git LFS pointer"):
        formats.read(tmp_path)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ("[" * 100_000, "no readable config"),
        ('{"coarse": ' * 900 + "1" + "}" * 900, "not valid"),
        ('{"ngf": {"a": {"b": {"c": {}}}}}', "not valid: b is a dict"),
        ("[1]", "is a list"),
        ('{"ngf": 1e999}', "ngf"),
        ('{"ngf": ' + "9" * 5000 + "}", "no readable config"),
        ('{"ngf": ' + "9" * 4000 + "}", "ngf"),
        ('{"\\u001b[31m": 1}', r"\\x1b\[31m"),
        ('{"ratio": NaN}', "ratio"),
        ('{"ngf": 8, "max_features": 4}', "max_features is 4, below ngf \\(8\\)"),
    ],
)
def test_an_invalid_config_in_metadata_is_refused_in_one_line(tmp_path, state, config, says):
    metadata = {"format": "glama-deploy", "config": config}
    safetensors.torch.save_file(state, tmp_path / "x", metadata=metadata)
    with pytest.raises(CheckpointError, match=says) as caught:
        formats.read(tmp_path / "x")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600


def test_a_header_with_names_of_thousands_of_characters_is_refused(tmp_path, state):
    safetensors.torch.save_file({**state, "coarse." * 2000 + "model": torch.zeros(1)}, tmp_path / "x")
    with pytest.raises(CheckpointError, match="has 14005 characters"):
        formats.read(tmp_path / "x")


def test_a_header_that_promises_more_than_any_file_holds_is_refused(tmp_path):
    entry = {"dtype": "F32", "shape": [1 << 60], "data_offsets": [0, 1 << 62]}
    header = json.dumps({"model.1.ffc.convl2l.weight": entry}).encode()
    (tmp_path / "x").write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(CheckpointError, match="damaged"):
        formats.read(tmp_path / "x")


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b"])
def test_a_name_that_is_too_long_is_refused_in_one_line(name):
    with pytest.raises(CheckpointError, match="no checkpoint at") as caught:
        formats.read(name)
    assert len(str(caught.value)) < 600
