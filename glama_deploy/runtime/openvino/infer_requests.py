"""A compiled OpenVINO model that serves several callers at once."""

from __future__ import annotations

import queue
from typing import Any

import numpy as np


class CompiledModel:
    """A compiled model with its infer requests, and the names of its inputs.

    Each request serves one caller at a time; `users` counts callers.
    """

    def __init__(self, model: Any, requests: int, weights: np.ndarray | None = None) -> None:
        """Make the infer requests of a model.

        Args:
            model: The `openvino.CompiledModel`.
            requests: Number of callers that are served at once.
            weights: Memory that the model uses and does not own. It is kept as long as the model.
        """
        self._model, self._weights, self.users = model, weights, 0
        self.inputs = frozenset(port.get_any_name() for port in model.inputs)
        self._idle: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(requests):
            self._idle.put(model.create_infer_request())

    def run(self, inputs: dict[str, np.ndarray], output: str, shape: tuple[int, ...]) -> np.ndarray:
        """Run the model once, when a request is idle.

        Args:
            inputs: The arrays by input name.
            output: The output's name.
            shape: The shape that the output must have.

        Returns:
            A copy of the output.

        Raises:
            RuntimeError: OpenVINO fails, or the output has another shape.
        """
        request = self._idle.get()
        try:
            # `infer` reports no failed allocation and leaves the output of the run before (2026.4); `wait` reports it
            request.start_async(inputs, share_inputs=True)
            request.wait()
            result = np.array(request.get_tensor(output).data)
        finally:
            self._idle.put(request)
        if result.shape != shape:
            raise RuntimeError(f"the output has the shape {result.shape}, expected {shape}")
        return result

    def release(self) -> None:
        """Free the memory of the feature maps, unless a caller uses the model."""
        if not self.users:
            self._model.release_memory()
