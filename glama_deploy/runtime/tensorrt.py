"""TensorRT and TensorRT-RTX engines on an NVIDIA GPU."""

from __future__ import annotations

import weakref
from typing import Any, Protocol

import numpy as np

from glama_deploy.bundle import Bundle, EngineName
from glama_deploy.errors import EngineError
from glama_deploy.runtime.base import Request, require

#: The bundle's engines that this runs, the best first, each with its package and the target that builds it.
_PACKAGES: dict[EngineName, tuple[str, str]] = {
    "tensorrt": ("tensorrt", "trt"),
    "tensorrt-rtx": ("tensorrt_rtx", "trt-rtx"),
}


class Device(Protocol):
    """What the runner asks of CUDA; :class:`glama_deploy.runtime.cuda.Cuda` is the real one."""

    stream: int

    def allocate(self, size: int) -> int: ...
    def free(self, address: int) -> None: ...
    def upload(self, address: int, array: np.ndarray) -> None: ...
    def download(self, array: np.ndarray, address: int) -> None: ...
    def synchronize(self) -> None: ...
    def close(self) -> None: ...


def absent(bundle: Bundle, request: Request) -> bool:
    return not any(bundle.engine(name) for name in _PACKAGES)


def open(bundle: Bundle, request: Request) -> TensorRTRunner:
    """Deserialize the bundle's TensorRT engine (or its TensorRT-RTX engine) on the GPU.

    Raises EngineError: no such engine, package, matching version, driver or GPU. With several reasons, each is named.
    """
    if request.precision not in ("auto", *(e.precision for e in map(bundle.engine, _PACKAGES) if e)):
        raise EngineError(
            f"a TensorRT engine computes in what it was built in; {request.precision} is chosen at export"
        )
    names = [request.engine] if request.engine else [name for name in _PACKAGES if bundle.engine(name)]
    if not names:
        raise EngineError(
            f"{bundle.path} has no TensorRT engine; add one: glama-build {bundle.path} --target trt (or trt-rtx)"
        )
    refused = []
    for name in names:
        try:
            return _open_engine(bundle, name)
        except EngineError as error:
            refused.append(f"{name}: {error}")
    raise EngineError("; ".join(refused))


def _open_engine(bundle: Bundle, name: EngineName) -> TensorRTRunner:
    package, target = _PACKAGES[name]
    engine = bundle.engine(name)
    if engine is None:
        raise EngineError(f"the bundle has no such engine; add it with: glama-build {bundle.path} --target {target}")
    trt = require(package, package, f"pip install {name} cuda-python")
    built = engine.versions.get(package, "unknown")
    if built != trt.__version__:
        raise EngineError(
            f"the engine was built with {package} {built}, {trt.__version__} is installed; "
            f"rebuild with: glama-build {bundle.path} --target {target}"
        )
    from glama_deploy.runtime.cuda import Cuda

    device = Cuda()
    (path,) = bundle.files(name)
    runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))
    loaded = runtime.deserialize_cuda_engine(path.read_bytes())
    if loaded is None:
        raise EngineError(
            f"{path} was not accepted on this GPU; rebuild with: glama-build {bundle.path} --target {target}"
        )
    return TensorRTRunner(bundle, name, loaded, device)


def _release(device: Device, buffers: dict[str, tuple[int, int]]) -> None:
    """Give device memory and the stream back when the runner is gone."""
    device.synchronize()
    for address, _ in buffers.values():
        device.free(address)
    buffers.clear()
    device.close()


class TensorRTRunner:
    """One execution context, device buffers that grow to the largest size seen, one stream."""

    backend = "tensorrt"

    def __init__(self, bundle: Bundle, name: EngineName, loaded: Any, device: Device) -> None:
        engine = bundle.manifest.engines[name]
        self.sizes, self.precision, self.io = engine.sizes, engine.precision, bundle.manifest.io
        package, version = _PACKAGES[name][0], engine.versions.get(_PACKAGES[name][0], "")
        self.description = f"{'TensorRT-RTX' if package == 'tensorrt_rtx' else 'TensorRT'} {version} {self.precision}"
        self._names = [tensor.name for tensor in bundle.manifest.outputs]
        self._engine, self._device = loaded, device
        self._context = loaded.create_execution_context()
        if self._context is None:
            raise EngineError(f"{self.description}: no execution context (out of device memory?)")
        self._buffers: dict[str, tuple[int, int]] = {}
        weakref.finalize(self, _release, device, self._buffers)

    def run(self, image: np.ndarray, mask: np.ndarray, output: str = "inpainted") -> np.ndarray:
        if output not in self._names:
            raise EngineError(f"the bundle has no output {output!r}; export it again with --predicted")
        if self.sizes.max_batch is not None and image.shape[0] > self.sizes.max_batch:
            raise EngineError(
                f"the batch is {image.shape[0]}, this engine takes up to {self.sizes.max_batch}; "
                "build it again with --max-batch"
            )
        inputs = {"image": np.ascontiguousarray(image, np.float32), "mask": np.ascontiguousarray(mask, np.float32)}
        results = {name: np.empty(image.shape, np.float32) for name in self._names}
        for name, array in inputs.items():
            if not self._context.set_input_shape(name, array.shape):
                raise EngineError(f"{self.description} does not take {name} of shape {list(array.shape)}")
        for name, array in (inputs | results).items():
            if not self._context.set_tensor_address(name, self._buffer(name, array.nbytes)):
                raise EngineError(f"{self.description} has no tensor {name!r}; export the bundle again")
        for name, array in inputs.items():
            self._device.upload(self._buffers[name][0], array)
        if not self._context.execute_async_v3(self._device.stream):
            self._device.synchronize()  # the uploads still read the arrays
            raise EngineError(f"{self.description} failed to run; its log above says why")
        self._device.download(results[output], self._buffers[output][0])
        self._device.synchronize()
        return results[output]

    def _buffer(self, name: str, size: int) -> int:
        """Device memory for a tensor, kept between runs and made anew only where it is too small."""
        address, room = self._buffers.get(name, (0, 0))
        if room < size:
            if room:
                self._device.synchronize()
                self._device.free(address)
                del self._buffers[name]
            address = self._device.allocate(size)
            self._buffers[name] = (address, size)
        return address
