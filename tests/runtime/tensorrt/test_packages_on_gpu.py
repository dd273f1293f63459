"""Frames of CuPy and PyTorch on a real GPU, with a real engine. Nothing of this has run yet."""

from __future__ import annotations

import numpy as np
import pytest

from fakes.tensorrt_bundles import SIZES, World, inputs
from glama_deploy.runtime.base import Request
from glama_deploy.runtime.cuda.cuda_python import CudaPythonDevice
from glama_deploy.runtime.tensorrt import runner as tensorrt

pytestmark = pytest.mark.gpu


@pytest.fixture
def real(tiny, make_bundle) -> World:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    bundle = make_bundle(tiny, ("trt-rtx",), profile=SIZES)
    # fp32 without TF32: as for the engines on a CPU
    return World(bundle, tensorrt.open(bundle, Request(engine="tensorrt-rtx")), CudaPythonDevice(), tolerance=2e-5)


@pytest.mark.parametrize("has_out", [False, True])
def test_tensors_of_pytorch_are_filled_in_their_stream(real, has_out):
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("this PyTorch has no CUDA")
    with torch.cuda.stream(torch.cuda.Stream()) as _:
        stream = torch.cuda.current_stream()
        for seed in range(6):
            image, mask = inputs(1, 64, 64, seed)
            there, hole = (
                torch.from_numpy(image).cuda(non_blocking=True),
                torch.from_numpy(mask).cuda(non_blocking=True),
            )
            out = torch.empty_like(there) if has_out else None
            result = real.runner.run_on_device(there, hole, out=out, stream=stream)
            tensor = result if has_out else torch.from_dlpack(result)
            found = (tensor + 0).cpu().numpy()
            np.testing.assert_allclose(found, real.expected(image, mask), rtol=0, atol=real.tolerance)


@pytest.mark.parametrize("has_out", [False, True])
@pytest.mark.parametrize("read", ["from_dlpack", "asarray"])
def test_arrays_of_cupy_are_filled_in_their_stream(real, has_out, read):
    cupy = pytest.importorskip("cupy")
    with cupy.cuda.Stream(non_blocking=True) as stream:
        for seed in range(6):
            image, mask = inputs(1, 64, 64, seed)
            there, hole = cupy.asarray(image), cupy.asarray(mask)
            out = cupy.empty_like(there) if has_out else None
            result = real.runner.run_on_device(there, hole, out=out, stream=stream)
            found = cupy.asnumpy((result if has_out else getattr(cupy, read)(result)) + 0)
            np.testing.assert_allclose(found, real.expected(image, mask), rtol=0, atol=real.tolerance)
