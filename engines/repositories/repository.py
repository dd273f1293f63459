"""Write a bundle as the model repository of an inference server. The repository appears complete, or not at all."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import glama_deploy
from glama_deploy.bundle import Bundle
from glama_deploy.catalogue import join_names
from glama_deploy.engines.repositories import openvino_model_server, triton
from glama_deploy.engines.repositories.served_model import ServedModel, check_name
from glama_deploy.errors import GlamaError
from glama_deploy.io.files import (
    check_overwrite,
    check_path,
    check_writable,
    publish_folder,
    temporary_beside,
    write_error,
)
from glama_deploy.remote.description import Color
from glama_deploy.runtime.base import MAX_THREADS

#: The servers that a repository can be written for.
TRITON, OPENVINO_MODEL_SERVER = "triton", "ovms"
SERVERS = (TRITON, OPENVINO_MODEL_SERVER)

#: The name that a model has for clients, if the user does not say.
DEFAULT_NAME = "glama"

#: The file by which a repository of this software is known. Both servers ignore it.
MARK = "glama-package.json"


@dataclass(frozen=True)
class RepositoryRequest:
    """What to write.

    Attributes:
        bundle: The folder of the bundle.
        server: `triton` or `ovms`.
        out: The folder of the repository.
        backend: Triton's backend; None: `python`.
        name: The name that clients give.
        instances: The number of requests that the server runs at once.
        color: The order of the channels for OpenVINO Model Server; None: `bgr`, as that server decodes files.
        overwrite: Whether a repository of this software may be replaced.
    """

    bundle: Path
    server: str
    out: Path
    backend: str | None = None
    name: str = DEFAULT_NAME
    instances: int = 1
    color: Color | None = None
    overwrite: bool = False


def write_repository(request: RepositoryRequest) -> Path:
    """Write a repository.

    Args:
        request: What to write.

    Returns:
        The model's folder in the repository.

    Raises:
        GlamaError: The request or the bundle cannot be used, or the repository cannot be written. Nothing is written.
    """
    _check_request(request)
    bundle = Bundle.open(request.bundle)
    out = request.out.resolve()
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with temporary_beside(out) as repository:
            model = ServedModel(bundle, request.name, request.instances, repository / request.name)
            model.version_folder.mkdir(parents=True)
            if request.server == TRITON:
                triton.write_triton_model(model, request.backend or triton.PYTHON)
            else:
                openvino_model_server.write_openvino_model(model, request.color or "bgr")
                openvino_model_server.write_config(repository, model)
            _write_mark(repository, request)
            publish_folder(repository, out)
    except OSError as error:
        raise write_error(request.out, error) from error
    return request.out / request.name


def _check_request(request: RepositoryRequest) -> None:
    """Raise GlamaError for a request that is known to fail, before any work."""
    if request.server not in SERVERS:
        raise GlamaError(f"`for` is {request.server!r}; expected {join_names(SERVERS)}")
    backends = triton.list_backends()
    if request.backend is not None and request.server != TRITON:
        raise GlamaError(f"`backend` is for Triton; leave it out for {request.server}")
    if request.backend is not None and request.backend not in backends:
        raise GlamaError(f"`backend` is {request.backend!r}; expected {join_names(backends)}")
    if request.color is not None and request.server != OPENVINO_MODEL_SERVER:
        raise GlamaError(f"`color` is for OpenVINO Model Server; leave it out for {request.server}, which takes RGB")
    if request.color not in (None, *get_args(Color)):
        raise GlamaError(f"`color` is {request.color!r}; expected {join_names(get_args(Color))}")
    if not 1 <= request.instances <= MAX_THREADS:
        raise GlamaError(f"`instances` is {request.instances}; expected a whole number from 1 to {MAX_THREADS}")
    check_name(request.name)
    _check_out(request.out, overwrite=request.overwrite)
    if request.out.resolve() in request.bundle.resolve().parents and request.out.exists():
        raise GlamaError(f"{request.bundle} lies in {request.out}, which would be replaced; choose another folder")


def _check_out(out: Path, *, overwrite: bool) -> None:
    """Raise GlamaError if the repository cannot be written."""
    check_path(out)
    check_overwrite(out, is_there=out.exists(), overwrite=overwrite)
    if out.exists() and not out.is_dir():
        raise GlamaError(f"{out} is a file; a folder is needed for the repository")
    if out.is_dir() and any(out.iterdir()) and not (out / MARK).is_file():
        raise GlamaError(
            f"{out} exists and was not written by glama-package, so it is not overwritten; choose another folder"
        )
    if out.is_dir() and (further := _find_further(out)):
        raise GlamaError(
            f"{out} also has {further}, which glama-package did not write there; move {further} away, or choose "
            "another folder"
        )
    check_writable(out.absolute().parent)


def _find_further(out: Path) -> str | None:
    """Return the name of a file or folder in a repository that this software did not write; None if there is none."""
    try:
        model = json.loads((out / MARK).read_text(encoding="utf-8"))["model"]
    except (OSError, ValueError, KeyError, TypeError):  # an empty folder, or a mark that somebody changed
        model = None
    names = sorted(path.name for path in out.iterdir())
    return next((name for name in names if name not in (MARK, openvino_model_server.CONFIG, model)), None)


def _write_mark(repository: Path, request: RepositoryRequest) -> None:
    content = {
        "software": f"glama-deploy {glama_deploy.__version__}",
        "server": request.server,
        "model": request.name,
        "bundle": request.bundle.name,
    }
    (repository / MARK).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
