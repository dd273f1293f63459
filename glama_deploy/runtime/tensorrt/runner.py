"""The runner for TensorRT and TensorRT-RTX engines on an NVIDIA GPU."""

from __future__ import annotations

import logging
import re
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from glama_deploy import memory
from glama_deploy.bundle import BuildSettings, Bundle, Engine, EngineName, Tensor
from glama_deploy.catalogue import ENGINES, PRECISIONS, TENSORRT, TENSORRT_RTX
from glama_deploy.errors import EngineError
from glama_deploy.node_names import BATCH, HEIGHT, INPAINTED, WIDTH
from glama_deploy.runtime.base import DeviceKind, Request, Runner, RunTimes, require
from glama_deploy.runtime.cuda.copies import Copier, NoCopier, TimedCopier
from glama_deploy.runtime.cuda.device import open_device
from glama_deploy.runtime.cuda.exchange.device_arrays import DeviceTensor
from glama_deploy.runtime.cuda.exchange.results import GpuArray, ResultMemory
from glama_deploy.runtime.cuda.exchange.streams import LEGACY_DEFAULT, read_stream
from glama_deploy.runtime.cuda.host_memory import HostMemory
from glama_deploy.runtime.cuda.interface import Device, Mark, OutOfMemory
from glama_deploy.runtime.tensorrt.contexts import ContextCache
from glama_deploy.runtime.tensorrt.deserialization import deserialize
from glama_deploy.runtime.tensorrt.frames import Frame, find_tightest_profile, read_frame, read_target
from glama_deploy.runtime.tensorrt.kernel_cache import KernelCache, make_runtime_config
from glama_deploy.runtime.tensorrt.package import explain_install
from glama_deploy.runtime.tensorrt.refit import refit

log = logging.getLogger("glama_deploy")

#: Runs that may be under way for callers' streams. Before a further one the host waits for the oldest, so that the
#: arrays that the runner keeps for them stay few.
_MAX_UNDER_WAY = 4

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
    trt = require(package, package, explain_install(ENGINES[name]))
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


#: Runs that are under way, the oldest first: the mark behind each, and the arrays that it uses.
_UnderWay = deque[tuple[Mark, object]]


def _release_all(
    contexts: ContextCache,
    host: HostMemory,
    results: ResultMemory,
    under_way: _UnderWay,
    kernels: KernelCache | None,
    device: Device,
) -> None:
    """Store the compiled kernels and release all memory, the engine before the GPU. Results keep theirs."""
    try:
        with device.active():
            device.synchronize()
            under_way.clear()
            if kernels is not None:
                kernels.save()
            contexts.close()
            host.release()
        results.close()  # the device, too, where no result is in use
    except EngineError as error:  # the GPU is gone, and what was on it too
        log.info("the GPU's memory was not given back: %s", error)


class TensorRTRunner(Runner):
    """Runs one engine in one stream.

    The runner has an execution context for each of the sizes seen last, and memory that grows to the largest size seen.
    Host memory is page-locked, so copies are asynchronous and the host waits once, at the end of a run. A GPU that
    shares the host's memory uses host memory without copies.
    """

    backend = TENSORRT.backend
    device: DeviceKind = "cuda"
    #: `run` takes arrays in device memory too and uses them where they lie. `run_on_device` leaves the output there.
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
        self._host, self._results = HostMemory(device), ResultMemory(device)
        self._plain_copier: Copier = NoCopier() if self._host.is_mapped else device
        self._copier: Copier = self._plain_copier
        self._under_way: _UnderWay = deque()
        self._is_integrated = device.is_integrated()
        self._lock = threading.Lock()  # one stream, one set of memory: one run at a time
        self._finish = weakref.finalize(
            self, _release_all, contexts, self._host, self._results, self._under_way, kernels, device
        )
        usual = dict(zip((BATCH, HEIGHT, WIDTH), (1, *engine.sizes.opt), strict=True))
        with self._lock_gpu(), self._explain_shortage("the engine's usual size"):
            self._reserve_memory(usual)

    def close(self) -> None:
        """Release the GPU's memory now. Otherwise it is released when nothing refers to the runner.

        Results that are still used keep their own memory.
        """
        with self._lock:
            self._finish()

    def time_copies(self) -> Callable[[], RunTimes]:
        with self._lock:
            self._copier = copier = TimedCopier(self._device, self._plain_copier)
        return copier.read_times

    def memory_needed(self, size: tuple[int, int], batch: int = 1, window: tuple[int, int] | None = None) -> int:
        """Estimate the GPU memory that a run needs: tensors and scratch memory.

        A Jetson has one memory for GPU and host. Where its GPU cannot use host memory, the tensors count twice.

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
        copies = 2 if self._is_integrated and not self._host.is_mapped else 1
        return tensors * copies + self._contexts.estimate_scratch(profile, share)

    def memory_available(self) -> int | None:
        if self._is_integrated:  # CUDA does not count the host's caches as free, although they make room
            return memory.available()
        if not self._finish.alive:
            return None
        with self._device.active():
            return self._device.free_memory()

    # The arrays may be in host or device memory. The result is a new array in host memory.
    def run(self, image: Any, mask: Any, output: str = INPAINTED) -> np.ndarray:
        tensor = self._find_output(output)
        with self._lock_gpu():
            frame = read_frame(self._inputs, (image, mask), self._profiles, self._device)
            with self._explain_shortage(frame.format()):
                return self._run_to_host(frame, tensor)

    def run_on_device(self, image: Any, mask: Any, out: Any = None, stream: Any = None, output: str = INPAINTED) -> Any:
        tensor = self._find_output(output)
        caller = None if stream is None else read_stream(stream)
        with self._lock_gpu():
            waiting = caller or LEGACY_DEFAULT
            frame = read_frame(self._inputs, (image, mask), self._profiles, self._device, waiting)
            target = None if out is None else read_target(tensor, out, frame, self._device, waiting)
            with self._explain_shortage(frame.format()):
                result = self._run_to_device(frame, tensor, target, caller)
            return result if out is None else out

    def _run_to_host(self, frame: Frame, output: Tensor) -> np.ndarray:
        """Run the network, and wait for the output in host memory."""
        shape, dtype, size = output.shape_for(**frame.sides), np.dtype(output.dtype), _count_bytes(output, frame.sides)
        place = (self._host.find_address if self._host.is_mapped else self._contexts.get_memory)(output.name, size)
        result = self._host.get(output.name, size)
        try:
            self._wait_for_streams(frame.on_device)
            is_first = self._enqueue(frame, {output.name: place})
            self._copier.download(result, place)
        finally:
            self._device.synchronize()  # after a failure too: the stream still reads what may be freed next
        self._under_way.clear()
        self._save_kernels(is_first)
        return result.view(dtype).reshape(shape).copy()

    def _run_to_device(
        self, frame: Frame, output: Tensor, target: DeviceTensor | None, caller: int | None
    ) -> GpuArray | None:
        """Run the network, and leave the output in device memory.

        Args:
            frame: The inputs.
            output: The output.
            target: The array that is written; None for new memory.
            caller: The caller's stream, which waits for the output; None: the host waits.

        Returns:
            The new memory; None where there is a target.
        """
        size = _count_bytes(output, frame.sides)
        address = self._results.take(size) if target is None else target.address
        try:
            arrays = [*frame.on_device, *([target] if target else [])]
            is_in_place = target is None or (target.aligned and not any(map(target.overlaps, frame.on_device)))
            place = address if is_in_place else self._contexts.get_memory(output.name, size)
            self._wait_for_streams(arrays, caller)
            is_first = self._enqueue(frame, {output.name: place})
            if not is_in_place:
                self._device.copy(address, place, size)
            writing = self._finish_run(arrays, caller)
            self._save_kernels(is_first)
        except BaseException:
            self._device.synchronize()  # the stream still uses what may be freed next
            if target is None:
                self._results.drop(address)
            raise
        if target is not None:
            return None
        shape = output.shape_for(**frame.sides)
        return GpuArray(
            self._results, address, shape if frame.has_batch else shape[1:], np.dtype(output.dtype), writing
        )

    def _wait_for_streams(self, arrays: list[DeviceTensor], caller: int | None = None) -> None:
        """Let the stream wait for those that still use the arrays, and for the caller's."""
        for stream in sorted({array.stream for array in arrays if array.stream is not None} - {caller}):
            self._device.wait_for(stream)
        if caller is None:
            return
        try:
            self._device.wait_for(caller)
        except EngineError as error:
            raise EngineError(
                f"{caller} is not a stream of GPU {self._device.gpu} ({error}); pass a stream of the GPU that the "
                "engine runs on"
            ) from error
        self._forget_ended_runs()

    def _forget_ended_runs(self) -> None:
        """Give back the arrays of the runs that are done. Where too many are under way, wait for the oldest."""
        while self._under_way:
            oldest, _ = self._under_way[0]
            if not oldest.is_reached():
                if len(self._under_way) < _MAX_UNDER_WAY:
                    return
                oldest.wait()
            self._under_way.popleft()

    def _finish_run(self, arrays: list[DeviceTensor], caller: int | None) -> tuple[Mark, int] | None:
        """Let the caller's stream wait for the run, or the host where the caller names no stream.

        Returns:
            The mark behind the run, and the caller's stream; None for a run that is done.
        """
        if caller is None:
            self._device.synchronize()
            self._under_way.clear()
            return None
        mark = self._device.mark()
        self._under_way.append((mark, arrays))
        mark.hold(caller)
        return mark, caller

    def _enqueue(self, frame: Frame, places: dict[str, int]) -> bool:
        """Enqueue the copies of the inputs, and the network.

        Args:
            frame: The inputs.
            places: The device address of the output that is needed. Memory for the others is taken here.

        Returns:
            Whether the run was the first of its execution context.
        """
        addresses = dict(places)
        for tensor in self._inputs:
            addresses[tensor.name] = self._place_input(tensor.name, frame.arrays[tensor.name])
        for tensor in self._outputs.values():
            if tensor.name not in addresses:
                addresses[tensor.name] = self._contexts.get_memory(tensor.name, _count_bytes(tensor, frame.sides))
        shapes = {tensor.name: tensor.shape_for(**frame.sides) for tensor in self._inputs}
        context = self._contexts.get_context(frame.profile, shapes)
        is_first = not context.addresses
        for name, array in frame.arrays.items():
            self._send_input(name, array, addresses[name])
        if not self._contexts.run(context, addresses):
            raise EngineError(f"{self.description} failed to run; its log above says why")
        return is_first

    def _save_kernels(self, is_first: bool) -> None:
        """Store the kernels that TensorRT-RTX has compiled, after the first run of an execution context."""
        if is_first and self._kernels is not None:
            self._kernels.save()

    def _place_input(self, name: str, array: np.ndarray | DeviceTensor) -> int:
        """Return the device address at which the engine reads an input."""
        if isinstance(array, DeviceTensor):
            return array.address if array.aligned else self._contexts.get_memory(name, array.nbytes)
        place = self._host.find_address if self._host.is_mapped else self._contexts.get_memory
        return place(name, array.nbytes)

    def _send_input(self, name: str, array: np.ndarray | DeviceTensor, address: int) -> None:
        """Enqueue what brings an input to its device address."""
        if isinstance(array, DeviceTensor):
            if array.address != address:
                self._device.copy(address, array.address, array.nbytes)
            return
        block = self._host.get(name, array.nbytes)
        block.view(array.dtype).reshape(array.shape)[...] = array
        self._copier.upload(address, block)

    def _reserve_memory(self, sides: dict[str, int]) -> None:
        """Take the memory for arrays of a size in host memory, before the first run needs it."""
        usual = (*self._inputs, next(iter(self._outputs.values())))
        for tensor in usual:
            self._host.get(tensor.name, _count_bytes(tensor, sides))
        for tensor in (*self._inputs, *self._outputs.values()):
            if not self._host.is_mapped or tensor not in usual:
                self._contexts.get_memory(tensor.name, _count_bytes(tensor, sides))

    def _find_output(self, name: str) -> Tensor:
        if name not in self._outputs:
            raise EngineError(f"the bundle has no output {name!r}; export it again with `predicted=True`")
        return self._outputs[name]

    @contextmanager
    def _lock_gpu(self) -> Iterator[None]:
        """Hold the lock for one run, with the GPU current in this thread."""
        with self._lock:
            if not self._finish.alive:  # asked here: another thread may have closed it while this one waited
                raise EngineError(f"{self.description} was closed; open the bundle again")
            with self._device.active():
                yield

    @contextmanager
    def _explain_shortage(self, what: str) -> Iterator[None]:
        """Where memory is short, release all memory and raise an EngineError with advice."""
        try:
            yield
        except OutOfMemory as error:
            self._contexts.release()
            self._host.release()
            self._results.release()
            raise EngineError(
                f"{self.description} has no memory for {what} ({error}); "
                "use a smaller image or export with smaller `max_size`"
            ) from error


def _count_bytes(tensor: Tensor, sides: dict[str, int]) -> int:
    return int(np.prod(tensor.shape_for(**sides))) * np.dtype(tensor.dtype).itemsize
