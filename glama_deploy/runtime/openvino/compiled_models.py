"""Compiled OpenVINO models on disk, each behind the SHA-256 of its bytes.

OpenVINO's own cache (`CACHE_DIR`) does not check its files: some flipped bits give another image without an error.
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import numpy as np

from glama_deploy.errors import GlamaError
from glama_deploy.io.files import atomic_file

log = logging.getLogger("glama_deploy")

SUFFIX = ".compiled"

_DIGEST_BYTES = hashlib.sha256().digest_size


def read(path: Path) -> np.ndarray | None:
    """Return the compiled model that :func:`write` left at `path`, as memory that is mapped from the file.

    Mapping takes half of the time of reading: the pages are not copied, and OpenVINO uses the weights where they lie.
    Nothing changes a file after it was written: another file takes its place. A damaged file is removed, with a note. A
    file that cannot be read now, for example because memory is short, is left, with a note.

    Args:
        path: The file, which need not exist.

    Returns:
        The model for `Core.import_model`, uint8 [N]; None where there is no whole file.
    """
    try:
        # a mapping that may be written, as an `openvino.Tensor` demands; the file does not change
        whole = np.memmap(path, np.uint8, "c")
    except FileNotFoundError:
        return None
    except OSError as error:
        reason = error.strerror or error
        log.warning("the compiled model %s cannot be read (%s), and the model is compiled again", path, reason)
        return None
    except ValueError:  # an empty file cannot be mapped
        discard(path, "it is empty")
        return None
    digest, model = whole[:_DIGEST_BYTES], whole[_DIGEST_BYTES:]
    if hashlib.sha256(model.data).digest() != digest.tobytes():
        del whole, digest, model  # Windows removes no file that is mapped
        discard(path, "its SHA-256 differs")
        return None
    return model


def write(path: Path, model: bytes) -> None:
    """Write a compiled model, whole or not at all. A file that cannot be written is logged as a warning.

    Args:
        path: The file.
        model: What the compiled model's `export_model` gave.
    """
    try:
        with atomic_file(path) as temporary, temporary.open("wb") as file:
            file.write(hashlib.sha256(model).digest())
            file.write(model)
    except GlamaError as error:
        log.warning("%s; the model is compiled again at the next start", error)


def discard(path: Path, reason: str) -> None:
    """Remove a damaged file and log a warning.

    Args:
        path: The file.
        reason: Why the file is damaged, for the warning.
    """
    try:
        path.unlink(missing_ok=True)
        done = "it was removed"
    except OSError as error:
        done = f"it cannot be removed ({error.strerror})"
    log.warning("the compiled model %s is damaged (%s); %s, and the model is compiled again", path, reason, done)
