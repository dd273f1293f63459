"""Check the state in a run's checkpoint before the run is resumed."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from glama_deploy.errors import CheckpointError
from glama_deploy.text.excerpts import quoted

#: The end of messages.
_REMEDY = "remove the file to resume from the checkpoint before"


def check(state: dict[str, Any]) -> None:
    """Check the types of a state of :meth:`glama_deploy.training.trainer.Trainer.state`.

    Args:
        state: The content of the checkpoint. The shapes of the networks are not checked.

    Raises:
        CheckpointError: A part is missing or has another type or range. The message names the part.
    """
    training: Any = state.get("training")
    _require(isinstance(training, dict), "training", training, "a dict")
    _require(isinstance(state.get("config"), dict), "config", state.get("config"), "a dict")
    _require(_is_count(training.get("recipe", 1)), "training.recipe", training.get("recipe"), "an integer from 0")
    _require(_is_count(training.get("step")), "training.step", training.get("step"), "an integer from 0")
    best = training.get("best", {})
    for name, value in best.items() if isinstance(best, dict) else [("psnr", best)]:
        is_score = isinstance(name, str) and type(value) in (int, float) and not math.isnan(value)
        _require(is_score, "training.best", value, "a number")
    networks = {f"training.{name}": training.get(name) for name in ("generator", "discriminator")}
    for name, found in {"state_dict": state.get("state_dict"), **networks}.items():
        is_network = isinstance(found, dict) and all(isinstance(value, Tensor) for value in found.values())
        _require(is_network, name, found, "a dict of tensors")


def read_best(training: dict[str, Any]) -> dict[str, float]:
    """Read the best values of a run's validations.

    Args:
        training: The checked part `training` of a state.

    Returns:
        The values by the names of their criteria. Older versions stored one number, the mean PSNR of all masks.
    """
    best = training.get("best", {})
    return dict(best) if isinstance(best, dict) else {"psnr": float(best)}


def check_adam_state(found: Any, adam: torch.optim.Adam, name: str) -> dict[str, Any]:
    """Check the state of an optimizer.

    Args:
        found: The optimizer's state in the checkpoint.
        adam: The run's optimizer, with one group of parameters.
        name: Name of the optimizer in the checkpoint.

    Returns:
        The state for `adam.load_state_dict`. Learning rates and decays are those of the run's config.

    Raises:
        CheckpointError: The state does not belong to an optimizer of these parameters.
    """
    moments: Any = found.get("state") if isinstance(found, dict) else None
    _require(isinstance(moments, dict), f"training.{name}", found, "an optimizer's state")
    own = adam.state_dict()["param_groups"]
    shapes = {number: parameter.shape for number, parameter in enumerate(adam.param_groups[0]["params"])}
    for number, entry in moments.items():
        expected = {"step": torch.Size(()), "exp_avg": shapes.get(number), "exp_avg_sq": shapes.get(number)}
        fits = isinstance(entry, dict) and all(
            isinstance(entry.get(part), Tensor) and entry[part].shape == shape for part, shape in expected.items()
        )
        _require(fits, f"training.{name}.state[{quoted(number, 40)}]", entry, "Adam's moments of the parameter")
    return {"state": moments, "param_groups": own}


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _require(fits: bool, name: str, found: Any, expected: str) -> None:
    if not fits:
        raise CheckpointError(f"{name} is {quoted(found, 40)}; {expected} is expected; {_REMEDY}")
