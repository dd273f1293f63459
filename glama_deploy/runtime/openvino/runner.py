"""The runner for OpenVINO on CPUs: it runs the bundle's IR, or its ONNX model where the bundle has no IR."""

from __future__ import annotations

import hashlib
import inspect
import logging
import os
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from glama_deploy import catalogue, memory, node_names
from glama_deploy.bundle import Bundle
from glama_deploy.errors import EngineError
from glama_deploy.fourier import bases, split
from glama_deploy.io import cache
from glama_deploy.network import next_side
from glama_deploy.node_names import IMAGE, INPAINTED, MASK, WINDOW
from glama_deploy.runtime import winograd_matrices
from glama_deploy.runtime.base import DeviceKind, Request, Runner, Window, installed
from glama_deploy.runtime.openvino import compiled_models, memory_use
from glama_deploy.runtime.openvino.accelerator import AcceleratorRunner
from glama_deploy.runtime.openvino.compile_rule import SAVED_SHARE, SAVED_SHARE_OF_PRODUCTS, CompileRule
from glama_deploy.runtime.openvino.core import core
from glama_deploy.runtime.openvino.devices import CPU_NAME, find_device
from glama_deploy.runtime.openvino.infer_requests import CompiledModel
from glama_deploy.runtime.openvino.package import require_openvino
from glama_deploy.runtime.openvino.precision import (
    PRECISION_HINTS,
    advise,
    choose_precision,
    find_precisions,
    has_costly_products,
    uses_int8,
)
from glama_deploy.runtime.openvino.rewrites import (
    channels_last,
    column_convolutions,
    constants,
    fed_bases,
    fourier_units,
    layers,
    pixel_order,
    pixel_products,
    split_fft,
    strips,
    window,
    winograd,
)
from glama_deploy.runtime.openvino.rewrites.transform_checks import TransformChecks, bottleneck_size
from glama_deploy.system import cpu
from glama_deploy.text.excerpts import MAX_ENGINE_LINE, last_line

log = logging.getLogger("glama_deploy")

#: Compiled models of one size that are kept.
_MAX_COMPILED = 4

#: A size is compiled where this many times the weights' bytes are free. A compiled model has kernels of its own, four
#: times as large along both sides of Winograd's tiles, and OpenVINO keeps them packed and not packed: 640 MB for LaMa's
#: 108 MB in fp32.
_FREE_WEIGHT_COPIES = 7

#: Entries of the CPU plugin's cache of primitives, for each stream. An entry holds what one layer needs at one size,
#: up to 0.7 MB with the embedded network. With OpenVINO's default of 5,000 entries memory grows by 3 MB for each new
#: size. Measured on 2026-11-29 with OpenVINO 2026.4.1 on a 2-core AVX2 machine (EPYC, Zen 3): after 150 sizes from
#: 128x128 up memory had grown by 517 MB with 5,000 entries, by 243 with 256, by 108 with 64, by 79 with 16, by 74 with
#: 4. The CPU time of a picture was the same within the noise, for one size and for 2 or 4 sizes in turn. With 16
#: entries memory stayed flat from the 80th to the 400th size (222 to 226 MB, a network of ngf 8).
_RUNTIME_CACHE_ENTRIES = 16


def absent(bundle: Bundle, request: Request) -> bool:
    """Return whether there is nothing to open, as :mod:`glama_deploy.runtime.base` says.

    Args:
        bundle: The bundle.
        request: How to open the engine.

    Returns:
        True if OpenVINO is not installed, or the bundle has no engine that OpenVINO runs.
    """
    return not installed("openvino") or not _has_engine(bundle)


def open(bundle: Bundle, request: Request) -> Runner:
    """Compile the bundle for this CPU, or take the compiled model from the cache; or open it on another device.

    Args:
        bundle: The bundle.
        request: How to open the engine.

    Returns:
        The runner.

    Raises:
        EngineError: OpenVINO is not installed, does not find the device, does not compile the model, or the precision
            is not in the bundle.
    """
    require_openvino()
    if not _has_engine(bundle):
        raise EngineError(f"{bundle.path} has FFTs as a TensorRT plugin's nodes; for OpenVINO export with `fft=matmul`")
    name = find_device(request.device)
    return OpenVINORunner(bundle, request) if name == CPU_NAME else AcceleratorRunner(bundle, request, name)


def _has_engine(bundle: Bundle) -> bool:
    """Return whether the bundle has an engine that OpenVINO runs. A bundle whose FFTs are plugin nodes has none."""
    return any(bundle.engine(record.name) is not None for record in (catalogue.OPENVINO, catalogue.ONNX))


#: The modules that change the model of any size, and the model of one size, before it is compiled.
_ANY_SIZE_REWRITERS = (
    constants,
    fed_bases,
    fourier_units,
    layers,
    node_names,
    pixel_order,
    pixel_products,
    window,
    winograd,
    winograd_matrices,
)
_REWRITERS = (
    *_ANY_SIZE_REWRITERS,
    bases,
    channels_last,
    column_convolutions,
    split,
    split_fft,
    strips,
    sys.modules[__name__],
)


#: The key of the compiled model that takes every size.
_ANY_SIZE = ()


class OpenVINORunner(Runner):
    """Runs a bundle with OpenVINO.

    One compiled model serves every size. It takes the DFT bases as inputs (:mod:`.rewrites.fed_bases`). In bf16 or fp16
    a network of two stages is compiled for each size instead: its graph also computes resampling matrices, which would
    lose their digits. In fp32 the residual blocks of a wide network are products of matrices
    (:mod:`.rewrites.pixel_products`), with a quarter of the multiplications of its convolutions.

    A model that is compiled for one size is faster. The convolutions of a wide network need a quarter of the
    multiplications in fp32, and half of them in a half type (:mod:`.rewrites.winograd`). In fp32 the transforms of a
    large image are split (:mod:`.rewrites.split_fft`). The layers of full resolution are computed in strips
    (:mod:`.rewrites.strips`). A size is compiled when that pays (:mod:`.compile_rule`). Few sizes are kept, because
    each has a copy of the weights. Such models are cached on disk only for bundles of one size.

    Only the model that ran last keeps the memory of its feature maps.
    """

    backend = "openvino"
    device: DeviceKind = "cpu"

    def __init__(self, bundle: Bundle, request: Request) -> None:
        """Open the bundle's OpenVINO engine, or else its ONNX graph.

        Args:
            bundle: The bundle.
            request: How to open the engine.

        Raises:
            EngineError: OpenVINO does not compile the model, or the precision is not in the bundle.
        """
        import openvino

        name = catalogue.OPENVINO.name if bundle.engine(catalogue.OPENVINO.name) else catalogue.ONNX.name
        self.sizes, self.io = bundle.manifest.engines[name].sizes, bundle.manifest.io
        self._inputs = bundle.manifest.inputs
        self._core = core()
        # The first guards the table of compiled models and the holder, for moments. The second is held while a model is
        # compiled, and is taken before the first where both are taken.
        self._lock, self._compile_lock = threading.Lock(), threading.Lock()
        self.streams, self._free_streams = request.streams, threading.Semaphore(request.streams)
        quantized = uses_int8(bundle, name, request.precision)
        has_int8 = catalogue.PRECISIONS[bundle.manifest.engines[name].precision].is_quantized
        other = has_int8 and not quantized
        file = bundle.graph("fp32") if other else bundle.files(name)[0]
        computed, note = choose_precision(request.precision, quantized=quantized)
        self.precision = catalogue.quantized_precision(computed) if quantized else computed
        self.precisions = find_precisions(has_int8=has_int8)
        self.advice = advise(computed)
        self._config: dict[str, Any] = {
            **({"PERFORMANCE_HINT": "LATENCY"} if self.streams == 1 else {"NUM_STREAMS": self.streams}),
            "INFERENCE_PRECISION_HINT": PRECISION_HINTS[computed],
            # Else its threads are bound to the first cores, those of a second process to the same ones, and both take
            # twice as long. Alone, it makes no difference that could be measured.
            "ENABLE_CPU_PINNING": False,
            "CPU_RUNTIME_CACHE_CAPACITY": _RUNTIME_CACHE_ENTRIES,
        }
        if request.threads:
            self._config["INFERENCE_NUM_THREADS"] = request.threads
        self._half = computed != "fp32"
        self._network = bundle.manifest.network
        int8_graph = bundle.manifest.graphs.get("int8")
        fp32_layers = (int8_graph.kept if int8_graph else ()) if quantized else None
        self._checks = TransformChecks(bundle.path, bundle.manifest, fp32_layers)
        self._compiled: OrderedDict[tuple[int, ...], CompiledModel] = OrderedDict()
        #: The shapes of the images of all callers, also of those that wait.
        self._shapes: list[tuple[int, ...]] = []
        #: The size of the compiled model that keeps the memory of its feature maps, and how often that size changed.
        #: A model that runs again later is another holder.
        self.holder: tuple[tuple[int, ...], int] = (_ANY_SIZE, 0)
        self._folder = cache.folder("openvino")
        graphs, engines = bundle.manifest.graphs, bundle.manifest.engines
        artifacts = (graphs["fp32"].file,) if other else engines[name].files
        self._source = tuple(artifact.sha256 for artifact in artifacts)
        self._weights = sum(path.stat().st_size for path in (file, file.with_suffix(".bin")) if path.is_file())
        try:
            self._model = self._core.read_model(str(file))
            whole = window.open_window(self._model)
            self.takes_windows = whole is not None
            #: The input for the whole picture; empty where the graph has no window.
            self._whole = {} if whole is None else {WINDOW: np.array(whole, np.int64)}
            self._outputs = {port.get_any_name() for port in self._model.outputs}
            self._uses_channels_last = has_costly_products(computed)
            self._uses_winograd = self._uses_channels_last and self._find_wide_convolutions()
            self._feeds_bases = self._replace_bases()
            self._multiplies_pixels = self._can_multiply_pixels(quantized=quantized)
            self._rule = CompileRule(
                request.compile_sizes, SAVED_SHARE_OF_PRODUCTS if self._multiplies_pixels else SAVED_SHARE
            )
            self._fixes_sizes = self._loses_digits() or (self.sizes.static and self._uses_winograd)
            self.compiles_sizes = self._fixes_sizes or (self._rule.is_immediate and self._uses_winograd)
            if not self._fixes_sizes:
                self._compiled[_ANY_SIZE] = self._compile_key(_ANY_SIZE, 1, 0, 0)
            elif self.sizes.static and self.sizes.max is not None:
                self._add_compiled(self._inputs[0].shape_for(1, *self.sizes.max))
        except RuntimeError as error:
            raise EngineError(f"OpenVINO cannot compile {file}: {last_line(error, MAX_ENGINE_LINE)}") from error
        version = openvino.__version__.split("-")[0]
        self.description = f"OpenVINO {version} CPU {self.precision}{note}"

    def memory_needed(self, size: tuple[int, int], batch: int = 1, window: tuple[int, int] | None = None) -> int:
        shape = self._inputs[0].shape_for(batch, *size)
        return memory_use.estimate_memory(
            *size,
            self._network,
            batch,
            self.precision,
            has_own_model=self._needs_own_model(shape),
            is_compiled=shape in self._compiled,
            window=(window or size) if self.takes_windows else None,
        )

    def run(self, image: np.ndarray, mask: np.ndarray, output: str = INPAINTED) -> np.ndarray:
        if output not in self._outputs:
            raise EngineError(f"the bundle has no output {output!r}; export it again with `predicted=True`")
        return self._run({IMAGE: image, MASK: mask, **self._whole}, output, image.shape)

    def run_window(self, image: np.ndarray, mask: np.ndarray, window: Window) -> np.ndarray:
        shape, first = list(image.shape), 1 if self.io == "uint8" else 2
        for axis, (start, stop) in enumerate((window[::2], window[1::2]), start=first):
            shape[axis] = min(stop, shape[axis]) - start
        inputs = {IMAGE: image, MASK: mask, WINDOW: np.array(window, np.int64)}
        return self._run(inputs, INPAINTED, tuple(shape))

    def _run(self, inputs: dict[str, np.ndarray], output: str, shape: tuple[int, ...]) -> np.ndarray:
        """Run the compiled model of the image's size. `shape` is the shape that the output must have."""
        image = inputs[IMAGE]
        self._shapes.append(image.shape)
        try:
            with self._free_streams:
                key, model = self._get_compiled(image.shape)
                start = time.perf_counter()
                try:
                    return model.run({**inputs, **self._compute_inputs(key, model.inputs, image.shape)}, output, shape)
                except RuntimeError:
                    with self._lock:
                        if self._compiled.get(key) is model:  # its requests may fail from now on
                            del self._compiled[key]
                    raise
                finally:
                    with self._lock:
                        model.users -= 1
                        if key == _ANY_SIZE:
                            self._rule.note_run(image.shape, time.perf_counter() - start)
                        if key != self.holder[0]:  # another thread went on with another
                            model.release()
        except RuntimeError as error:
            raise EngineError(f"OpenVINO failed: {last_line(error, MAX_ENGINE_LINE)}") from error
        finally:
            self._shapes.remove(image.shape)

    def _compile(self, make: Callable[[], Any], stored: Path | None = None) -> CompiledModel:
        """Import the compiled model from the file `stored`, or compile the model that `make` returns and store it."""
        if stored and (imported := self._import(stored)):
            return imported
        model = self._core.compile_model(make(), "CPU", self._config)
        if stored and self._checks.is_complete:  # else the next start would not warn
            data = model.export_model()
            compiled_models.write(stored, data if isinstance(data, bytes) else data.getvalue())
        return CompiledModel(model, self.streams)

    def _import(self, stored: Path) -> CompiledModel | None:
        """Return the compiled model of a file; None where the file is missing or damaged."""
        import openvino

        blob = compiled_models.read(stored)
        if blob is None:
            return None
        try:
            model = self._core.import_model(openvino.Tensor(blob, shared_memory=True), "CPU", self._config)
        except RuntimeError as error:
            reason = last_line(error, MAX_ENGINE_LINE)
            del blob  # Windows removes no file that is mapped
            compiled_models.discard(stored, reason)
            return None
        return CompiledModel(model, self.streams, blob)

    def _get_cache_file(self, *size: int) -> Path | None:
        """Return the file of the compiled model of any size, or of one size (height, width).

        The file's name is a hash of all that the compiled model depends on.
        """
        if self._folder is None:
            return None
        import openvino

        rewriters = [inspect.getsource(module) for module in (_REWRITERS if size else _ANY_SIZE_REWRITERS)]
        processor = self._core.get_property("CPU", "FULL_DEVICE_NAME"), sorted(cpu.features())
        isa = os.environ.get("ONEDNN_MAX_CPU_ISA"), os.environ.get("DNNL_MAX_CPU_ISA")
        forms = self._half, self._uses_channels_last, self._feeds_bases, self._multiplies_pixels
        config = sorted(self._config.items())
        parts = (openvino.__version__, self._source, size, rewriters, forms, config, processor, isa)
        return self._folder / f"{hashlib.sha256(repr(parts).encode()).hexdigest()[:32]}{compiled_models.SUFFIX}"

    def _get_compiled(self, shape: tuple[int, ...]) -> tuple[tuple[int, ...], CompiledModel]:
        """Return the key and the compiled model for images of a shape, and count a user of the model.

        Other callers run while this one compiles. A caller whose size needs a model of its own waits for the caller
        that compiles. Other callers do not wait: they take the model of any size.
        """
        while True:
            key = shape if self._has_own_model(shape) or self._compile_where_due(shape) else _ANY_SIZE
            with self._lock:
                if model := self._compiled.get(key):
                    self._compiled.move_to_end(key)
                    self._hold(key)
                    model.users += 1
                    return key, model
            with self._compile_lock:
                if key == _ANY_SIZE or self._has_own_model(shape):  # else the model was removed this moment
                    self._add_compiled(key)

    def _compile_where_due(self, shape: tuple[int, ...]) -> bool:
        """Compile a size that can do without, where that pays and no other caller compiles. Return whether it did."""
        if not self._pays_to_compile(shape) or not self._compile_lock.acquire(blocking=False):
            return False
        try:
            self._add_compiled(shape)
        except (RuntimeError, MemoryError) as error:
            log.warning(
                "OpenVINO cannot compile a faster model for %dx%d, and runs the one of any size: %s",
                *self._get_size(shape),
                last_line(error, MAX_ENGINE_LINE),
            )
            with self._lock:
                self._rule.note_failure(shape)
            return False
        finally:
            self._compile_lock.release()
        return True

    def _add_compiled(self, key: tuple[int, ...]) -> None:
        """Compile the model of any size, or of one shape, unless that was done. The caller holds the compile lock."""
        with self._lock:
            if key in self._compiled:
                return
            self._hold(key)
        compiled = self._compile_key(key, key[0] if key else 1, *(self._get_size(key) if key else (0, 0)))
        with self._lock:
            self._compiled[key] = compiled
            for oldest in [kept for kept in self._compiled if kept != _ANY_SIZE][:-_MAX_COMPILED]:
                del self._compiled[oldest]
                self._rule.note_removal(oldest)

    def _hold(self, key: tuple[int, ...]) -> None:
        """Let the model that ran last give its memory back, unless its key is this one. The caller holds the lock."""
        active, changes = self.holder
        if key == active:
            return
        if active in self._compiled:
            self._compiled[active].release()
        self.holder = (key, changes + 1)

    def _get_size(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """Return the height and width of images of a shape."""
        height, width = shape[1:3] if self.io == "uint8" else shape[2:]
        return height, width

    def _compute_inputs(
        self, key: tuple[int, ...], names: Collection[str], shape: tuple[int, ...]
    ) -> dict[str, np.ndarray]:
        """Return what the model `key` with the inputs `names` takes beside images of a shape, by name."""
        if key != _ANY_SIZE:
            return {}
        size = bottleneck_size(self._network, *self._get_size(shape))
        values: dict[str, np.ndarray] = {}
        if self._multiplies_pixels:
            values |= pixel_products.compute_inputs(shape[0], *size)
        if self._feeds_bases:
            values |= fed_bases.compute(*size)
        return {name: value for name, value in values.items() if name in names}

    def _replace_bases(self) -> bool:
        """Make the DFT bases inputs of the model; warn where the graph should compute bases and has fewer.

        Returns:
            True if the model takes its bases as inputs.
        """
        found = fed_bases.rewrite(self._model)
        self._checks.check_bases(found, static=self.sizes.static)
        return found > 0

    def _loses_digits(self) -> bool:
        """Return whether a graph of any size would compute matrices in a half type: angles, or resampling weights."""
        if self._network.kind != "ffc":
            return False
        return self._half and (not self._feeds_bases or self._network.coarse is not None)

    def _compile_key(self, key: tuple[int, ...], batch: int, height: int, width: int) -> CompiledModel:
        """Compile the model of any size, or of one size."""
        if key == _ANY_SIZE:
            return self._compile(self._make_any_size, self._get_cache_file())
        stored = self._get_cache_file(height, width) if self.sizes.static and batch == 1 else None
        start = time.perf_counter()
        compiled = self._compile(lambda: self._fix_size(batch, height, width), stored)
        self._rule.note_compile(time.perf_counter() - start)
        return compiled

    def _has_own_model(self, shape: tuple[int, ...]) -> bool:
        """Return whether images of this shape have a compiled model of their own, or need one."""
        return shape in self._compiled or self._needs_own_model(shape)

    def _needs_own_model(self, shape: tuple[int, ...]) -> bool:
        """Return whether images of this shape are compiled before their first run."""
        if self._fixes_sizes:
            return True
        height, width = self._get_size(shape)
        return self._rule.is_due_at_first(shape[0] * height * width) and self.has_compiled_form((height, width))

    def _pays_to_compile(self, shape: tuple[int, ...]) -> bool:
        """Return whether to compile a size that can do without: its time has come, and it fits beside other callers."""
        with self._lock:
            if not self._rule.is_due(shape) or not self.has_compiled_form(self._get_size(shape)):
                return False
        others = [*self._shapes]
        if shape in others:
            others.remove(shape)  # what this caller needs, it was granted before
        beside = sum(self.memory_needed(self._get_size(other), other[0]) for other in others)
        return memory.fits(_FREE_WEIGHT_COPIES * self._weights + beside)

    def has_compiled_form(self, size: tuple[int, int]) -> bool:
        """Return whether a model that is compiled for one size alone is faster than the model of any size.

        Args:
            size: Height and width of the images in pixels.

        Returns:
            True if there are two models, whose results differ by rounding.
        """
        if self._fixes_sizes:
            return False
        can_split = not self._half and not self.sizes.static
        return self._uses_winograd or (can_split and split.is_cheaper(*bottleneck_size(self._network, *size)))

    def _can_multiply_pixels(self, *, quantized: bool) -> bool:
        """Return whether the blocks of the model of any size become products of matrices.

        A graph in int8 has other layers between. The blocks of two stages have feature maps of two sizes. Transforms
        that are not orthonormal have a sum that depends on the size. Between convolutions of which the method suits
        some alone, transpositions would move data.
        """
        if self._half or quantized or self._network.coarse is not None or self._network.fft_norm != "ortho":
            return False
        local = self._network.bottleneck_channels - self._network.global_channels
        is_wide = min(local, self._network.global_channels) >= winograd.MIN_CHANNELS
        return is_wide and self._uses_winograd and self._feeds_bases

    def _make_any_size(self) -> Any:
        """Return the model of any size."""
        if not self._multiplies_pixels:
            return self._model
        model = self._model.clone()
        self._checks.check_products(len(pixel_products.rewrite(model).units))
        return model

    def _find_wide_convolutions(self) -> bool:
        """Return whether the graph has convolutions for Winograd's method; warn where it has fewer than it should."""
        found = winograd.count_served(self._model)
        self._checks.check_winograd(found)
        return found > 0

    def _fix_size(self, batch: int, height: int, width: int) -> Any:
        """Return the model with a fixed batch, height and width, rewritten by the transforms that make it faster."""
        model = self._model.clone()
        if self._feeds_bases:
            fed_bases.fix(model, *bottleneck_size(self._network, height, width))
        model.reshape({tensor.name: list(tensor.shape_for(batch, height, width)) for tensor in self._inputs})
        self._split_into_strips(model, batch, height, width)
        if not self._half:  # split transforms cost more in a half type, and round once more
            self._checks.check_split(split_fft.rewrite(model), height, width)
        units: tuple[str, ...] = ()
        if self._uses_channels_last:
            units = channels_last.rewrite(model, half=self._half).units
            self._checks.check_units(len(units), height, width, half=self._half)
        if self._half:
            products = column_convolutions.rewrite(model)
            self._checks.check_columns(products + channels_last.LEFT_PRODUCTS_PER_UNIT * len(units))
        return model

    def _split_into_strips(self, model: Any, batch: int, height: int, width: int) -> None:
        """Compute the layers of full resolution of a large image in strips."""
        count = strips.count_strips(batch * height * width)
        if count == 1:
            return
        strips.split_encoder(model, count, self._network)
        if self.takes_windows:
            axis = 1 if self.io == "uint8" else 2
            strips.split_decoder(model, count, next_side(height), self._network, axis)

    def profile(self, height: int, width: int, runs: int) -> Iterator[list[tuple[str, str, float]]]:
        """Run a blank image and measure each layer.

        Args:
            height: The image's height in pixels.
            width: The image's width in pixels.
            runs: How many runs to measure.

        Yields:
            For each run: the name of each node, its kind in the engine, and its time in seconds.

        Raises:
            EngineError: OpenVINO cannot compile or run the model.
        """
        shape = self._inputs[0].shape_for(1, height, width)
        own = self._has_own_model(shape) or self._pays_to_compile(shape)
        model = self._fix_size(1, height, width) if own else self._make_any_size()
        blank = {tensor.name: np.zeros(tensor.shape_for(1, height, width), tensor.dtype) for tensor in self._inputs}
        names = {port.get_any_name() for port in model.inputs}
        blank |= self._compute_inputs(shape if own else _ANY_SIZE, names, shape) | self._whole
        try:
            compiled = self._core.compile_model(model, "CPU", {**self._config, "PERF_COUNT": True})
            request = compiled.create_infer_request()
        except RuntimeError as error:
            raise EngineError(f"OpenVINO cannot profile: {last_line(error, MAX_ENGINE_LINE)}") from error
        for _ in range(runs):
            try:
                request.start_async(blank)
                request.wait()
            except RuntimeError as error:
                raise EngineError(f"OpenVINO failed: {last_line(error, MAX_ENGINE_LINE)}") from error
            yield [(n.node_name, n.node_type, n.real_time.total_seconds()) for n in request.profiling_info]
