"""The sample with which a site checks its network when it starts: a pattern that a page computes, and what is expected.

A browser's engine or a graphics driver that computes wrongly would fill pictures wrongly without an error. The page
fills the pattern first, and refuses an engine whose result is another one.
"""

from __future__ import annotations

import base64
from typing import Any

import numpy as np

from glama_deploy.inpainting.boxes import Span
from glama_deploy.inpainting.tensors import to_tensors
from glama_deploy.node_names import IMAGE, INPAINTED, MASK, WINDOW
from glama_deploy.runtime.onnxruntime.providers import require_onnxruntime

#: The side of the pattern in pixels.
SIDE_PIXELS = 64

#: The missing pixels of the pattern, all within this rectangle.
HOLE = Span(20, 24, 44, 40)

#: How far a browser's bytes may be off. Values near the middle between two bytes are rounded either way, and a graphics
#: card may round its sums a little further off.
TOLERANCE = 2


def make_pattern() -> tuple[np.ndarray, np.ndarray]:
    """Make the pattern. `page/browser/network.js` computes the same one.

    Returns:
        The image uint8 [1, S, S, 3] and the missing pixels bool [1, S, S].
    """
    y, x, channel = np.mgrid[0:SIDE_PIXELS, 0:SIDE_PIXELS, 0:3]
    image = ((5 * x + 3 * y + 40 * channel + (x * y >> 3)) % 256).astype(np.uint8)
    missing = np.zeros((1, SIDE_PIXELS, SIDE_PIXELS), bool)
    missing[HOLE.batch_slices] = True
    return image[None], missing


def run_model(model: bytes, image: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """Run a joined model of a site with ONNX Runtime on the CPU.

    Args:
        model: The bytes of an ONNX file.
        image: uint8 [1, H, W, 3], sides in multiples of 8.
        missing: bool [1, H, W].

    Returns:
        The output `inpainted`, float32 [1, 3, H, W].
    """
    require_onnxruntime()
    import onnxruntime

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    tensors = to_tensors(image, missing, "float", (0, 0))
    window = np.array([0, 0, *missing.shape[1:]], np.int64)
    inputs = {IMAGE: tensors[0], MASK: tensors[1], WINDOW: window}
    found: np.ndarray = session.run([INPAINTED], inputs)[0]
    return found


def describe(model: bytes) -> dict[str, Any]:
    """Describe what a model's result on the pattern is, for the site's description.

    Args:
        model: The bytes of an ONNX file.

    Returns:
        The side, the hole, the tolerance, and the expected bytes of the hole [h, w, 3] as base64.
    """
    image, missing = make_pattern()
    values = run_model(model, image, missing)[0][:, HOLE.top : HOLE.bottom, HOLE.left : HOLE.right]
    expected = np.rint(values.clip(0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)
    return {
        "side": SIDE_PIXELS,
        "hole": {"top": HOLE.top, "left": HOLE.left, "bottom": HOLE.bottom, "right": HOLE.right},
        "tolerance": TOLERANCE,
        "expected": base64.b64encode(expected.tobytes()).decode(),
    }
