"""The values that a shell completes behind the options of the commands."""

from __future__ import annotations

from glama_deploy.catalogue import ENGINES, WEB, backends
from glama_deploy.checkpoints import embedded
from glama_deploy.errors import GlamaError


def list_models() -> list[str]:
    """List the models that have a name.

    Returns:
        The embedded networks and the published models. Where the catalogue of those cannot be read, the embedded
        networks alone. A shell that completes a word has no place for the reason; the command itself gives the reason.
    """
    from glama_deploy.checkpoints.published.model_list import read_models

    try:
        return [*embedded.NAMES, *read_models()]
    except GlamaError:
        return [*embedded.NAMES]


def list_backends() -> list[str]:
    """List the backends, with and without their providers.

    Returns:
        The names that `--backend` takes.
    """
    providers = [f"{name}:{each}" for name, record in backends().items() for each in record.providers]
    return ["auto", *backends(), *providers, "torch"]


def list_targets() -> list[str]:
    """List the targets of an export.

    Returns:
        The names that `--target` of glama-export takes.
    """
    return [*(record.target for record in ENGINES.values()), WEB.target]


def list_built_targets() -> list[str]:
    """List the targets that a device can build.

    Returns:
        The names that `--target` of glama-build takes.
    """
    return [record.target for record in ENGINES.values() if record.builder]
