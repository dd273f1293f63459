from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch

from glama_deploy.checkpoints import formats
from glama_deploy.errors import CheckpointError
from glama_deploy.network import NetworkConfig, parameter_shapes
from glama_deploy.reference.generator import Generator

TINY = NetworkConfig(ngf=8, n_blocks=1)


@pytest.fixture
def weights(tiny: Path) -> dict[str, np.ndarray]:
    return dict(formats.read(tiny).weights)


def state_of(weights: dict[str, np.ndarray], prefix: str = "") -> OrderedDict[str, torch.Tensor]:
    return OrderedDict((prefix + name, torch.from_numpy(values.copy())) for name, values in weights.items())


def assert_same(path: Path | str, weights: dict[str, np.ndarray], kind: str) -> None:
    read = formats.read(path)
    assert read.kind == kind
    assert read.config == TINY
    assert list(read.weights) == list(parameter_shapes(TINY))
    for name, values in weights.items():
        np.testing.assert_array_equal(read.weights[name], values)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_our_own_checkpoints_come_back_as_they_were_saved(tmp_path, weights, suffix):
    path = tmp_path / f"own{suffix}"
    formats.save(path, TINY, weights)
    assert_same(path, weights, suffix[1:])
    assert sorted(p.name for p in tmp_path.iterdir()) == [path.name]


def test_half_precision_storage_is_read_as_float32(tmp_path, weights):
    path = tmp_path / "half.safetensors"
    formats.save(path, TINY, {name: values.astype(np.float16) for name, values in weights.items()})
    read = formats.read(path)
    assert all(values.dtype == np.float32 for values in read.weights.values())
    np.testing.assert_array_equal(read.weights["model.1.bn_l.bias"], weights["model.1.bn_l.bias"].astype(np.float16))


@pytest.mark.parametrize("prefix", ["", "generator.", "module.generator."])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_bare_parameters_are_read_under_any_prefix(tmp_path, weights, prefix, suffix):
    path = tmp_path / f"bare{suffix}"
    if suffix == ".pth":
        state = state_of(weights, prefix)
        torch.save(state | {"discriminator.model0.0.weight": torch.zeros(3), "epoch": 4}, path)
    else:
        safetensors.numpy.save_file({prefix + name: values for name, values in weights.items()}, path)
    assert_same(path, weights, "bare parameters")


def test_files_from_before_torch_1_6_are_read(tmp_path, weights):
    path = tmp_path / "legacy.pth"
    torch.save({"state_dict": state_of(weights)}, path, _use_new_zipfile_serialization=False)
    assert_same(path, weights, "bare parameters")


def test_torchscript_is_read_without_running_it(tmp_path, tiny, weights):
    class App(torch.nn.Module):
        """How the inpainting apps wrap it: the generator under model.generator."""

        def __init__(self) -> None:
            super().__init__()
            self.model = torch.nn.Module()
            self.model.generator = formats.load(tiny)

        def forward(self, image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            masked = torch.cat([image * (1 - mask), mask], dim=1)
            return self.model.generator(masked) * mask + image * (1 - mask)

    path = tmp_path / "big-lama.pt"
    with pytest.warns(match="deprecated"):
        torch.jit.trace(App().eval(), (torch.rand(1, 3, 32, 32), torch.ones(1, 1, 32, 32))).save(str(path))
    assert_same(path, weights, "TorchScript")


def test_a_lama_folder_that_refers_to_missing_classes_is_read(lama_small):
    with pytest.raises(pickle.UnpicklingError):  # so the file is what it is meant to be
        torch.load(lama_small / "models" / "best.ckpt", weights_only=True)
    read = formats.read(lama_small)
    assert read.kind == "LaMa folder"
    assert read.config == NetworkConfig(ngf=16, n_blocks=2)


def test_bfloat16_and_transposed_storage_are_read(tmp_path, weights):
    state = state_of(weights)
    name = "model.1.ffc.convl2l.weight"
    state[name] = state[name].permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0).bfloat16()
    torch.save(state, tmp_path / "x.pt")
    expected = torch.from_numpy(weights[name]).bfloat16().float().numpy()
    np.testing.assert_array_equal(formats.read(tmp_path / "x.pt").weights[name], expected)


# ---------------------------------------------------------------- nothing in a file is ever run


class Bomb:
    """Leaves a marker when unpickled by a reader that runs what the file says."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def test_a_file_that_would_run_code_runs_none(tmp_path, weights):
    marker, path = tmp_path / "marker", tmp_path / "bomb.ckpt"
    torch.save({"callbacks": Bomb(marker), "state_dict": state_of(weights, "generator.")}, path)
    torch.load(path, weights_only=False)
    assert marker.exists()  # the bomb is live
    marker.unlink()
    assert_same(path, weights, "bare parameters")
    assert not marker.exists()


def test_a_legacy_file_that_would_run_code_is_refused_and_runs_none(tmp_path):
    marker, path = tmp_path / "marker", tmp_path / "bomb.pth"
    path.write_bytes(pickle.dumps({"state_dict": Bomb(marker)}))
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        formats.read(path)
    assert not marker.exists()


def test_a_pickle_of_containers_in_containers_ends(tmp_path):
    """Each dict holds the one before it twice: 2^60 paths, 60 objects."""
    node: dict[str, object] = {}
    for _ in range(60):
        node = {"a": node, "b": node}
    torch.save(node, tmp_path / "laughs.pt")
    with pytest.raises(CheckpointError, match="no LaMa or GLaMa generator"):
        formats.read(tmp_path / "laughs.pt")


def test_a_tensor_that_reaches_past_its_storage_is_refused(tmp_path, weights):
    state = state_of(weights)
    path = tmp_path / "x.pt"
    torch.save(state, path)
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(tmp_path / "short.pt", "w") as target:
        for info in source.infolist():
            data = source.read(info)
            target.writestr(info.filename, data[:8] if info.filename.endswith("data/0") else data)
    with pytest.raises(CheckpointError, match="a storage has 8 bytes, but the pickle says 1568 values"):
        formats.read(tmp_path / "short.pt")


def rewrite(path: Path, change: Callable[[str, bytes], bytes | None], compress: int = zipfile.ZIP_STORED) -> None:
    """Write a torch archive again with each entry's data changed; None drops the entry."""
    with zipfile.ZipFile(path) as source:
        entries = [(info.filename, change(info.filename, source.read(info))) for info in source.infolist()]
    with zipfile.ZipFile(path, "w", compress) as target:
        for name, data in entries:
            if data is not None:
                target.writestr(name, data)


@pytest.mark.parametrize(
    "change",
    [
        lambda name, data: None if name.endswith("data/3") else data,
        lambda name, data: data[:7] if name.endswith("data/3") else data,
        lambda name, data: data[: len(data) // 2] if name.endswith("data.pkl") else data,
        lambda name, data: b"\x80\x02}." if name.endswith("data.pkl") else data,
        lambda name, data: data.replace(b"FloatStorage", b"DoubleStorage"[:12]) if name.endswith("data.pkl") else data,
        lambda name, data: b"(" * 5000 if name.endswith("data.pkl") else data,
    ],
)
def test_an_archive_with_a_missing_or_damaged_entry_is_refused_in_one_line(tmp_path, weights, change):
    path = tmp_path / "x.pt"
    torch.save(state_of(weights), path)
    rewrite(path, change)
    with pytest.raises(CheckpointError, match=r"^[^\n]+$"):
        formats.read(path)


def test_a_few_bytes_cannot_ask_for_gigabytes(tmp_path, weights):
    """A deflated pickle, a tensor of stride 0: each is small in the file alone."""
    path = tmp_path / "x.pt"
    torch.save(state_of(weights), path)
    rewrite(path, lambda name, data: data, zipfile.ZIP_DEFLATED)
    with pytest.raises(CheckpointError, match="compressed"):
        formats.read(path)
    state = state_of(weights)
    state["model.1.bn_l.bias"] = torch.zeros(1).expand(8)
    torch.save(state, path)
    with pytest.raises(CheckpointError, match="more values than its storage"):
        formats.read(path)


def test_legacy_files_may_hold_parameters_and_a_config(tmp_path, weights):
    path = tmp_path / "legacy.pt"
    state = OrderedDict((name, torch.nn.Parameter(value)) for name, value in state_of(weights).items())
    torch.save({"config": TINY.model_dump(), "state_dict": state}, path, _use_new_zipfile_serialization=False)
    assert_same(path, weights, "pt")
    config = {**TINY.model_dump(), "n_blocks": 3}
    torch.save({"config": config, "state_dict": state}, path, _use_new_zipfile_serialization=False)
    with pytest.raises(CheckpointError, match="n_blocks 3, the parameters have 1"):
        formats.read(path)


# ---------------------------------------------------------------- what is wrong is named


def test_missing_parameters_are_named_and_counted(tmp_path, weights):
    for name in ("model.5.conv1.ffc.convg2g.fu.bn.weight", "model.5.conv2.bn_g.bias"):
        del weights[name]
    torch.save(state_of(weights), tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=r"2 of \d+ parameters are missing: model\.5\.conv1.*fu\.bn\.weight"):
        formats.read(tmp_path / "x.pt")


def test_left_over_parameters_are_named_and_counted(tmp_path, weights):
    extra = {"model.5.conv1.ffc.gate.weight": np.zeros(3, np.float32)}
    torch.save(state_of(weights | extra), tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=r"does not have 1 of the parameters: model\.5\.conv1\.ffc\.gate\.weight"):
        formats.read(tmp_path / "x.pt")


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("n_blocks", 3, "n_blocks 3, the parameters have 1"),
        ("ngf", 16, "ngf 16"),
        ("ratio", 0.5, "global_channels"),
    ],
)
def test_a_config_that_contradicts_the_shapes_says_which_field(tmp_path, weights, field, value, says):
    config = {**TINY.model_dump(), field: value}
    torch.save({"config": config, "state_dict": state_of(weights)}, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=says):
        formats.read(tmp_path / "x.pt")


def test_a_lama_folder_whose_config_contradicts_the_shapes_says_which_field(tmp_path, lama_small):
    folder = tmp_path / "lama"
    shutil.copytree(lama_small, folder)
    config = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(config.replace("n_blocks: 2", "n_blocks: 9"))
    with pytest.raises(CheckpointError, match="n_blocks 9, the parameters have 2"):
        formats.read(folder)
    (folder / "config.yaml").write_text(config.replace("kind: ffc_resnet", "kind: pix2pixhd_global"))
    with pytest.raises(CheckpointError, match=r"init_conv_kwargs is not a known field of LaMa's pix2pixhd_global"):
        formats.read(folder)
    (folder / "config.yaml").unlink()
    with pytest.raises(CheckpointError, match=r"no config\.yaml"):
        formats.read(folder)


def test_a_config_of_a_typo_is_an_error(tmp_path, weights):
    torch.save({"config": {"n_block": 1}, "state_dict": state_of(weights)}, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match="n_block"):
        formats.read(tmp_path / "x.pt")


def test_values_that_are_not_finite_are_an_error(tmp_path, weights):
    weights["model.1.bn_l.bias"][0] = np.nan
    torch.save(state_of(weights), tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=r"model\.1\.bn_l\.bias has values that are not finite"):
        formats.read(tmp_path / "x.pt")


def test_a_negative_variance_is_an_error(tmp_path, weights):
    weights["model.1.bn_l.running_var"][0] = -1
    torch.save(state_of(weights), tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match="negative"):
        formats.read(tmp_path / "x.pt")


@pytest.mark.parametrize("text", ["a: 2001-99-99", "[" * 5000, "generator: {kind: [", "- 1"])
def test_a_config_that_is_no_yaml_is_an_error(tmp_path, lama_small, text):
    folder = tmp_path / "lama"
    shutil.copytree(lama_small, folder)
    (folder / "config.yaml").write_text(text)
    with pytest.raises(CheckpointError, match=r"config\.yaml"):
        formats.read(folder)


def test_a_checkpoint_of_another_network_is_an_error(tmp_path):
    torch.save(torch.nn.Conv2d(3, 3, 3).state_dict(), tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match="has no LaMa or GLaMa generator"):
        formats.read(tmp_path / "x.pt")


@pytest.mark.parametrize("keep", [0, 3, 1000, 0.5, 0.99])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_truncated_checkpoint_is_an_error(tmp_path, weights, keep, suffix):
    path = tmp_path / f"x{suffix}"
    formats.save(path, TINY, weights)
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data)) if isinstance(keep, float) else keep])
    with pytest.raises(CheckpointError, match=r"damaged|truncated|empty"):
        formats.read(path)


def test_a_missing_checkpoint_is_an_error(tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        formats.read(tmp_path / "nothing.pt")


def test_saving_refuses_weights_of_another_config(tmp_path, weights):
    with pytest.raises(CheckpointError, match="missing"):
        formats.save(tmp_path / "x.pt", NetworkConfig(ngf=8, n_blocks=2), weights)
    assert not list(tmp_path.iterdir())


def test_the_loaded_module_is_ready_to_run(tiny):
    generator = formats.load(tiny)
    assert isinstance(generator, Generator)
    assert not generator.training
    with torch.inference_mode():
        out = generator(torch.rand(2, 4, 16, 24))
    assert out.shape == (2, 3, 16, 24)
    assert 0 <= out.min() <= out.max() <= 1


def test_the_metadata_holds_the_config(tiny):
    with safetensors.safe_open(tiny, framework="numpy") as file:
        assert NetworkConfig(**json.loads(file.metadata()["config"])) == TINY
    assert re.fullmatch("[0-9a-f]{64}", formats.read(tiny).sha256)


#: Saves a checkpoint where files may have 1,000 bytes, which fails as on a full disk.
SAVE_ON_FULL_DISK = """
import resource, signal, sys
import numpy as np
from glama_deploy.cli.entry import Command
from glama_deploy.network import NetworkConfig, parameter_shapes
from glama_deploy.checkpoints import formats

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
config = NetworkConfig(ngf=8, n_blocks=1)
weights = {name: np.zeros(shape, np.float32) for name, shape in parameter_shapes(config).items()}
for path in sys.argv[1:]:
    print(Command("save", lambda: formats.save(path, config, weights)).run([]))
"""


def test_a_full_disk_is_one_line_for_both_formats(tmp_path):
    names = ("x.safetensors", "x.pt")
    code = [sys.executable, "-c", SAVE_ON_FULL_DISK, *(str(tmp_path / name) for name in names)]
    child = subprocess.run(code, capture_output=True, text=True, check=False)
    assert child.stdout.split() == ["2", "2"], child.stderr
    lines = child.stderr.splitlines()
    assert [line.split(":")[1] for line in lines] == [f" cannot write {tmp_path / name}" for name in names]
    assert not list(tmp_path.iterdir())
