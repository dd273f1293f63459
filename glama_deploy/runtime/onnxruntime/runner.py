"""ONNX Runtime: the bundle's ONNX model on a CPU, or through one of its providers for GPUs."""

from __future__ import annotations

import logging
import threading
from collections.abc import Hashable
from typing import Any

import numpy as np

from glama_deploy import catalogue, memory
from glama_deploy.bundle import Bundle
from glama_deploy.errors import EngineError
from glama_deploy.node_names import IMAGE, INPAINTED, MASK, WINDOW
from glama_deploy.runtime.base import DeviceKind, Request, Runner, Window
from glama_deploy.runtime.devices import list_devices
from glama_deploy.runtime.onnxruntime import providers
from glama_deploy.runtime.onnxruntime.provider_records import ANY_DEVICE_ORDER, PROVIDERS, ProviderRecord
from glama_deploy.runtime.onnxruntime.size_sessions import SizeSessions
from glama_deploy.text.excerpts import MAX_ENGINE_LINE, first_line

log = logging.getLogger("glama_deploy")

#: ONNX Runtime's CPU provider multiplies bytes only in convolutions whose outputs are bytes too (`QLinearConv`). The
#: int8 graph adds outputs in fp32, so the provider converts bytes to fp32 and multiplies in fp32.
_NO_GAIN = " (multiplies in fp32: no faster than fp32)"

#: Copies of the weights that a session needs while it opens: the file, the model, and the provider's own.
_MODEL_COPIES = 3


def absent(bundle: Bundle, request: Request) -> bool:
    """Return whether there is nothing to open, as :mod:`glama_deploy.runtime.base` says.

    Args:
        bundle: The bundle.
        request: How to open the engine.

    Returns:
        True if ONNX Runtime, the graph or all providers of the device are missing.
    """
    if not providers.has_onnxruntime() or not bundle.engine(catalogue.ONNX.name):
        return True
    try:
        return not any(map(providers.has_provider, _list_providers(request)))
    except EngineError:
        return False  # `open` raises the reason


def open(bundle: Bundle, request: Request) -> OnnxRuntimeRunner:
    """Open a session on the request's device.

    Args:
        bundle: The bundle.
        request: How to open the engine. Without a device and a provider, CUDA computes where CUDA starts, else the
            CPU.

    Returns:
        The runner.

    Raises:
        EngineError: no provider of the device starts, the provider is for another device, or the bundle's FFTs are the
            nodes of a plugin.
    """
    providers.require_onnxruntime()
    if not bundle.engine(catalogue.ONNX.name):
        raise EngineError(
            f"{bundle.path} has FFTs as a TensorRT plugin's nodes; for ONNX Runtime export with `fft=matmul`"
        )
    candidates = _list_providers(request)
    refused = []
    for provider in candidates:
        if provider != candidates[-1] and not providers.has_provider(provider):
            continue
        try:
            session = providers.open_session(bundle, provider, request.precision, request.threads, request.device)
        except EngineError as error:
            refused.append(str(error))
            continue
        for reason in refused:
            log.warning("%s; using ONNX Runtime on %s", reason, provider.label)
        return (FixedSizeRunner if provider.fixes_sizes else OnnxRuntimeRunner)(bundle, session)
    raise EngineError("; ".join(refused))


def _list_providers(request: Request) -> list[ProviderRecord]:
    """Return the provider that the request names, or those for its device; the first that starts is used."""
    named = [PROVIDERS[name] for name in ((request.provider,) if request.provider else ANY_DEVICE_ORDER)]
    if request.device is None:
        return named
    found = [provider for provider in named if request.device.kind in providers.list_kinds(provider)]
    if not found:
        name = catalogue.ONNX.backend + (f":{request.provider}" if request.provider else "")
        kinds = list_devices(dict.fromkeys(kind for provider in named for kind in providers.list_kinds(provider)))
        raise EngineError(
            f"`device` is {request.device}, and {name} does not compute there; give {kinds}, or another `backend`"
        )
    return found


class OnnxRuntimeRunner(Runner):
    """Runs a bundle with ONNX Runtime. One session serves every size."""

    backend = catalogue.ONNX.backend

    def __init__(self, bundle: Bundle, opened: providers.Session) -> None:
        """Take a session.

        Args:
            bundle: The bundle.
            opened: The session of one of the bundle's graphs.
        """
        import onnxruntime

        self._session, self._weights, self._lock = opened.session, opened.weights, threading.Lock()
        self.sizes, self.precision, self.io = opened.sizes, opened.precision, bundle.manifest.io
        self._network = bundle.manifest.network
        self.device: DeviceKind = opened.device
        self.takes_windows = any(value.name == WINDOW for value in self._session.get_overridable_initializers())
        self._outputs = {output.name for output in self._session.get_outputs()}
        gains_nothing = self.device == "cpu" and catalogue.PRECISIONS[self.precision].is_quantized
        note = _NO_GAIN if gains_nothing else opened.note
        place = opened.provider.label if opened.index is None else f"{opened.provider.label}:{opened.index}"
        self.description = f"ONNX Runtime {onnxruntime.__version__} {place} {self.precision}{note}"

    def memory_needed(self, size: tuple[int, int], batch: int = 1, window: tuple[int, int] | None = None) -> int:
        return memory.estimate(*size, self._network, batch, self.precision, window if self.takes_windows else None)

    def run(self, image: np.ndarray, mask: np.ndarray, output: str = INPAINTED) -> np.ndarray:
        if output not in self._outputs:
            raise EngineError(f"the bundle has no output {output!r}; export it again with `predicted=True`")
        return self._run({IMAGE: image, MASK: mask}, output)

    def run_window(self, image: np.ndarray, mask: np.ndarray, window: Window) -> np.ndarray:
        return self._run({IMAGE: image, MASK: mask, WINDOW: np.array(window, np.int64)}, INPAINTED)

    def _run(self, inputs: dict[str, np.ndarray], output: str) -> np.ndarray:
        try:
            with self._lock:  # memory is counted for one run at a time
                return self._find_session(inputs[IMAGE].shape).run([output], {**inputs, **self._weights})[0]
        except EngineError:
            raise
        except Exception as error:
            raise EngineError(f"ONNX Runtime failed: {first_line(error, MAX_ENGINE_LINE)}") from error

    def _find_session(self, shape: tuple[int, ...]) -> Any:
        """Return the session for images of a shape. The caller holds the lock."""
        return self._session


class FixedSizeRunner(OnnxRuntimeRunner):
    """Runs a bundle with a session for each size, of which the last few are kept."""

    compiles_sizes = True

    def __init__(self, bundle: Bundle, opened: providers.Session) -> None:
        """Take a session.

        Args:
            bundle: The bundle.
            opened: The session of one of the bundle's graphs for a shape.
        """
        super().__init__(bundle, opened)
        self._sessions = SizeSessions(opened)
        self._session_bytes = _MODEL_COPIES * bundle.graph(opened.precision).stat().st_size

    @property
    def holder(self) -> Hashable:  # type: ignore[override]  # (the shape that ran last changes)
        return self._sessions.holder

    def memory_needed(self, size: tuple[int, int], batch: int = 1, window: tuple[int, int] | None = None) -> int:
        opening = 0 if self._sessions.has(batch, size) else self._session_bytes
        return super().memory_needed(size, batch) + opening

    def _find_session(self, shape: tuple[int, ...]) -> Any:
        height, width = shape[1:3] if self.io == "uint8" else shape[2:]
        return self._sessions.get((shape[0], height, width)).session
