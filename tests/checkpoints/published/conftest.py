"""A host of models, and a machine that has none of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fakes.model_host import ModelHost
from glama_deploy.checkpoints.published import storage


@pytest.fixture
def host(model_host: ModelHost) -> ModelHost:
    return model_host


@pytest.fixture
def content() -> bytes:
    """100,000 bytes that look like no other file."""
    return np.random.default_rng(0).bytes(100_000)


@pytest.fixture(autouse=True)
def own_cache(model_host: ModelHost, tmp_path: Path) -> Path:
    """The cache, which does not exist yet."""
    storage._note_use.cache_clear()
    return tmp_path / "cache"
