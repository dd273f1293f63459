"""Run a graph with the inputs and outputs of another program's model, to measure its parity."""

from __future__ import annotations

import numpy as np

from glama_deploy import catalogue, memory
from glama_deploy.bundle import Bundle, Io
from glama_deploy.errors import EngineError
from glama_deploy.node_names import IMAGE, INPAINTED, MASK
from glama_deploy.runtime.base import DeviceKind, Runner
from glama_deploy.runtime.onnxruntime.providers import open_cpu_session
from glama_deploy.text.excerpts import MAX_ENGINE_LINE, first_line


class DropInRunner(Runner):
    """Feeds such a graph on ONNX Runtime as the program does. Takes and gives the images of io `uint8`."""

    backend = catalogue.ONNX.backend
    device: DeviceKind = "cpu"
    precision = "fp32"
    io: Io = "uint8"

    def __init__(self, bundle: Bundle) -> None:
        """Open the graph.

        Args:
            bundle: The bundle, with io `carve` or `migan`.

        Raises:
            EngineError: ONNX Runtime is not installed.
        """
        self._ends, self._network, self.sizes = bundle.manifest.io, bundle.manifest.network, bundle.sizes
        self._session = open_cpu_session(bundle.graph("fp32").read_bytes())
        self.description = f"ONNX Runtime CPU fp32, io {self._ends}"

    def memory_needed(self, size: tuple[int, int], batch: int = 1, window: tuple[int, int] | None = None) -> int:
        return memory.estimate(*size, self._network, batch, self.precision)

    def run(self, image: np.ndarray, mask: np.ndarray, output: str = INPAINTED) -> np.ndarray:
        feeds = to_drop_in(image, mask > 0, self._ends)
        try:
            (result,) = self._session.run(None, feeds)
        except Exception as error:  # ONNX Runtime's own have no other base
            raise EngineError(f"the graph failed: {first_line(error, MAX_ENGINE_LINE)}") from error
        return result.astype(np.uint8).transpose(0, 2, 3, 1)


def to_drop_in(image: np.ndarray, missing: np.ndarray, io: Io) -> dict[str, np.ndarray]:
    """Convert images to the inputs of another program's model.

    Args:
        image: uint8 [B, H, W, 3].
        missing: bool [B, H, W], True where a pixel is missing.
        io: `carve` or `migan`.

    Returns:
        The inputs by name, [B, C, H, W].
    """
    planar = np.ascontiguousarray(image.transpose(0, 3, 1, 2))
    if io == "migan":
        return {IMAGE: planar, MASK: np.where(missing, 0, 255).astype(np.uint8)[:, None]}
    return {IMAGE: planar.astype(np.float32) / np.float32(255), MASK: missing[:, None].astype(np.float32)}
