"""Checkpoints between two checkpoints of one network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from glama_deploy.benchmarks.quality import interpolate
from glama_deploy.benchmarks.quality.interpolate import main
from glama_deploy.checkpoints import formats
from glama_deploy.errors import CheckpointError
from glama_deploy.network import NetworkConfig, parameter_shapes
from glama_deploy.training import config
from glama_deploy.training.data import Squares

TINY = NetworkConfig(ngf=8, n_blocks=1)


def write(path: Path, seed: int, network: NetworkConfig = TINY) -> Path:
    rng = np.random.default_rng(seed)
    weights = {n: rng.normal(0, 0.1, shape).astype(np.float32) for n, shape in parameter_shapes(network).items()}
    weights |= {n: np.abs(v) + 0.5 for n, v in weights.items() if n.endswith("running_var")}
    formats.save(path, network, weights)
    return path


@pytest.fixture
def pair(tmp_path) -> tuple[Path, Path]:
    return write(tmp_path / "a.pt", 1), write(tmp_path / "b.pt", 2)


@pytest.fixture
def photos(tmp_path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for n in range(3):
        small = rng.integers(0, 256, (6, 8, 3), np.uint8)
        Image.fromarray(small).resize((80, 60), Image.Resampling.BICUBIC).save(folder / f"{n}.png")
    return folder


def test_files_have_the_weighted_sums_of_both(pair, tmp_path, capsys):
    main([*map(str, pair), "--shares", "0", "0.25", "1", "--out", str(tmp_path / "out")])
    assert len(capsys.readouterr().out.splitlines()) == 3
    one, other = (formats.read(path).weights for path in pair)
    for share in (0.0, 0.25, 1.0):
        found = formats.read(tmp_path / "out" / f"interpolated-{share}.pt")
        assert found.config == TINY
        for name, values in found.weights.items():
            expected = np.float64(share) * one[name] + (1 - np.float64(share)) * other[name]
            np.testing.assert_array_equal(values, expected.astype(np.float32))


def test_measured_statistics_are_those_of_the_interpolated_network(pair, photos, tmp_path, monkeypatch):
    """The stem's statistics in NumPy, from what its convolution puts out; no other weight changes."""
    monkeypatch.setattr(interpolate, "BATCHES", 3)
    monkeypatch.setattr(interpolate, "BATCH", 2)
    options = ["--shares", "0.5", "--side", "32", "--masks", "Expand"]
    main([*map(str, pair), *options, "--out", str(tmp_path / "plain")])
    main([*map(str, pair), *options, "--out", str(tmp_path / "measured"), "--train", str(photos)])
    plain, measured = (formats.read(tmp_path / name / "interpolated-0.5.pt") for name in ("plain", "measured"))
    for name, values in measured.weights.items():
        assert np.array_equal(values, plain.weights[name]) != ("running_" in name), name
    data = config.load("glama", ["data.masks=Expand", "data.side=32"]).data
    squares = Squares([str(photos)], data, seed=0)
    stem = "model.1.bn_l"
    generator, seen = formats.build_module(plain), []
    generator.get_submodule(stem).register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].numpy()))
    for first in range(0, 6, 2):
        images, masks = zip(*(squares[position][:2] for position in (first, first + 1)), strict=True)
        image, mask = np.stack(images) / np.float32(255), np.stack(masks)[..., None].astype(np.float32)
        shown = np.concatenate([image * (1 - mask), mask], axis=3).transpose(0, 3, 1, 2)
        with torch.no_grad():
            generator(torch.from_numpy(shown))
    assert len(seen) == 3
    means = np.mean([values.mean((0, 2, 3)) for values in seen], axis=0)
    variances = np.mean([np.var(values.astype(np.float64), axis=(0, 2, 3), ddof=0) for values in seen], axis=0)
    count = seen[0].size / seen[0].shape[1]
    # float32 sums of some thousand values
    np.testing.assert_allclose(measured.weights[f"{stem}.running_mean"], means, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(measured.weights[f"{stem}.running_var"], variances * count / (count - 1), rtol=1e-4)


def with_nan(path: Path) -> Path:
    found = formats.read(path)
    broken = {name: np.full_like(values, np.nan) for name, values in found.weights.items()}
    formats.save(path, found.config, broken)
    return path


@pytest.mark.parametrize(
    ("change", "arguments", "says"),
    [
        (lambda path: write(path, 2, replace_config(ngf=16)), [], r"are of two networks \(ngf is 8, not 16\)"),
        (lambda path: write(path, 2, replace_config(activation="tanh", kind="regular", ratio=0)), [], "two networks"),
        (with_nan, [], "has values that are not finite"),
        (lambda path: path.unlink(), [], "b.pt"),
        (lambda path: path, ["--shares", "1.5"], "the share of A is 1.5; a number from 0 to 1"),
        (lambda path: path, ["--shares", "nan"], "the share of A is nan; a number from 0 to 1"),
        (lambda path: path, ["--side", "33"], "data.side is 33"),
        (lambda path: path, ["--masks", "Thick"], "unknown mask 'Thick'"),
        (lambda path: path, ["--train", "gone"], "gone is neither a folder nor a tar file"),
    ],
)
def test_checkpoints_that_cannot_be_interpolated_are_refused(
    pair, tmp_path, capsys, change: Callable[[Path], object], arguments, says
):
    change(pair[1])
    with pytest.raises(SystemExit, match="2"):
        main([*map(str, pair), "--out", str(tmp_path / "out"), *arguments])
    error = capsys.readouterr().err
    assert says.replace("\\", "") in error
    assert "Traceback" not in error
    assert not (tmp_path / "out").exists()


def replace_config(**changes: object) -> NetworkConfig:
    return NetworkConfig.model_validate(TINY.model_dump() | changes)


def test_a_checkpoint_that_is_there_is_not_replaced(pair, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    there = tmp_path / "out" / "interpolated-0.5.pt"
    there.write_bytes(b"x")
    with pytest.raises(SystemExit, match="2"):
        main([*map(str, pair), "--out", str(tmp_path / "out")])
    assert "exists already" in capsys.readouterr().err
    assert [path.name for path in there.parent.iterdir()] == [there.name]
    assert there.read_bytes() == b"x"


def test_the_error_of_two_networks_is_a_checkpoint_error(pair, tmp_path):
    other = formats.read(write(tmp_path / "c.pt", 3, replace_config(n_blocks=2)))
    with pytest.raises(CheckpointError, match="n_blocks is 1, not 2"):
        interpolate.interpolate(formats.read(pair[0]), other, 0.5)
