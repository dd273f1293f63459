"""The catalogue of published models: `models.json`, or the file that `GLAMA_MODELS_CATALOGUE` names."""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError, field_validator, model_validator

from glama_deploy.checkpoints import embedded
from glama_deploy.checkpoints.published.addresses import check_address
from glama_deploy.errors import GlamaError
from glama_deploy.frozen import FrozenModel
from glama_deploy.text.excerpts import excerpt

#: A file in the form of `models.json` that replaces the built-in catalogue.
CATALOGUE_VARIABLE = "GLAMA_MODELS_CATALOGUE"

_BUILT_IN = Path(__file__).with_name("models.json")

#: A name that no path has: without a separator and without a scheme.
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"

#: The name of a file that a download may have on this machine.
FILE_PATTERN = r"^[A-Za-z0-9_][A-Za-z0-9._+@~-]{0,199}$"


class PublishedModel(FrozenModel):
    """A published checkpoint.

    Attributes:
        name: what users call the model.
        good_at: the pictures that the model is good at.
        licence: SPDX identifier of the weights' licence.
        page: the page of the publisher.
        file: the name of the file.
        size_bytes: size of the file in bytes.
        is_size_exact: False if the size is only approximately known.
        sha256: SHA-256 of the file, in lower-case hexadecimal.
        urls: addresses of the file, which are tried in turn.
    """

    name: str = Field(pattern=NAME_PATTERN)
    good_at: str = Field(min_length=1, max_length=200)
    licence: str = Field(min_length=1, max_length=60)
    page: str = Field(pattern=r"^https?://")
    file: str = Field(pattern=FILE_PATTERN)
    size_bytes: int = Field(gt=0)
    is_size_exact: bool = True
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    urls: Annotated[tuple[str, ...], Field(min_length=1)]

    @field_validator("urls")
    @classmethod
    def _check_urls(cls, urls: tuple[str, ...]) -> tuple[str, ...]:
        for url in urls:
            try:
                check_address(url)
            except GlamaError as error:
                raise ValueError(str(error)) from error
        return urls


class _Catalogue(FrozenModel):
    """The content of a catalogue file."""

    models: tuple[PublishedModel, ...]

    @model_validator(mode="after")
    def _check_names(self) -> _Catalogue:
        names = [model.name for model in self.models]
        if twice := {name for name in names if names.count(name) > 1 or embedded.is_embedded(name)}:
            raise ValueError(f"the name {min(twice)} is taken twice, or is an embedded network's")
        return self


def read_models() -> dict[str, PublishedModel]:
    """Read the catalogue.

    Returns:
        The models by name, in the order of the file.

    Raises:
        GlamaError: the file that `GLAMA_MODELS_CATALOGUE` names cannot be read, or is not a catalogue.
    """
    path = Path(os.environ.get(CATALOGUE_VARIABLE) or _BUILT_IN).expanduser()
    try:
        catalogue = _Catalogue.model_validate_json(path.read_bytes())
    except OSError as error:
        raise GlamaError(f"{CATALOGUE_VARIABLE} names {path}: {error.strerror}; correct or unset it") from error
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        reason = excerpt(first["msg"].removeprefix("Value error, "), 200)
        raise GlamaError(
            f"{CATALOGUE_VARIABLE} names {path}, which is not a catalogue of models ({excerpt(where)}: {reason}); "
            "correct or unset it"
        ) from error
    return {model.name: model for model in catalogue.models}


def find_near_name(text: str) -> str | None:
    """Find the model that a wrong name is most similar to.

    Args:
        text: The wrong name, or the name of a file.

    Returns:
        The name, or None where no name is similar.
    """
    models = read_models()
    for model in models.values():
        if text.lower() in (model.name.lower(), model.file.lower()):
            return model.name
    near = difflib.get_close_matches(text.lower(), models, n=1)
    return near[0] if near else None
