"""Transforms of whole batches: over cuFFT in memory and, on a GPU, over the real one."""

from __future__ import annotations

import gc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.cufft import STREAM, Buffer, MemoryCufft, over_memory, trusting_inverse
from fakes.spectra import close, real_array, shapes, sides, spectrum_like
from glama_deploy.errors import EngineError
from glama_deploy.runtime.tensorrt.plugins import fft, hermitian, transforms
from glama_deploy.runtime.tensorrt.plugins.fft import Size


def test_the_trusting_inverse_is_right_for_real_arrays_only():
    x = real_array((3, 6, 8)).astype(np.float64)
    np.testing.assert_allclose(trusting_inverse(np.fft.rfft2(x), 8), x * 48, atol=1e-12)  # float64 rounding
    z = spectrum_like((1, 3, 6, 8))[0].view(np.complex64)[..., 0]
    assert np.abs(trusting_inverse(z, 8) - np.fft.irfft2(z, (6, 8), norm="forward")).max() > 1


@given(shape=shapes, work=st.sampled_from([0, 64, 200_000, 600_000]))
@settings(deadline=None)
def test_a_size_with_a_large_work_area_runs_in_parts(shape, work):
    library = MemoryCufft(work_per_array=work)
    size, x, z = fft.rfft2_size(shape), real_array(shape), spectrum_like(shape)
    for forward, source, expected in ((True, x, fft.rfft2(x)), (False, z, fft.irfft2(z, x))):
        shared = over_memory(library)
        room = transforms.work_bytes(size)
        if work * min(size.batch, 2) > room:
            with pytest.raises(EngineError, match="larger work area"):
                (shared.forward if forward else shared.inverse)(size)
            continue
        transform = (shared.forward if forward else shared.inverse)(size)
        workspace = Buffer((transforms.forward_workspace if forward else transforms.inverse_workspace)(size))
        given_, target = Buffer(source.nbytes, source), Buffer(expected.nbytes)
        transform.run(given_.address, target.address, workspace.address, STREAM)
        close(target.array(expected.shape), expected)
        np.testing.assert_array_equal(given_.array(source.shape), source)  # not written
        for buffer in (given_, target, workspace):
            buffer.assert_guards()


def test_parts_are_even_and_cover_every_array_once():
    size = Size(batch=15, height=3, width=5)  # 60 bytes an array: odd starts would be unaligned
    room = transforms.work_bytes(size)
    library = MemoryCufft(work_per_array=room // 5 // 4 * 4)  # five arrays fit
    transform = over_memory(library).forward(size)
    assert [start for start, _ in transform._parts] == [0, 4, 8, 12]
    assert [made.batch for _, made in library.made] == [15, 8, 7, 4, 3]


@given(st.tuples(st.integers(1, 40), sides, sides), st.tuples(st.integers(0, 5), st.integers(0, 9), st.integers(0, 9)))
def test_the_workspace_of_a_size_is_enough_for_every_smaller_one(small, more):
    larger = Size(*(a + b for a, b in zip(small, more, strict=True)))
    for workspace in (transforms.forward_workspace, transforms.inverse_workspace):
        assert workspace(Size(*small)) <= workspace(larger)
        assert workspace(larger) % 256 == 0


def test_nodes_of_one_size_share_a_plan_until_the_last_is_freed():
    library = MemoryCufft()
    shared = over_memory(library)
    size = Size(4, 8, 8)
    nodes = [shared.forward(size) for _ in range(36)] + [shared.inverse(size) for _ in range(36)]
    assert [kind for kind, _ in library.made] == ["R2C", "C2R"]
    for side in range(9, 9 + transforms._MAX_CACHED_PLANS):
        shared.forward(replace(size, width=side))
    assert {1, 2} <= library.plans.keys()  # forgotten by the cache, in use by the nodes
    del nodes
    gc.collect()
    assert not {1, 2} & library.plans.keys()
    assert len(library.plans) == transforms._MAX_CACHED_PLANS
    del shared
    gc.collect()
    assert not library.plans


def test_plans_of_two_gpus_are_not_mixed_up():
    library = MemoryCufft()
    shared = over_memory(library)
    shared.forward(Size(1, 4, 4))
    shared._copy.device = 1
    shared.forward(Size(1, 4, 4))
    assert len(library.made) == 2


@pytest.mark.parametrize(
    ("function", "status", "words"),
    [
        ("cufftCreate", 7, "no NVIDIA driver"),
        ("cufftMakePlanMany64", 2, "out of GPU memory"),
        ("cufftMakePlanMany64", 8, "unsupported size"),
        ("cufftMakePlanMany64", 99, "unknown here"),
        ("cufftSetStream", 1, "invalid plan"),
        ("cufftSetWorkArea", 13, "no work area"),
        ("cufftExecR2C", 6, "execution failed"),
    ],
)
def test_every_status_of_cufft_becomes_an_error_with_its_meaning(function, status, words):
    library = MemoryCufft(fails={function: status})
    with pytest.raises(EngineError, match=f"^{function} of memory failed with status {status}: .*{words}"):
        over_memory(library).forward(Size(1, 4, 4)).run(0, 0, 0, STREAM)
    gc.collect()
    assert not library.plans, "a plan that was not finished is destroyed too"


class OnDevice:
    """A transform's source, target and workspace on the GPU."""

    def __init__(self, source: np.ndarray, target: np.ndarray, workspace: int) -> None:
        from glama_deploy.runtime.cuda.cuda_python import CudaPythonDevice

        self.cuda, self.source, self.target = CudaPythonDevice(), source, target
        self.addresses = [self.cuda.allocate(size) for size in (source.nbytes, target.nbytes, workspace)]

    def upload(self) -> None:
        self.cuda.upload(self.addresses[0], self.source)
        self.cuda.synchronize()

    def download(self) -> tuple[np.ndarray, np.ndarray]:
        """What is at the target and, afterwards, at the source."""
        result, after = np.empty_like(self.target), np.empty_like(self.source)
        self.cuda.download(result, self.addresses[1])
        self.cuda.download(after, self.addresses[0])
        self.cuda.synchronize()
        return result, after


@pytest.mark.gpu
@pytest.mark.parametrize("shape", [(1, 192, 64, 64), (2, 3, 33, 47), (1, 16, 131, 127), (1, 4, 8, 9), (3, 1, 1, 2)])
@pytest.mark.parametrize("forward", [True, False])
def test_cufft_computes_the_nodes(real_cufft, shape, forward):
    shared, size = transforms.Transforms(real_cufft, hermitian.HermitianCopy()), fft.rfft2_size(shape)
    x, z = real_array(shape), spectrum_like(shape)
    source, expected = (x, fft.rfft2(x)) if forward else (z, fft.irfft2(z, x))
    workspace = (transforms.forward_workspace if forward else transforms.inverse_workspace)(size)
    device = OnDevice(source, expected, workspace)
    transform = (shared.forward if forward else shared.inverse)(size)
    device.upload()
    transform.run(*device.addresses, device.cuda.stream)
    result, after = device.download()
    close(result, expected)
    np.testing.assert_array_equal(after, source)


@pytest.mark.gpu
def test_a_transform_can_be_captured_in_a_graph(real_cufft):
    from cuda.bindings import runtime

    shape = (1, 16, 40, 61)
    size, x = fft.rfft2_size(shape), real_array(shape)
    transform = transforms.Transforms(real_cufft, hermitian.HermitianCopy()).inverse(size)
    device = OnDevice(spectrum_like(shape), x, transforms.inverse_workspace(size))
    stream = device.cuda.stream
    device.upload()
    transform.run(*device.addresses, stream)  # kernels load when they are first launched, which a capture forbids
    device.download()
    assert runtime.cudaStreamBeginCapture(stream, runtime.cudaStreamCaptureMode.cudaStreamCaptureModeGlobal)[0] == 0
    transform.run(*device.addresses, stream)
    status, graph = runtime.cudaStreamEndCapture(stream)
    assert status == 0
    status, replay = runtime.cudaGraphInstantiate(graph, 0)
    assert status == 0
    for seed in (1, 2):
        device.source = spectrum_like(shape, seed)
        device.upload()
        assert runtime.cudaGraphLaunch(replay, stream)[0] == 0
        close(device.download()[0], fft.irfft2(device.source, x))
