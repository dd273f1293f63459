"""The part of ComfyUI's interface V3 (`comfy_api.latest`, read in ComfyUI 0.13 and 0.28) that the example's node uses.

Inputs keep the arguments of ComfyUI's own, and refuse others: ComfyUI's constructors have no `**kwargs`.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

_SHARED = {"display_name", "optional", "tooltip", "lazy", "default", "socketless", "extra_dict", "raw_link", "advanced"}

#: The arguments of each type's input beside its id.
_ARGUMENTS = {
    "Image": {"display_name", "optional", "tooltip", "lazy", "extra_dict", "raw_link", "advanced"},
    "Mask": {"display_name", "optional", "tooltip", "lazy", "extra_dict", "raw_link", "advanced"},
    "Int": _SHARED | {"min", "max", "step", "control_after_generate", "display_mode", "force_input"},
    "Float": _SHARED | {"min", "max", "step", "round", "display_mode", "force_input"},
    "Boolean": _SHARED | {"label_on", "label_off", "force_input"},
    "String": _SHARED | {"multiline", "placeholder", "dynamic_prompts", "force_input"},
    "Combo": _SHARED | {"options", "control_after_generate", "upload", "image_folder", "remote"},
}


@dataclass
class Input:
    kind: str
    id: str
    settings: dict[str, Any]


@dataclass
class Schema:
    node_id: str
    display_name: str | None = None
    category: str = "sd"
    inputs: list[Input] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    description: str = ""


class NodeOutput:
    def __init__(self, *args: Any) -> None:
        self.args = args


class ComfyNode:
    """The base of nodes."""


class ComfyExtension:
    """The base of extensions."""

    async def on_load(self) -> None:
        """Do nothing, as ComfyUI's own."""


def _make_type(kind: str) -> SimpleNamespace:
    def make_input(id: str, **settings: Any) -> Input:
        if unknown := set(settings) - _ARGUMENTS[kind]:
            raise TypeError(f"{kind}.Input got unexpected arguments {unknown}")
        return Input(kind, id, settings)

    return SimpleNamespace(Input=make_input, Output=lambda: kind)


def install(monkeypatch: Any) -> None:
    """Let `from comfy_api.latest import ComfyExtension, io` find this module's classes."""
    package, latest = ModuleType("comfy_api"), ModuleType("comfy_api.latest")
    types = {kind: _make_type(kind) for kind in _ARGUMENTS}
    latest.io = SimpleNamespace(Schema=Schema, ComfyNode=ComfyNode, NodeOutput=NodeOutput, **types)  # type: ignore[attr-defined]
    latest.ComfyExtension = ComfyExtension  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "comfy_api", package)
    monkeypatch.setitem(sys.modules, "comfy_api.latest", latest)
