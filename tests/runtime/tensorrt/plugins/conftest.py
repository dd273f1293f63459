"""The real cuFFT, for the tests that load it."""

from __future__ import annotations

import pytest

from glama_deploy.errors import EngineError
from glama_deploy.runtime.tensorrt.plugins import cufft


@pytest.fixture(scope="session")
def real_cufft() -> cufft.Cufft:
    try:
        return cufft.load()
    except EngineError as error:
        pytest.skip(str(error))
