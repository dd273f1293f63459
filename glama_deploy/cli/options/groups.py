"""Groups of options that several commands share: a dataclass whose fields are the options."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import is_dataclass
from functools import wraps
from typing import Any


def expand_groups(function: Callable[..., int | None]) -> Callable[..., int | None]:
    """Give a command's function the options of its groups.

    Args:
        function: The function. A parameter whose annotation is a dataclass stands for the dataclass's fields.

    Returns:
        A function with the fields as parameters, in place of the groups.
    """
    signature = inspect.signature(function, eval_str=True)
    groups: dict[str, Any] = {
        name: each.annotation for name, each in signature.parameters.items() if is_dataclass(each.annotation)
    }
    fields = {name: inspect.signature(group, eval_str=True).parameters for name, group in groups.items()}
    expanded = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for name, each in signature.parameters.items()
        for parameter in (fields[name].values() if name in groups else [each])
    ]

    @wraps(function)
    def run(**options: Any) -> int | None:
        for name, group in groups.items():
            options[name] = group(**{field: options.pop(field) for field in fields[name]})
        return function(**options)

    run.__signature__ = signature.replace(parameters=expanded)  # type: ignore[attr-defined]
    return run
