"""PyTorch in fp16 and bf16, on a CPU with a fake of `torch.cuda`, and on a GPU where there is one."""

import numpy as np
import pytest
import torch

import glama_deploy
from fakes.torch_cuda import FakeCuda
from glama_deploy import catalogue
from glama_deploy.checkpoints import formats
from glama_deploy.errors import EngineError
from glama_deploy.inpainting.inpainter import Inpainter
from glama_deploy.network import NetworkConfig
from glama_deploy.runtime import torch as torch_runtime
from glama_deploy.runtime.base import Request
from glama_deploy.runtime.devices import Device
from glama_deploy.runtime.torch_half import tables
from glama_deploy.runtime.torch_half.runner import HalfRunner, open_half

CPU = torch.device("cpu")


def open_fake(model, precision="fp16", cuda=None) -> HalfRunner:
    return HalfRunner(formats.read(model), Request(precision), CPU, cuda or FakeCuda())


def make_inpainter(model, precision="fp16", cuda=None) -> Inpainter:
    return Inpainter(open_fake(model, precision, cuda), formats.read(model).config)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_an_image_of_any_size_is_within_the_tolerance_of_the_reference(tiny, precision, photo, hole):
    """Plain runs and replays, and 93×115 pixels, which are padded on the device."""
    photo, hole = photo[:93, :115], hole[:93, :115]
    reference, half = glama_deploy.load(tiny, "torch"), make_inpainter(tiny, precision)
    expected = reference.predict(photo, hole)
    bound = catalogue.PRECISIONS[precision].tolerance.max_abs_error
    for _ in range(3):
        assert np.abs(half.predict(photo, hole) - expected).max() < bound
        filled = half(photo, hole, region="full")
        assert np.array_equal(filled[~hole], photo[~hole])
        # half of a step for the rounding to bytes
        assert np.abs(filled / 255 - expected)[hole].max() < bound + 0.5 / 255
    assert (half.precision, half.device) == (precision, "cuda")
    assert half.description == f"PyTorch {torch.__version__} CUDA {precision}"


def test_a_replay_gives_what_a_plain_run_gives(tiny, monkeypatch):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (4, 2, 40, 56, 3), np.uint8)
    mask = (rng.random((2, 40, 56)) > 0.5).astype(np.uint8)
    plain = [open_fake(tiny).run(image, mask) for image in images]
    cuda = FakeCuda()
    runner = open_fake(tiny, cuda=cuda)
    assert np.array_equal(runner.run(images[0], mask), plain[0])

    def fail(*arguments: object) -> None:
        pytest.fail("a captured run copies a new table to the GPU")

    monkeypatch.setattr(tables, "_list_reflected_pixels", fail)
    monkeypatch.setattr(tables, "_round", fail)
    results = [runner.run(image, mask) for image in images[1:]]
    assert np.array_equal(results, plain[1:])
    assert [graph.replays for graph in cuda.graphs] == [3]


@pytest.mark.parametrize(
    "config",
    [
        NetworkConfig(ngf=8, n_blocks=1, fill="pull-push"),
        NetworkConfig(ngf=8, n_blocks=1, coarse=NetworkConfig(ngf=8, n_blocks=1), coarse_side=64),
    ],
    ids=["fill", "two stages"],
)
def test_networks_with_parts_in_float32_are_captured_too(config, make_checkpoint):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, 1, 64, 64, 3), np.uint8)
    mask = (rng.random((1, 64, 64)) > 0.5).astype(np.uint8)
    model, cuda = make_checkpoint(config), FakeCuda()
    runner = open_fake(model, cuda=cuda)
    for image in images:
        assert np.array_equal(runner.run(image, mask), open_fake(model).run(image, mask))
    assert [graph.replays for graph in cuda.graphs] == [2]


def test_where_memory_is_short_the_graphs_go_and_the_run_is_repeated(tiny, photo, hole):
    cuda = FakeCuda()
    half = make_inpainter(tiny, cuda=cuda)
    expected = half(photo, hole, region="full")
    half(photo, hole, region="full")
    runner = half._runner
    run, failed = runner._run, []

    def fail_once(*arguments):
        if not failed:
            failed.append(True)
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
        return run(*arguments)

    runner._run, holder = fail_once, runner.holder
    assert np.array_equal(half(photo, hole, region="full"), expected)
    assert cuda.emptied == 1
    assert runner.holder != holder  # what the runs held was given back


def test_where_memory_is_short_without_graphs_too_the_error_says_so(tiny, photo, hole):
    half = make_inpainter(tiny)

    def fail(*arguments):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    half._runner._run = fail
    with pytest.raises(EngineError, match=r"^PyTorch is out of GPU memory; use a smaller image"):
        half(photo, hole)


def test_a_failure_of_cuda_is_one_line(tiny, photo, hole):
    half = make_inpainter(tiny)

    def fail(*arguments):
        raise RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED\nmore lines")

    half._runner._run = fail
    with pytest.raises(EngineError, match=r"^PyTorch \S+ CUDA fp16 failed: cuDNN error: CUDNN_STATUS_NOT_SUPPORTED$"):
        half(photo, hole)


def test_an_image_that_does_not_fit_the_gpus_memory_is_planned_in_parts(tiny):
    rng = np.random.default_rng(0)
    image, mask = rng.integers(0, 256, (256, 256, 3), np.uint8), np.zeros((256, 256), bool)
    mask[100:140, 100:140] = True
    cuda = FakeCuda()
    half = make_inpainter(tiny, cuda=cuda)
    assert half._runner.memory_available() == cuda.free_bytes
    cuda.free_bytes = half._runner.memory_needed((200, 200))
    with pytest.raises(glama_deploy.ImageError, match=r"256x256.*GB are free"):
        half(image, mask, region="full")
    assert (half(image, mask)[~mask] == image[~mask]).all()


def make_loud(source, path, factor):
    """Write a checkpoint whose first Fourier unit reads values that are larger by a factor."""
    read = formats.read(source)
    weights = dict(read.weights)
    for part in ("weight", "bias"):
        name = f"model.{read.config.first_block}.conv1.ffc.convg2g.conv1.1.{part}"
        weights[name] = weights[name] * np.float32(factor)
    formats.save(path, read.config, weights)
    return path


def test_an_overflow_is_an_error_and_not_a_picture(tiny, tmp_path, photo, hole):
    loud = make_loud(tiny, tmp_path / "loud.safetensors", 2**13)
    with pytest.raises(EngineError, match="gave values that are not finite; nothing was written: use precision bf16"):
        make_inpainter(loud)(photo, hole)
    assert np.isfinite(make_inpainter(loud, "bf16").predict(photo, hole)).all()


@pytest.mark.parametrize("factor", [2.0**24, 2.0**-30])
def test_weights_that_a_half_type_cannot_hold_are_refused(tiny, tmp_path, factor):
    loud = make_loud(tiny, tmp_path / "loud.safetensors", factor)
    with pytest.raises(
        EngineError, match=r"^a layer has weights up to .*, and fp16 holds 6.1e-05 to 65504; use precision fp32$"
    ):
        open_fake(loud)


def test_a_gpu_that_emulates_bf16_is_refused(tiny):
    cuda = FakeCuda()
    cuda.capability = (7, 5)
    with pytest.raises(EngineError, match=r"compute capability 7\.5, and bf16 needs 8\.0 .*; use precision fp16"):
        open_fake(tiny, "bf16", cuda)
    assert open_fake(tiny, "fp16", cuda).precision == "fp16"


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_a_cpu_is_refused(tiny, precision):
    with pytest.raises(
        EngineError, match=f"computes in {precision} on an NVIDIA GPU alone; on a CPU use precision fp32"
    ):
        open_half(formats.read(tiny), Request(precision), CPU)


def test_other_precisions_are_refused_with_those_that_there_are(tiny):
    with pytest.raises(EngineError, match=r"does not compute in int8; use fp32, bf16 or fp16$"):
        torch_runtime.open(formats.read(tiny), Request("int8"))


@pytest.mark.without_gpu
def test_a_gpu_that_is_asked_for_and_not_there_is_an_error(tiny):
    with pytest.raises(EngineError, match=r"^`device` is cuda:0, and PyTorch sees no GPU; give cpu"):
        torch_runtime.open(formats.read(tiny), Request(device=Device("cuda", 0)))


def test_the_device_of_a_request_is_a_gpu_with_its_number(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    asked = (Device("cpu"), None, Device("cuda"), Device("cuda", 0))
    found = [str(torch_runtime.find_device(device)) for device in asked]
    assert found == ["cpu", "cuda:1", "cuda:1", "cuda:0"]
    with pytest.raises(
        EngineError, match=r"^`device` is cuda:2, and there is no such GPU; this process sees 2 CUDA GPUs"
    ):
        torch_runtime.find_device(Device("cuda", 2))


def test_a_closed_runner_gives_its_memory_back(tiny):
    cuda = FakeCuda()
    with make_inpainter(tiny, cuda=cuda) as half:
        assert half.backend == "torch"
    assert cuda.emptied == 1


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("model", ["default", "lama9"])
def test_on_a_gpu_plain_runs_and_graphs_are_within_the_tolerance(model, precision, request):
    if not torch.cuda.is_available():
        pytest.skip("this PyTorch has no CUDA")
    source = model if model == "default" else request.getfixturevalue(model)
    half, reference = glama_deploy.load(source, "torch", precision), glama_deploy.load(source, "torch")
    rng = np.random.default_rng(0)
    for size in ((64, 64), (93, 115), (256, 264), (64, 64)):
        image, mask = rng.integers(0, 256, (*size, 3), np.uint8), rng.random(size) > 0.7
        expected = reference.predict(image, mask)
        for _ in range(3):
            error = np.abs(half.predict(image, mask) - expected).max()
            assert error < catalogue.PRECISIONS[precision].tolerance.max_abs_error
    assert all(size.graph is not None for size in half._runner._graphs._sizes.values())
