"""Lock files in places that take none."""

from __future__ import annotations

from pathlib import Path

import pytest

from glama_deploy.io import locks


@pytest.mark.parametrize("take", [locks.try_hold, lambda path: locks.hold(path, "the file")])
@pytest.mark.parametrize("folder", ["/proc", "missing"])
def test_a_lock_that_cannot_be_made_is_an_error_and_no_wait(tmp_path, take, folder):
    """`/proc` takes no files, not even from root. filelock calls a lock there held, and makes missing folders."""
    with pytest.raises(OSError), take(tmp_path / folder / "x.lock" if folder == "missing" else Path(folder, "x.lock")):
        pass
    assert not (tmp_path / "missing").exists()
