"""What runners of a server have in common: bytes go out and come back, and this machine's memory is not asked."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np

from glama_deploy.bundle import Io
from glama_deploy.errors import EngineError
from glama_deploy.network import NetworkConfig
from glama_deploy.node_names import INPAINTED
from glama_deploy.remote.connection import Connection
from glama_deploy.runtime.base import DeviceKind, Runner


class RemoteRunner(Runner):
    """A model that a server has open. Each subclass speaks one protocol.

    Attributes:
        connection: the server.
        network: the configuration of the model's network.
    """

    device: DeviceKind = "cpu"
    io: Io = "uint8"
    connection: Connection
    network: NetworkConfig

    @abstractmethod
    def fill(self, images: np.ndarray, masks: np.ndarray) -> np.ndarray:
        """Let the server fill whole images.

        Args:
            images: uint8 [B, H, W, 3], RGB.
            masks: uint8 [B, H, W], above 0 where a pixel is missing.

        Returns:
            uint8 of the images' shape; :meth:`run` checks the shape.

        Raises:
            EngineError: the server does not answer, or refuses.
        """

    def memory_needed(self, size: tuple[int, int], batch: int = 1, window: tuple[int, int] | None = None) -> int:
        """Return the memory of this machine that a run needs.

        Args:
            size: height and width of the images in pixels.
            batch: number of images at once.
            window: not used.

        Returns:
            0: the server's memory is not known here, and the server refuses what is too large.
        """
        return 0

    def memory_available(self) -> int | None:
        """Return the free memory that runs can take.

        Returns:
            None, which limits nothing.
        """
        return None

    def run(self, image: np.ndarray, mask: np.ndarray, output: str = INPAINTED) -> np.ndarray:
        """Run the network on the server.

        Args:
            image: uint8 [B, H, W, 3].
            mask: uint8 [B, H, W], above 0 where a pixel is missing.
            output: `inpainted`.

        Returns:
            uint8 [B, H, W, 3].

        Raises:
            EngineError: the server does not answer, refuses, answers with another shape, or the output is another one.
        """
        if output != INPAINTED:
            raise EngineError(f"{self.connection.url} does not give the output {output}; open the bundle itself")
        filled = self.fill(image, mask)
        if filled.shape != image.shape or filled.dtype != image.dtype:
            raise EngineError(
                f"{self.connection.url} answered with {filled.dtype} {list(filled.shape)}; {image.dtype} "
                f"{list(image.shape)} is expected"
            )
        return filled
