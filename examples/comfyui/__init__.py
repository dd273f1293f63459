"""A node for ComfyUI that fills the masked part of images.

Copy this folder into `custom_nodes` of ComfyUI, and install glama-deploy with an engine into ComfyUI's Python:

    cp -r examples/comfyui ComfyUI/custom_nodes/glama
    python -m pip install '.[export,openvino]'

The node is offered by ComfyUI's interface V3, and by V1 where ComfyUI has no V3. Both have the inputs of `KNOBS`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

import glama_deploy
from glama_deploy.catalogue import backends
from glama_deploy.errors import ImageError
from glama_deploy.inpainting.inpainter import Inpainter
from glama_deploy.inpainting.mask_edits import MAX_REACH_PIXELS, MaskEdits

try:
    from comfy_api.latest import ComfyExtension, io
except ImportError:  # ComfyUI before its interface V3
    io = None

NODE_ID, TITLE, CATEGORY = "GlamaInpaint", "Inpaint (glama)", "image/inpaint"


class Knob(NamedTuple):
    """An input of the node beside the image and the mask.

    Attributes:
        kind: the type in both interfaces: Float, Int, Boolean, String or Combo.
        settings: the default and the limits, by the names that both interfaces have.
        tooltip: what the input means.
    """

    kind: str
    settings: dict[str, Any]
    tooltip: str


KNOBS = {
    "model": Knob(
        "String", {"default": "default"}, "A published model (big-lama), a bundle or a checkpoint. default: embedded."
    ),
    "backend": Knob(
        "Combo", {"options": ["auto", *backends(), "torch"], "default": "auto"}, "The engine. auto: the fastest here."
    ),
    "threshold": Knob(
        "Float", {"default": 0.5, "min": 0.0, "max": 1.0, "step": 0.01}, "Mask values above this one are filled."
    ),
    "invert": Knob("Boolean", {"default": False}, "Fill what the mask does not mark."),
    "grow": Knob("Int", {"default": 0, "min": 0, "max": MAX_REACH_PIXELS}, "Pixels by which the filled area grows."),
    "feather": Knob(
        "Int",
        {"default": 0, "min": 0, "max": MAX_REACH_PIXELS},
        "Pixels of the rim over which result and image are blended, at most grow.",
    ),
}

#: The inpainter that is open, by its model and backend. One is open at a time, because an engine takes much memory.
_opened: dict[tuple[str, str], Inpainter] = {}


def open_inpainter(model: str, backend: str) -> Inpainter:
    """Open an inpainter unless it is open, and close the former one."""
    if (model, backend) not in _opened:
        while _opened:
            _opened.popitem()[1].close()
        _opened[model, backend] = glama_deploy.load(model, backend)
    return _opened[model, backend]


def inpaint(
    image: Any, mask: Any, model: str, backend: str, threshold: float, invert: bool, grow: int, feather: int
) -> Any:
    """Fill the marked pixels of images.

    Args:
        image: tensor float32 [B, H, W, C], 0…1.
        mask: tensor float32 [B, H, W] or [1, H, W], 0…1.
        model: what `glama_deploy.load` takes.
        backend: the engine.
        threshold: mask values above this one are filled.
        invert: whether the other values are filled.
        grow: pixels by which the filled area grows.
        feather: pixels of the rim over which result and image are blended.

    Returns:
        A tensor like `image`. Pixels that are not filled are bit-exact.

    Raises:
        GlamaError: the sizes differ, a value is out of its range, or the model cannot be opened.
    """
    pictures, masks = image.cpu().numpy(), mask.cpu().numpy()
    masks = masks[None] if masks.ndim == 2 else masks
    if masks.shape[1:] != pictures.shape[1:3] or len(masks) not in (1, len(pictures)):
        raise ImageError(
            f"the mask is {list(masks.shape)} and the image {list(pictures.shape)}; connect a mask of the same size, "
            "one for all images or one for each"
        )
    missing = (masks > threshold) != invert
    edits = MaskEdits(grow, feather=feather)
    fill = edits.blend(open_inpainter(model, backend))
    each = zip(pictures, np.broadcast_to(missing, pictures.shape[:3]), strict=True)
    return image.new_tensor(np.stack([fill(picture, edits.edit(hole)) for picture, hole in each]))


if io is None:

    class InpaintNode:
        """The node of interface V1."""

        CATEGORY = CATEGORY
        FUNCTION = "execute"
        RETURN_TYPES = ("IMAGE",)

        @classmethod
        def INPUT_TYPES(cls) -> dict[str, dict[str, tuple[Any, ...]]]:
            """Describe the inputs."""
            inputs: dict[str, tuple[Any, ...]] = {"image": ("IMAGE",), "mask": ("MASK",)}
            for name, (kind, settings, tooltip) in KNOBS.items():
                described = {**settings, "tooltip": tooltip}
                inputs[name] = (described.pop("options") if kind == "Combo" else kind.upper(), described)
            return {"required": inputs}

        def execute(self, image: Any, mask: Any, **knobs: Any) -> tuple[Any]:
            """Run the node."""
            return (inpaint(image, mask, **knobs),)

    NODE_CLASS_MAPPINGS = {NODE_ID: InpaintNode}
    NODE_DISPLAY_NAME_MAPPINGS = {NODE_ID: TITLE}

else:

    class InpaintNode(io.ComfyNode):
        """The node of interface V3."""

        @classmethod
        def define_schema(cls) -> io.Schema:
            """Describe the node."""
            return io.Schema(
                node_id=NODE_ID,
                display_name=TITLE,
                category=CATEGORY,
                description="Fill the masked part of images from their surroundings.",
                inputs=[
                    io.Image.Input("image"),
                    io.Mask.Input("mask"),
                    *(
                        getattr(io, kind).Input(name, tooltip=tooltip, **settings)
                        for name, (kind, settings, tooltip) in KNOBS.items()
                    ),
                ],
                outputs=[io.Image.Output()],
            )

        @classmethod
        def execute(cls, image: Any, mask: Any, **knobs: Any) -> io.NodeOutput:
            """Run the node."""
            return io.NodeOutput(inpaint(image, mask, **knobs))

    class GlamaExtension(ComfyExtension):
        """The extension of interface V3."""

        async def get_node_list(self) -> list[type[io.ComfyNode]]:
            """List the nodes."""
            return [InpaintNode]

    async def comfy_entrypoint() -> ComfyExtension:
        """Return the extension. ComfyUI calls this function."""
        return GlamaExtension()
