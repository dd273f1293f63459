"""cuFFT, the real library, without a GPU."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from glama_deploy.errors import EngineError
from glama_deploy.runtime.tensorrt.plugins import cufft
from glama_deploy.runtime.tensorrt.plugins.fft import Size


def test_the_library_loads_and_has_every_function_that_is_called(real_cufft):
    assert real_cufft.version() >= 10_000


@pytest.mark.without_gpu
def test_a_plan_without_a_driver_is_one_clear_line(real_cufft):
    with pytest.raises(
        EngineError, match=r"^cufftCreate of .*libcufft.* failed with status \d: .*no NVIDIA driver[^\n]*$"
    ):
        cufft.Plan(real_cufft, "R2C", Size(2, 8, 8))


def test_a_missing_cufft_is_an_error_with_the_package_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr(cufft, "_candidates", lambda: ["libcufft-that-is-not-there.so"])
    with pytest.raises(EngineError, match=r"cuFFT is not installed; install the CUDA toolkit .* `fft=matmul`"):
        cufft.load()
    broken = tmp_path / "libcufft.so"
    broken.write_bytes(b"not a library")
    monkeypatch.setattr(cufft, "_candidates", lambda: [str(broken)])
    with pytest.raises(EngineError, match="does not load"):
        cufft.load()


def test_a_library_without_the_functions_is_named():
    with pytest.raises(EngineError, match=r"old\.so has no cufftGetVersion"):
        cufft.Cufft(SimpleNamespace(), "old.so")
