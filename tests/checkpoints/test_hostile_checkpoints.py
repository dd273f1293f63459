"""Files of some hundred bytes that ask for gigabytes or for hours, and pickles that torch never writes.

Each is refused in one line. Memory is bounded by tracemalloc. Time is bounded by the work that the reader counts
itself: before these bounds, most of the cases below did not end at all.
"""

from __future__ import annotations

import io
import pickle
import struct
import tracemalloc
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import safetensors.torch
import torch

from glama_deploy.checkpoints import formats, pickles, torch_zip
from glama_deploy.checkpoints.stored_tensors import Layout
from glama_deploy.errors import CheckpointError
from glama_deploy.network import NetworkConfig

MAX_BYTES = 8 << 20
MAX_MESSAGE = 600

#: ((), ()) and so on: 60 levels have 2^60 leaves, and neither Python's hash nor its repr ends.
NESTED_TUPLE = b")" + b"2\x86" * 60
FLOAT_STORAGE = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x01tQ"
REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"
ONE_VALUE = REBUILD + b"(" + FLOAT_STORAGE + b"K\x00)))tR"


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def zipped(pickled: bytes, path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", pickled)
        file.writestr("archive/data/0", b"\0\0\0\0")


def legacy(pickled: bytes, path: Path) -> None:
    head = torch_zip.LEGACY_MAGIC + b"\x80\x02M\xe9\x03." + b"\x80\x02}."
    storage = struct.pack("<q", 1) + b"\0\0\0\0"
    keys = b"\x80\x02](X\x01\x00\x00\x000e." if FLOAT_STORAGE in pickled else b"\x80\x02]."
    path.write_bytes(head + pickled + keys + (storage if FLOAT_STORAGE in pickled else b""))


def refusal(path: Path) -> str:
    """The error of reading a file, which takes little memory."""
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError) as caught:
            formats.read(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < MAX_MESSAGE
    assert peak < MAX_BYTES + 20 * path.stat().st_size
    return message


@pytest.mark.parametrize("write", [zipped, legacy])
@pytest.mark.parametrize(
    ("pickled", "says"),
    [
        pytest.param(b"}" + NESTED_TUPLE + b"Ns.", "no LaMa or GLaMa generator", id="key of nested tuples"),
        pytest.param(NESTED_TUPLE + b"Q.", "no LaMa or GLaMa generator", id="id of nested tuples"),
        pytest.param(
            b"(" + text("storage") + b"ctorch\nFloatStorage\n" + NESTED_TUPLE + text("cpu") + b"K\x01tQ.",
            "no LaMa or GLaMa generator",
            id="storage's key of nested tuples",
        ),
        pytest.param(
            b"}"
            + text("config")
            + b"}"
            + text("ngf")
            + NESTED_TUPLE
            + b"ss"
            + text("state_dict")
            + b"}"
            + text("model.1.ffc.convl2l.weight")
            + ONE_VALUE
            + b"ss.",
            "the config is not valid: ngf is a tuple",
            id="config of nested tuples",
        ),
        pytest.param(
            b"}" + b"}".join([text("k" * 100)] * 200) + b"N" + b"s" * 200 + b".",
            "more than 512 characters",
            id="deep dicts",
        ),
        pytest.param(
            b"}" + b"}".join([text("k")] * 200) + ONE_VALUE + b"s" * 200 + b".",
            "more than 64 nested",
            id="a deep tensor",
        ),
        pytest.param(
            b"}" + b"}".join([text("k" * 100)] * 10) + ONE_VALUE + b"s" * 10 + b".",
            "more than 512 characters",
            id="long names",
        ),
        pytest.param(b")" + b"\x85" * 20_000 + b".", "no LaMa or GLaMa generator", id="deep tuples"),
        pytest.param(b"]" + b"]" * 20_000 + b"a" * 20_000 + b".", "no LaMa or GLaMa generator", id="deep lists"),
        pytest.param(b"}r\xff\xff\xff\x3f.", "no LaMa or GLaMa generator", id="memo of 2^30 entries"),
        pytest.param(b"\x8d" + struct.pack("<Q", 1 << 40) + b"abc.", "only", id="string of 2^40 bytes"),
        pytest.param(b"\x95" + struct.pack("<Q", 1 << 62) + b"N.", "no LaMa", id="frame of 2^62 bytes"),
        pytest.param(
            REBUILD + b"(" + FLOAT_STORAGE + b"K\x00J\xff\xff\xff\x7fK\x01\x86K\x00K\x00\x86tR.",
            "no LaMa or GLaMa generator",
            id="stride 0",
        ),
        pytest.param(b"cos\nsystem\n)\x81.", "no LaMa or GLaMa generator", id="NEWOBJ of a foreign class"),
        pytest.param(b"cos\nsystem\n)}\x92.", "no LaMa or GLaMa generator", id="NEWOBJ_EX of a foreign class"),
        pytest.param(b"N)\x81.", "no LaMa or GLaMa generator", id="NEWOBJ of no class"),
        pytest.param(b"cos\nsystem\nN\x81.", "no tuple of arguments", id="NEWOBJ without arguments"),
        pytest.param(ONE_VALUE + b"Nb.", "sets the state of a StoredTensor", id="BUILD on a tensor"),
        pytest.param(b"K\x01Nb.", "sets the state of 1", id="BUILD on a number"),
        pytest.param(
            REBUILD + b"(" + FLOAT_STORAGE + b"K\x00G?\xf0\x00\x00\x00\x00\x00\x00\x85K\x01\x85tR.",
            "shape does not consist of integers",
            id="float shape",
        ),
        pytest.param(REBUILD + b"(" + FLOAT_STORAGE + b"K\x00NNtR.", "shape does not consist of", id="None as shape"),
        pytest.param(REBUILD + b"(" + FLOAT_STORAGE + b"tR.", "pickle is damaged", id="missing shape"),
        pytest.param(
            REBUILD + b"(" + FLOAT_STORAGE + b"J\xff\xff\xff\xff))tR.",
            "offset does not consist of",
            id="negative offset",
        ),
        pytest.param(
            REBUILD + b"(" + FLOAT_STORAGE + b"K\x00K\x01\x85)tR.", "1 extents and 0 strides", id="other strides"
        ),
        pytest.param(
            b"ctorch._utils\n_rebuild_parameter\n)R.", "a value that does not exist", id="parameter of nothing"
        ),
        pytest.param(b"}K\x01s.", "a value that does not exist", id="entry without a value"),
        pytest.param(b"(K\x01u.", "a value that does not exist", id="entries of nothing"),
        pytest.param(b"N(K\x01K\x02u.", "not a dict", id="entries of None"),
        pytest.param(b"}(K\x01u.", "not a dict", id="an odd number of entries"),
        pytest.param(b"NK\x01a.", "not a list", id="item of None"),
        pytest.param(b"h\x07.", "a value that does not exist", id="unknown memo"),
        pytest.param(b".", "a value that does not exist", id="nothing"),
        pytest.param(b"K\x01K\x02\x93.", "the name of a class is not a string", id="class of numbers"),
        pytest.param(b"(ios\nsystem\n.", "uses INST", id="INST"),
        pytest.param(b"\x82\x01.", "uses EXT1", id="EXT1"),
        pytest.param(b"\xff.", "damaged", id="unknown operation"),
    ],
)
def test_a_hostile_pickle_is_refused_in_one_line(tmp_path, write, pickled, says):
    write(b"\x80\x02" + pickled, tmp_path / "x.pt")
    assert says in refusal(tmp_path / "x.pt")


@pytest.mark.parametrize("write", [zipped, legacy])
def test_work_is_counted(tmp_path, monkeypatch, write):
    monkeypatch.setattr(pickles, "MAX_OPERATIONS", 1000)
    write(b"\x80\x02" + b"N0" * 600 + b"N.", tmp_path / "x.pt")
    assert "more than 1000 operations" in refusal(tmp_path / "x.pt")
    entries = b"".join(text(f"{n:03}") + b"N" for n in range(100))
    write(b"\x80\x02ca\nb\n)R}(" + entries + b"uq\x01b" + b"h\x01b" * 50 + b".", tmp_path / "x.pt")
    assert "copies more than 1000 entries" in refusal(tmp_path / "x.pt")


def test_tensors_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(torch_zip, "MAX_TENSORS", 10)
    torch.save({f"{n}": torch.zeros(1) for n in range(11)}, tmp_path / "x.pt")
    assert "more than 10 tensors" in refusal(tmp_path / "x.pt")


def test_entries_of_a_zip_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(torch_zip, "MAX_ENTRIES", 10)
    torch.save({f"{n}": torch.zeros(1) for n in range(11)}, tmp_path / "x.pt")
    assert "zip of 17 entries" in refusal(tmp_path / "x.pt")


@pytest.mark.parametrize(("offset", "shape", "strides"), [(4, (1,), (1,)), (0, (5,), (1,)), (0, (2, 2), (3, 1))])
def test_a_tensor_never_reaches_past_its_storage(offset, shape, strides):
    with pytest.raises(CheckpointError, match="reaches past its storage"):
        Layout(offset, shape, strides).take(np.zeros(4, np.float32))


def test_a_storage_of_another_length_than_the_pickle_says_is_refused(tmp_path, state):
    """The first half of float32 values is as long as float16 values; torch refuses the file."""
    torch.save(state, tmp_path / "x.pt")
    with zipfile.ZipFile(tmp_path / "x.pt") as file:
        entries = {name: file.read(name) for name in file.namelist()}
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as file:
        for name, data in entries.items():
            file.writestr(name, data.replace(b"FloatStorage", b"HalfStorage"))
    assert "values of float16; the file is damaged" in refusal(tmp_path / "x.pt")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_zip_with_two_entries_of_one_name_is_refused(tmp_path, state):
    """Readers differ in which of the two they take."""
    torch.save(state, tmp_path / "x.pt")
    with zipfile.ZipFile(tmp_path / "x.pt", "a") as file:
        name = next(name for name in file.namelist() if name.endswith("/data/0"))
        file.writestr(name, bytes(file.getinfo(name).file_size))
    assert "has two entries of one name" in refusal(tmp_path / "x.pt")


def test_a_pickle_that_unpacks_to_gigabytes_is_not_unpacked(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.pt", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data.pkl", bytes(64 << 20))
    assert "compressed" in refusal(tmp_path / "x.pt")


def test_code_that_unpacks_to_gigabytes_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(torch_zip, "MAX_CODE_BYTES", 1 << 20)
    zipped(b"\x80\x02}.", tmp_path / "x.pt")
    with zipfile.ZipFile(tmp_path / "x.pt", "a", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/code/x.py", bytes(64 << 20))
    assert "more than 1 MiB of code" in refusal(tmp_path / "x.pt")


@pytest.fixture
def state(tiny: Path) -> OrderedDict[str, Any]:
    weights = formats.read(tiny).weights
    return OrderedDict((name, torch.from_numpy(values)) for name, values in weights.items())


@pytest.mark.parametrize("new", [True, False])
def test_parameters_of_stride_0_are_refused(tmp_path, state, new):
    """Each parameter is one value in the file, and all of them together are a network in memory."""
    path = tmp_path / "x.pt"
    spread = {name: torch.zeros(1).expand(values.shape) for name, values in state.items()}
    torch.save(spread, path, _use_new_zipfile_serialization=new)
    assert "values in fewer bytes" in refusal(path)
    state["model.1.bn_l.bias"] = torch.zeros(1).expand(8)
    torch.save(state, path, _use_new_zipfile_serialization=new)
    assert "more values than its storage" in refusal(path)


@pytest.mark.parametrize("new", [True, False])
@pytest.mark.parametrize(
    ("convert", "says"),
    [
        (lambda values: torch.quantize_per_tensor(values, 0.1, 0, torch.qint8), "quantized"),
        (lambda values: values.to_sparse(), "sparse"),
        (lambda values: values.to(torch.int8), "int8"),
        (lambda values: values.long(), "int64"),
        (lambda values: values.to(torch.cfloat), "complex64"),
        (lambda values: values > 0, "bool"),
        (lambda values: values.to("meta"), "meta"),
        (lambda values: values.to(torch.float8_e4m3fn), "float8_e4m3fn"),
    ],
)
def test_a_parameter_of_another_type_is_named(tmp_path, state, new, convert, says):
    name = "model.1.bn_l.bias"
    state[name] = convert(state[name])
    path = tmp_path / "x.pt"
    torch.save(state, path, _use_new_zipfile_serialization=new)
    assert name in refusal(path)
    assert says in refusal(path)


def test_a_number_of_a_double_beyond_float32_is_refused(tmp_path, state):
    state["model.1.bn_l.bias"] = torch.full((8,), 1e300, dtype=torch.float64)
    torch.save(state, tmp_path / "x.pt")
    assert "not finite" in refusal(tmp_path / "x.pt")


@pytest.mark.parametrize("new", [True, False])
def test_a_file_of_a_big_endian_machine_is_refused(tmp_path, state, new):
    path = tmp_path / "x.pt"
    torch.save(state, path, _use_new_zipfile_serialization=new)
    if new:
        with zipfile.ZipFile(path) as source, zipfile.ZipFile(tmp_path / "big.pt", "w") as target:
            for name in source.namelist():
                target.writestr(name, b"big" if name.endswith("byteorder") else source.read(name))
    else:
        little = b"X\x0d\x00\x00\x00little_endianq\x02\x88"
        assert little in path.read_bytes()
        (tmp_path / "big.pt").write_bytes(path.read_bytes().replace(little, little[:-1] + b"\x89", 1))
    assert "big-endian" in refusal(tmp_path / "big.pt")


def test_views_of_one_large_storage_take_no_more_than_their_values(tmp_path, state):
    """As flat buffers of sharded training are saved: every parameter is a view of one storage."""
    flat = torch.cat([values.flatten() for values in state.values()])
    begin = 0
    for name, values in state.items():
        state[name] = flat[begin : begin + values.numel()].view(values.shape)
        begin += values.numel()
    for new in (True, False):
        torch.save(state, tmp_path / "x.pt", _use_new_zipfile_serialization=new)
        weights = formats.read(tmp_path / "x.pt").weights
        assert all(values.base is None for values in weights.values())
        for name, values in state.items():
            np.testing.assert_array_equal(weights[name], values.numpy())


@pytest.mark.parametrize("new", [True, False])
def test_a_storage_of_many_parameters_is_read_once(tmp_path, monkeypatch, state, new):
    opened = []
    flat = torch.zeros(sum(values.numel() for values in state.values())).bfloat16()
    views = flat.split([values.numel() for values in state.values()])
    shared = {name: view.view(state[name].shape) for name, view in zip(state, views, strict=True)}
    torch.save(shared, tmp_path / "x.pt", _use_new_zipfile_serialization=new)
    original = Path.open
    monkeypatch.setattr(Path, "open", lambda path, *rest: opened.append(path) or original(path, *rest))
    formats.read(tmp_path / "x.pt")
    assert len(opened) < 10 < len(state)  # the reader of each storage opens the file


def test_a_file_that_has_been_read_is_closed(tmp_path, state):
    torch.save(state, tmp_path / "x.pt")
    found = dict(torch_zip.list_tensors(torch_zip.read_zip(tmp_path / "x.pt")))
    found["model.1.bn_l.bias"].read()
    assert str(tmp_path / "x.pt") not in {file.path for file in psutil.Process().open_files()}


class _Foreign(dict):  # type: ignore[type-arg]
    """A class that is not torch's, whose objects have entries, items and attributes."""


def test_objects_of_foreign_classes_beside_the_parameters_are_passed_over(tmp_path, state):
    odd = _Foreign({"a": 1, (1, 2): [3]})
    odd.__dict__["more"] = {"b": np.float64(1), "c": {1, 2}, "d": frozenset([b"x"]), "e": pickle.PickleError("x")}
    for protocol in (2, 4):
        torch.save({"hyper_parameters": odd, "state_dict": state}, tmp_path / "x.pt", pickle_protocol=protocol)
        assert formats.read(tmp_path / "x.pt").kind == "bare parameters"


def test_a_saved_module_is_refused_with_the_advice_to_save_its_state_dict(tmp_path, tiny):
    with io.BytesIO() as buffer:
        torch.save(formats.load(tiny), buffer)
        (tmp_path / "x.pt").write_bytes(buffer.getvalue())
    assert "save its state_dict()" in refusal(tmp_path / "x.pt")


# ---------------------------------------------------------------- several generators, and parts that are not known


def prefixed(state: OrderedDict[str, Any], *prefixes: str) -> dict[str, Any]:
    return {prefix + name: values for prefix in prefixes for name, values in state.items()}


@pytest.mark.parametrize(
    "build",
    [
        lambda s: {"gen_state_dict": s, "other_state_dict": dict(s)},
        lambda s: {"a": s, "longer": dict(s)},
        lambda s: prefixed(s, "", "copy."),
        lambda s: prefixed(s, "generator.", "generator_average.", "third."),
        lambda s: prefixed(s, "x.generator_ema.", "generator_average."),
    ],
)
def test_several_generators_are_named_and_none_is_taken(tmp_path, state, build: Callable[[Any], Any]):
    torch.save(build(state), tmp_path / "x.pt")
    message = refusal(tmp_path / "x.pt")
    assert "generators, under " in message
    assert "choose one with `export(weights_key=NAME)`" in message


@pytest.mark.parametrize(
    ("build", "average", "other"),
    [
        (lambda own, mean: {"generator": own, "generator_ema": mean}, "generator_ema", "generator"),
        (lambda own, mean: {"params_ema": mean, "params": own}, "params_ema", "params"),
        (lambda own, mean: {"state_dict": own, "state_dict_ema": mean}, "state_dict_ema", "state_dict"),
        (lambda own, mean: prefixed(own, "") | prefixed(mean, "ema.module."), "ema.module", "model"),
        (
            lambda own, mean: {"g": prefixed(own, "generator."), "swa_model": prefixed(mean, "module.")},
            "swa_model.module",
            "g.generator",
        ),
    ],
)
def test_a_running_average_is_taken_before_its_generator(tmp_path, state, caplog, build, average, other):
    mean = {name: values * 0 + 1 for name, values in state.items()}
    names = build(state, mean)
    names |= {"discriminator.model0.0.weight": torch.zeros(3), "loss_resnet_pl.impl.conv1.weight": torch.zeros(3)}
    names |= {"val_evaluator.scores.fid.model.weight": torch.zeros(3)}
    torch.save(names | {"optimizer_states": [{"state": {0: torch.zeros(3)}}], "epoch": 3}, tmp_path / "x.pt")
    for key, expected in ((None, mean), (average, mean), (other, state)):
        found = formats.read(tmp_path / "x.pt", key)
        assert found.weights_key == (key or average)
        for name, values in expected.items():
            np.testing.assert_array_equal(found.weights[name], values.numpy())
    (said,) = [record.getMessage() for record in caplog.records]
    assert f"its running average, {average}; reading the average (`export(weights_key={other})`" in said


@pytest.mark.parametrize("prefix", ["", "state_dict."])
def test_of_lamas_trainer_the_generator_is_taken(tmp_path, state, caplog, prefix):
    """LaMa's predict.py reads `generator`. The average has batch norms of the first steps (trainers/base.py)."""
    early = {name: values * 0 if ".running_mean" in name else values + 1 for name, values in state.items()}
    names = prefixed(state, f"{prefix}generator.") | prefixed(early, f"{prefix}generator_average.")
    torch.save(names, tmp_path / "x.pt")
    found = formats.read(tmp_path / "x.pt")
    assert found.weights_key == f"{prefix}generator"
    for name, values in found.weights.items():
        np.testing.assert_array_equal(values, state[name].numpy())
    (said,) = [record.getMessage() for record in caplog.records]
    other = f"`export(weights_key={prefix}generator_average)`"
    assert f"reading the generator, as LaMa does ({other} reads the other one)" in said
    assert formats.read(tmp_path / "x.pt", "generator_average").weights_key == f"{prefix}generator_average"


def test_a_key_is_given_by_its_last_words_and_an_unknown_one_lists_those_that_are_there(tmp_path, state):
    torch.save({"state_dict": prefixed(state, "generator.", "generator_average.")}, tmp_path / "x.pt")
    assert formats.read(tmp_path / "x.pt", "generator").weights_key == "state_dict.generator"
    with pytest.raises(CheckpointError) as caught:
        formats.read(tmp_path / "x.pt", "ema")
    expected = "names no generators of the file; present are state_dict.generator and state_dict.generator_average"
    assert expected in str(caught.value)


def test_a_list_of_states_or_of_named_parameters_is_read(tmp_path, state):
    for number, saved in enumerate(([state, {"epoch": 3}], list(state.items()), tuple(state.items()))):
        torch.save(saved, tmp_path / f"{number}.pt")
        assert formats.read(tmp_path / f"{number}.pt").weights.keys() == state.keys()
    first = next(iter(state.items()))
    torch.save([first, *state.items()], tmp_path / "twice.pt")
    assert "two tensors of one name" in refusal(tmp_path / "twice.pt")


def test_parameters_in_a_dict_with_attributes_are_read(tmp_path, state):
    odd = _Foreign(state)
    odd.__dict__["metadata"] = {"version": 1}
    for saved in (odd, {"state_dict": odd}, _Foreign({"model_state": _Foreign(state)})):
        torch.save(saved, tmp_path / "x.pt")
        assert formats.read(tmp_path / "x.pt").weights.keys() == state.keys()


def test_frozen_torchscript_is_refused_because_its_parameters_have_no_names(tmp_path, tiny):
    with pytest.warns(match="deprecated"):
        traced = torch.jit.trace(formats.load(tiny), torch.rand(1, 4, 32, 32))
    torch.jit.freeze(traced).save(str(tmp_path / "x.pt"))
    assert "the file is frozen TorchScript, whose parameters are constants without names" in refusal(tmp_path / "x.pt")


def test_torchscript_of_a_regular_network_is_refused(tmp_path, make_checkpoint):
    config = NetworkConfig(ngf=8, n_blocks=1, kind="regular", ratio=0)
    with pytest.warns(match="deprecated"):
        torch.jit.trace(formats.load(make_checkpoint(config)), torch.rand(1, 4, 32, 32)).save(str(tmp_path / "x.pt"))
    assert "TorchScript of a regular network (LaMa-Regular, LaMa-Dilated)" in refusal(tmp_path / "x.pt")


def test_parameters_that_change_the_result_are_named(tmp_path, state):
    torch.save({"gen_state_dict": state, "other_state_dict": {"alpha5": torch.zeros(1)}}, tmp_path / "x.ckpt")
    assert "tensors beside the generator (1): other_state_dict.alpha5; they may" in refusal(tmp_path / "x.ckpt")
    torch.save({"gen_state_dict": state}, tmp_path / "x.ckpt")
    assert formats.read(tmp_path / "x.ckpt").kind == "bare parameters"


def test_a_network_with_embeddings_of_masked_positions_is_refused_by_its_name(tmp_path, state):
    """inpainting_lama_mpe.ckpt: the embeddings of `str_state_dict` are added behind the stem."""
    torch.save({"gen_state_dict": state, "str_state_dict": {"alpha5": torch.zeros(1)}}, tmp_path / "x.ckpt")
    assert "the embeddings of an MPE network" in refusal(tmp_path / "x.ckpt")


def test_training_state_beside_the_generator_is_ignored(tmp_path, state):
    training = {
        "torch_rng_state": torch.get_rng_state(),
        "best_psnr": torch.tensor(31.5),
        "n_averaged": torch.tensor(7),
        "netD.model.0.weight": torch.zeros(3, 3),
        "rng": {"cuda": torch.zeros(4)},
    }
    torch.save({"state_dict": state, **training}, tmp_path / "x.pt")
    assert formats.read(tmp_path / "x.pt").kind == "bare parameters"
    del training["rng"]
    safetensors.torch.save_file({**state, **training}, tmp_path / "x.safetensors")
    assert formats.read(tmp_path / "x.safetensors").kind == "bare parameters"


def test_a_generator_may_have_a_coarse_one_without_being_two(tmp_path, state):
    names = prefixed(state, "", "coarse.")
    torch.save(names, tmp_path / "x.pt")
    assert "model.1.ffc.convl2l.weight has shape" in refusal(tmp_path / "x.pt")  # not "2 generators"


def test_torchscript_with_a_tanh_behind_the_head_is_refused(tmp_path, tiny):
    generator = formats.load(tiny)
    generator.model[-1] = torch.nn.Tanh()
    with pytest.warns(match="deprecated"):
        torch.jit.trace(generator, torch.rand(1, 4, 32, 32)).save(str(tmp_path / "x.pt"))
    assert "the code has a tanh" in refusal(tmp_path / "x.pt")


def test_names_of_a_file_are_short_and_printable_in_messages(tmp_path, state):
    state["model.9.\x1b[31m\n" + "x" * 300] = torch.zeros(1)
    torch.save(state, tmp_path / "x.pt")
    assert r"\x1b[31m\n" in refusal(tmp_path / "x.pt")
