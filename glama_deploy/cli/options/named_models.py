"""The option `--model NAME=MODEL` of commands whose clients choose a model by its name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from glama_deploy.checkpoints import embedded
from glama_deploy.checkpoints.published.references import find_reference, split_name
from glama_deploy.checkpoints.published.remote_file import RemoteFile
from glama_deploy.cli.entry import option
from glama_deploy.cli.options.completion import list_models
from glama_deploy.cli.options.iopaint import LAMA, find_lama
from glama_deploy.errors import GlamaError

ModelNames = Annotated[
    list[str],
    option(
        "--model",
        list_values=list_models,
        help="Bundle, checkpoint, name of glama-models list, or 'default' for the embedded network; also "
        "NAME=MODEL. Give the option several times to let clients choose. The first is used without a choice.",
    ),
]


def name_models(given: Sequence[str]) -> dict[str, str]:
    """Find the names by which clients choose models.

    Args:
        given: The values of `--model`: a model, or NAME=MODEL. Without NAME, the name is the file's name without its
            suffix.

    Returns:
        The models by their names, in the given order.

    Raises:
        GlamaError: A model does not exist, has no name, or has the name of another model.
    """
    named: dict[str, str] = {}
    for text in given:
        name, path = split_name(text)
        if name is None:
            name = text if embedded.is_embedded(text) else Path(text).stem
            if text == LAMA and not Path(text).exists():
                path = find_lama()
        if not name or not path or name in named:
            fault = "has no name or no path" if not name or not path else f"has the name {name} of another model"
            raise GlamaError(f"`model` {text} {fault}; give NAME=PATH with a name of its own")
        named[name] = path
    for path in named.values():
        _check_model(path)
    return named


def _check_model(model: str) -> None:
    """Check a model before a client asks, without opening the model or a connection.

    Raises:
        GlamaError: The path or name does not exist, or downloads are forbidden and the model is not here.
    """
    from glama_deploy import loading

    reference = find_reference(model)
    if isinstance(reference, RemoteFile):
        from glama_deploy.checkpoints.published import storage

        if storage.find_state(reference).name in ("absent", "partial"):
            storage.check_downloads(reference)
    elif reference is None and not embedded.is_embedded(model):
        loading.check_is_there(Path(model))
