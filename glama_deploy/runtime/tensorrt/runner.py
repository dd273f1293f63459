"""The runner for TensorRT and TensorRT-RTX engines on an NVIDIA GPU."""

from __future__ import annotations

import logging
import re
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from glama_deploy import memory
from glama_deploy.bundle import BuildSettings, Bundle, Engine, EngineName, SizeRange, Tensor
from glama_deploy.catalogue import ENGINES, PRECISIONS, TENSORRT, TENSORRT_RTX
from glama_deploy.errors import EngineError
from glama_deploy.node_names import BATCH, HEIGHT, INPAINTED, WIDTH
from glama_deploy.runtime.base import DeviceKind, Request, Runner, RunTimes, require
from glama_deploy.runtime.cuda.buffers import BufferPool
from glama_deploy.runtime.cuda.copies import Copier, TimedCopier
from glama_deploy.runtime.cuda.device import open_device
from glama_deploy.runtime.cuda.exchange.device_arrays import DeviceTensor, is_on_device, read_device_array
from glama_deploy.runtime.cuda.interface import Device, OutOfMemory
from glama_deploy.runtime.tensorrt.contexts import ContextCache
from glama_deploy.runtime.tensorrt.deserialization import deserialize
from glama_deploy.runtime.tensorrt.kernel_cache import KernelCache, make_runtime_config
from glama_deploy.runtime.tensorrt.package import explain_install
from glama_deploy.runtime.tensorrt.refit import refit

log = logging.getLogger("glama_deploy")

#: The engines that this runner runs, the preferred first.
_ENGINES = (TENSORRT, TENSORRT_RTX)


def absent(bundle: Bundle, request: Request) -> bool:
    """Return whether there is nothing to open, as :mod:`glama_deploy.runtime.base` says.

    Args:
        bundle: The bundle.
        request: How to open the engine.

    Returns:
        True if the bundle has no TensorRT engine.
    """
    return not any(bundle.engine(record.name) for record in _ENGINES)


def open(bundle: Bundle, request: Request) -> TensorRTRunner:
    """Deserialize the bundle's TensorRT engine, or its TensorRT-RTX engine, on the GPU.

    Args:
        bundle: The bundle.
        request: How to open the engine.

    Returns:
        The runner.

    Raises:
        EngineError: the engine, its package in a matching version, the driver or the GPU is missing. With several
            engines, the message names the reason of each.
    """
    names = [request.engine] if request.engine else [record.name for record in _ENGINES if bundle.engine(record.name)]
    asked = [name for name in names if _computes_in(bundle.engine(name), request.precision)]
    if names and not asked:
        raise EngineError(
            f"a TensorRT engine computes in what it was built in; {request.precision} is chosen at export"
        )
    if not names:
        rtx = f" (or {TENSORRT_RTX.target})" if bundle.manifest.fft in TENSORRT_RTX.lowerings else ""
        add = f"`build({bundle.path}, target={TENSORRT.target})`{rtx}"
        raise EngineError(f"{bundle.path} has no TensorRT engine; add one: {add}")
    refused = []
    for name in asked:
        try:
            return _open_engine(bundle, name, request)
        except EngineError as error:
            refused.append(f"{name}: {error}")
    raise EngineError("; ".join(refused))


def _computes_in(engine: Engine | None, precision: str) -> bool:
    """Return whether an engine computes in a precision; int8+fp16 counts as int8.

    A missing engine counts, too: opening it raises the error.
    """
    return engine is None or precision in ("auto", engine.precision, PRECISIONS[engine.precision].stored)


def _open_engine(bundle: Bundle, name: EngineName, request: Request) -> TensorRTRunner:
    package = ENGINES[name].package
    engine = bundle.engine(name)
    rebuild = f"`build({bundle.path}, target={ENGINES[name].target})`"
    if engine is None:
        raise EngineError(f"the bundle has no such engine; add it with: {rebuild}")
    trt = require(package, package, explain_install(package, "cuda-python"))
    check_version(engine, package, trt.__version__, rebuild)
    device = open_device(request.device.index if request.device else None)
    try:
        with device.active():
            check_gpu(engine, device, rebuild)
            loaded = _load_engine(bundle, engine, trt, rebuild, request)
            contexts, kernels = _make_contexts(bundle, trt, name, loaded, device)
    except BaseException:
        device.close()
        raise
    return TensorRTRunner(bundle, name, contexts, device, kernels)


def check_version(engine: Engine, package: str, installed: str, rebuild: str) -> None:
    """Check that the installed package runs an engine.

    An engine runs on the version that built it. A version-compatible engine of TensorRT also runs on later versions of
    the same major version. TensorRT-RTX has no such engines.

    Args:
        engine: The engine.
        package: `tensorrt` or `tensorrt_rtx`.
        installed: The package's version.
        rebuild: How to build the engine again, for the message.

    Raises:
        EngineError: the version does not run the engine.
    """
    built = engine.versions.get(package, "unknown")
    if built == installed:
        return
    if package == TENSORRT.package and (engine.settings or BuildSettings()).version_compatible:
        was, now = ([int(part) for part in re.findall(r"\d+", version)] for version in (built, installed))
        if was and was[0] == now[0] and was <= now:
            return
    raise EngineError(f"the engine was built with {package} {built}, {installed} is installed; rebuild with: {rebuild}")


def check_gpu(engine: Engine, device: Device, rebuild: str) -> None:
    """Check that an engine was built for a GPU's compute capability.

    Args:
        engine: The engine.
        device: The GPU.
        rebuild: How to build the engine again, for the message.

    Raises:
        EngineError: the engine was built for other compute capabilities.
    """
    has = device.compute_capability()
    for entry in engine.compute_capabilities:
        major, minor = map(int, entry.rstrip("+").split("."))
        if has == (major, minor) or (entry.endswith("+") and has > (major, minor)):
            return
    if engine.compute_capabilities:
        remedy = f"{rebuild} `gpus={has[0]}.{has[1]}`" if engine.name == TENSORRT_RTX.name else rebuild
        raise EngineError(
            f"the engine is for GPUs of compute capability {', '.join(engine.compute_capabilities)}, "
            f"{device.name()} has {has[0]}.{has[1]}; rebuild with: {remedy}"
        )


def _load_engine(bundle: Bundle, engine: Engine, trt: Any, rebuild: str, request: Request) -> Any:
    """Deserialize the engine on the GPU, with its weights."""
    (path,) = bundle.files(engine.name)
    logger = trt.Logger(trt.Logger.ERROR)
    settings = engine.settings or BuildSettings()
    allowed = request.allow_engine_code
    loaded = deserialize(trt, logger, path.read_bytes(), settings, bundle.manifest.fft, allow_engine_code=allowed)
    if loaded is None:
        raise EngineError(f"{path} was not accepted on this GPU; rebuild with: {rebuild}")
    if settings.stripped:
        refit(trt, logger, loaded, bundle.graph(engine.precision), f"rebuild with: {rebuild}")
    return loaded


def _make_contexts(
    bundle: Bundle, trt: Any, name: EngineName, loaded: Any, device: Device
) -> tuple[ContextCache, KernelCache | None]:
    """Return the engine's context cache, and for TensorRT-RTX its kernel cache. TensorRT-RTX captures graphs itself."""
    if name == TENSORRT_RTX.name:
        config = make_runtime_config(trt, loaded)
        kernels = KernelCache(bundle, config)
        return ContextCache(loaded, device, config, capture=False), kernels
    return ContextCache(loaded, device, trt.ExecutionContextAllocationStrategy.USER_MANAGED, capture=True), None


def find_tightest_profile(profiles: tuple[SizeRange, ...], batch: int, height: int, width: int) -> int | None:
    """Return the index of the smallest optimization profile that covers a size.

    Args:
        profiles: The engine's profiles in order.
        batch: The number of images.
        height: The images' height in pixels.
        width: The images' width in pixels.

    Returns:
        The index, or None where no profile covers the size.
    """
    fitting = [
        (profile.max[0] * profile.max[1], profile.max_batch or float("inf"), index)
        for index, profile in enumerate(profiles)
        if profile.covers(height, width) and (profile.max_batch is None or batch <= profile.max_batch)
    ]
    return min(fitting)[2] if fitting else None


def _release_all(
    contexts: ContextCache, pinned: BufferPool[np.ndarray], kernels: KernelCache | None, device: Device
) -> None:
    """Store the compiled kernels and release all memory, the engine before the GPU."""
    try:
        with device.active():
            device.synchronize()
            if kernels is not None:
                kernels.save()
            contexts.close()
            pinned.release()
        device.close()
    except EngineError as error:  # the GPU is gone, and what was on it too
        log.info("the GPU's memory was not given back: %s", error)


class TensorRTRunner(Runner):
    """Runs one engine in one stream.

    The runner has an execution context for each of the sizes seen last, and memory that grows to the largest size seen.
    Host memory is page-locked, so copies are asynchronous and the host waits once, at the end of a run.
    """

    backend = TENSORRT.backend
    device: DeviceKind = "cuda"
    #: `run` takes arrays in device memory too (`__cuda_array_interface__`) and uses them where they lie.
    takes_device_arrays = True
    #: RTX compiles kernels for a size that it meets, and each size has a context and a graph of its own.
    compiles_sizes = True

    def __init__(
        self,
        bundle: Bundle,
        name: EngineName,
        contexts: ContextCache,
        device: Device,
        kernels: KernelCache | None = None,
    ) -> None:
        """Take ownership of the device and of all that was made on it.

        Args:
            bundle: The bundle.
            name: The engine's name.
            contexts: The engine's contexts.
            device: The GPU and its stream.
            kernels: The compiled kernels of TensorRT-RTX.
        """
        manifest, engine = bundle.manifest, bundle.manifest.engines[name]
        self.sizes, self.precision, self.io = engine.sizes, engine.precision, manifest.io
        version = engine.versions.get(ENGINES[name].package, "")
        self.description = f"{ENGINES[name].title} {version} {self.precision}"
        self._profiles = engine.profiles or (engine.sizes,)
        self._inputs, self._outputs = manifest.inputs, {tensor.name: tensor for tensor in manifest.outputs}
        self._contexts, self._device, self._kernels = contexts, device, kernels
        self._copier: Copier = device
        self._pinned: BufferPool[np.ndarray] = BufferPool(device.pin, device.unpin)
        self._is_integrated = device.is_integrated()
        self._lock = threading.Lock()  # one stream, one set of memory: one run at a time
        self._finish = weakref.finalize(self, _release_all, contexts, self._pinned, kernels, device)
        with self._lock_for_run("the engine's usual size"):
            usual = dict(zip((BATCH, HEIGHT, WIDTH), (1, *engine.sizes.opt), strict=True))
            self._reserve_memory(usual)
            for tensor in (*manifest.inputs, manifest.outputs[0]):
                self._pinned.get(tensor.name, _count_bytes(tensor, usual))

    def close(self) -> None:
        """Release the GPU's memory now. Otherwise it is released when nothing refers to the runner."""
        with self._lock:
            self._finish()

    def time_copies(self) -> Callable[[], RunTimes]:
        with self._lock:
            self._copier = copier = TimedCopier(self._device)
        return copier.read_times

    def memory_needed(self, size: tuple[int, int], batch: int = 1, window: tuple[int, int] | None = None) -> int:
        """Estimate the GPU memory that a run needs: tensors and scratch memory.

        A Jetson has one memory for GPU and host, so the page-locked copies of the tensors count there, too.

        Args:
            size: height and width of the images in pixels.
            batch: number of images at once.
            window: not used; the whole image is computed.

        Returns:
            Bytes. 0 for a size that the engine does not take.
        """
        profile = find_tightest_profile(self._profiles, batch, *size)
        if profile is None or not self._finish.alive:
            return 0
        most, sides = self._profiles[profile], dict(zip((BATCH, HEIGHT, WIDTH), (batch, *size), strict=True))
        share = batch * size[0] * size[1] / ((most.max_batch or batch) * most.max[0] * most.max[1])
        tensors = sum(_count_bytes(tensor, sides) for tensor in (*self._inputs, *self._outputs.values()))
        return tensors * (2 if self._is_integrated else 1) + self._contexts.estimate_scratch(profile, share)

    def memory_available(self) -> int | None:
        if self._is_integrated:  # CUDA does not count the host's caches as free, although they make room
            return memory.available()
        if not self._finish.alive:
            return None
        with self._device.active():
            return self._device.free_memory()

    # The arrays may be in host or device memory. The result is a new array in host memory.
    def run(self, image: Any, mask: Any, output: str = INPAINTED) -> np.ndarray:
        if output not in self._outputs:
            raise EngineError(f"the bundle has no output {output!r}; export it again with `predicted=True`")
        arrays = {
            tensor.name: read_device_array(tensor.name, array) if is_on_device(array) else array
            for tensor, array in zip(self._inputs, (image, mask), strict=True)
        }
        sides = self._read_sides(arrays)
        profile = self._choose_profile(sides)
        with self._lock_for_run(f"{sides[BATCH]} × {sides[HEIGHT]}x{sides[WIDTH]}"):
            return self._run(arrays, sides, profile, self._outputs[output])

    def _run(
        self, arrays: dict[str, np.ndarray | DeviceTensor], sides: dict[str, int], profile: int, output: Tensor
    ) -> np.ndarray:
        addresses = self._reserve_memory(sides)
        for name, array in arrays.items():
            if isinstance(array, DeviceTensor) and array.aligned:
                addresses[name] = array.address
        context = self._contexts.get_context(
            profile, {tensor.name: tensor.shape_for(**sides) for tensor in self._inputs}
        )
        first = not context.addresses
        shape, dtype = output.shape_for(**sides), np.dtype(output.dtype)
        result = self._pinned.get(output.name, _count_bytes(output, sides))[: _count_bytes(output, sides)]
        try:
            for name, array in arrays.items():
                self._copy_input(name, array, addresses[name])
            if not self._contexts.run(context, addresses):
                raise EngineError(f"{self.description} failed to run; its log above says why")
            self._copier.download(result, addresses[output.name])
        finally:
            self._device.synchronize()  # after a failure too: the stream still reads what may be freed next
        if first and self._kernels is not None:
            self._kernels.save()
        return result.view(dtype).reshape(shape).copy()

    def _copy_input(self, name: str, array: np.ndarray | DeviceTensor, address: int) -> None:
        """Enqueue what brings an input to its device address."""
        if isinstance(array, DeviceTensor):
            if array.stream is not None:
                self._device.wait_for(array.stream)
            if array.address != address:
                self._device.copy(address, array.address, array.nbytes)
            return
        block = self._pinned.get(name, array.nbytes)[: array.nbytes]
        block.view(array.dtype).reshape(array.shape)[...] = array
        self._copier.upload(address, block)

    def _reserve_memory(self, sides: dict[str, int]) -> dict[str, int]:
        """Return the device address of memory for every tensor of that size, by name."""
        tensors = (*self._inputs, *self._outputs.values())
        return {tensor.name: self._contexts.get_memory(tensor.name, _count_bytes(tensor, sides)) for tensor in tensors}

    def _read_sides(self, arrays: dict[str, np.ndarray | DeviceTensor]) -> dict[str, int]:
        """Return the batch, height and width of the inputs.

        Raises:
            EngineError: an input has another type or shape than the graph takes.
        """
        sides: dict[str, int] = {}
        for tensor in self._inputs:
            array = arrays[tensor.name]
            if len(array.shape) == len(tensor.shape):
                for symbol, side in zip(tensor.shape, array.shape, strict=True):
                    if isinstance(symbol, str):
                        sides.setdefault(symbol, side)
            expected = tuple(sides.get(side, side) if isinstance(side, str) else side for side in tensor.shape)
            if array.dtype != tensor.dtype or array.shape != expected:
                raise EngineError(
                    f"{tensor.name} is {array.dtype} {_format_shape(array.shape)}, "
                    f"{tensor.dtype} {_format_shape(expected)} ({tensor.layout}) is expected; cast or reshape it"
                )
        height, width = (self._inputs[0].layout.index(axis) for axis in "HW")
        shape = arrays[self._inputs[0].name].shape
        return {BATCH: shape[0], HEIGHT: shape[height], WIDTH: shape[width]}

    def _choose_profile(self, sides: dict[str, int]) -> int:
        batch, height, width = sides[BATCH], sides[HEIGHT], sides[WIDTH]
        profile = find_tightest_profile(self._profiles, batch, height, width)
        if profile is not None:
            return profile
        most = max(profile.max_batch or batch for profile in self._profiles)
        if batch > most:
            raise EngineError(f"the batch is {batch}, this engine takes up to {most}; build it again with `max_batch`")
        raise EngineError(
            f"the image is {height}x{width}, the batch {batch}; this engine takes "
            f"{' or '.join(map(_format_profile, self._profiles))}; "
            "build it again with `min_size` and `max_size` around it"
        )

    @contextmanager
    def _lock_for_run(self, what: str) -> Iterator[None]:
        """Hold the lock for one run. Where memory is short, release all memory and raise an EngineError with advice."""
        with self._lock:
            if not self._finish.alive:  # asked here: another thread may have closed it while this one waited
                raise EngineError(f"{self.description} was closed; open the bundle again")
            with self._device.active():
                try:
                    yield
                except OutOfMemory as error:
                    self._contexts.release()
                    self._pinned.release()
                    raise EngineError(
                        f"{self.description} has no memory for {what} ({error}); "
                        "use a smaller image or export with smaller `max_size`"
                    ) from error


def _count_bytes(tensor: Tensor, sides: dict[str, int]) -> int:
    return int(np.prod(tensor.shape_for(**sides))) * np.dtype(tensor.dtype).itemsize


def _format_shape(shape: tuple[int | str, ...]) -> str:
    return f"[{', '.join(map(str, shape))}]"


def _format_profile(profile: SizeRange) -> str:
    return f"{profile} (batch up to {profile.max_batch})" if profile.max_batch else str(profile)
