"""glama-models: list, download, find and remove published models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

from rich import box
from rich.table import Table

from glama_deploy.checkpoints.published import hub, storage
from glama_deploy.checkpoints.published.hub import HubFile
from glama_deploy.checkpoints.published.model_list import PublishedModel, read_models
from glama_deploy.checkpoints.published.references import as_remote_file, parse_reference
from glama_deploy.checkpoints.published.remote_file import RemoteFile, format_megabytes, format_size
from glama_deploy.checkpoints.published.storage import State
from glama_deploy.cli.entry import CommandGroup, ResumableInterrupt, argument, option
from glama_deploy.cli.output.console import Console
from glama_deploy.errors import DownloadError

#: Columns of the list. A narrower terminal folds its lines.
_LIST_WIDTH = 120


Name = Annotated[str, argument(help="Name of a published model.")]
AsJson = Annotated[bool, option("--json", help="Print JSON.")]


def list_models(as_json: AsJson = False) -> None:
    """List the published models, and what this machine has of each."""
    models = read_models().values()
    if as_json:
        _print_json({"models": [_describe(model) for model in models]})
        return
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0))
    for column in ("name", "size", "licence", "here", "good at"):
        table.add_column(column, no_wrap=column == "name")
    for model in models:
        remote = as_remote_file(model)
        state = _format_state(storage.find_state(remote))
        table.add_row(model.name, format_size(remote), model.licence, state, model.good_at)
    console = Console()
    Console(width=max(console.width, _LIST_WIDTH)).print(table)


def show(name: Name, as_json: AsJson = False) -> None:
    """Show a model's licence, page, addresses and SHA-256, and where its file is."""
    parse_reference(name)  # an unknown name is told
    model = read_models().get(name)
    if model is None:
        raise DownloadError(f"{name} is an address; a name that glama-models list shows is expected")
    if as_json:
        _print_json(_describe(model))
        return
    remote = as_remote_file(model)
    state = storage.find_state(remote)
    rows = [
        ("name", model.name),
        ("good at", model.good_at),
        ("licence", model.licence),
        ("page", model.page),
        ("file", f"{model.file}, {format_size(remote)}"),
        ("SHA-256", model.sha256),
        *(("address", url) for url in model.urls),
        ("here", _format_state(state)),
        ("path", str(state.path if state.name == "shared" else remote.path)),
    ]
    console = Console()
    for label, value in rows:
        console.print(f"{label:8} {value}", soft_wrap=True)


def pull(
    names: Annotated[
        list[str], argument(help="Names, hf://OWNER/REPO/FILE, or https://HOST/FILE#sha256=HASH.", metavar="NAME")
    ],
) -> None:
    """Download models, verify their SHA-256, and print their paths.

    A download that was cut off is continued. A model that is here already is verified only.
    """
    console = Console()
    for reference in [parse_reference(name) for name in names]:  # a wrong name is told before a download
        try:
            path = hub.pull(reference) if isinstance(reference, HubFile) else storage.pull(reference)
        except KeyboardInterrupt as error:
            raise ResumableInterrupt("interrupted; the same command continues the download") from error
        console.print(str(path), soft_wrap=True)


def path(
    name: Annotated[str, argument(help="Name, hf://OWNER/REPO/FILE, or https://HOST/FILE#sha256=HASH.")],
) -> None:
    """Verify a model that is on this machine, and print its path. Nothing is downloaded."""
    reference = parse_reference(name)
    found = hub.find(reference) if isinstance(reference, HubFile) else storage.find(reference)
    if found is None:
        raise DownloadError(f"{reference.subject} is not on this machine; glama-models pull {name} downloads the file")
    Console().print(str(found), soft_wrap=True)


def remove(
    names: Annotated[list[str], argument(help="Names, or https://HOST/FILE#sha256=HASH.", metavar="NAME")],
) -> None:
    """Remove models from the cache, with incomplete downloads. Files in PyTorch's own folder are not changed."""
    remotes = [_require_own(parse_reference(name)) for name in names]
    console = Console()
    for remote in remotes:
        size = storage.remove_files(remote)
        done = f"removed, {format_megabytes(size)}" if size else "is not in the cache"
        console.print(f"{remote.subject}: {done}", soft_wrap=True)
        state = storage.find_state(remote)
        if state.name == "shared":
            console.print(f"{remote.subject}: {state.path} stays, because other programs use the file", soft_wrap=True)


def _require_own(reference: RemoteFile | HubFile) -> RemoteFile:
    """Return a file of our own cache. Raises DownloadError for a file of huggingface_hub."""
    if isinstance(reference, HubFile):
        raise DownloadError(f"{reference.subject} is in the cache of huggingface_hub; remove the file with hf cache")
    return reference


def _describe(model: PublishedModel) -> dict[str, Any]:
    """Return a model's record with its state on this machine."""
    state = storage.find_state(as_remote_file(model))
    here: Path | None = state.path if state.name in ("downloaded", "shared") else None
    return {**model.model_dump(mode="json"), "state": state.name, "path": None if here is None else str(here)}


def _format_state(state: State) -> str:
    words = {
        "downloaded": "downloaded",
        "shared": "in PyTorch's folder",
        "partial": f"{format_megabytes(state.size_bytes)} of a download",
        "absent": "no",
    }
    return words[state.name]


def _print_json(content: dict[str, Any]) -> None:
    print(json.dumps(content, indent=1))


main = CommandGroup(
    "glama-models",
    "List, download, find and remove published models. Commands that take a model download it at its first use.",
    {"list": list_models, "pull": pull, "show": show, "path": path, "remove": remove},
)
