"""Execution contexts: what an engine needs on the GPU to run one size, with device memory and a CUDA graph."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from glama_deploy.errors import EngineError
from glama_deploy.runtime.cuda.buffers import BufferPool
from glama_deploy.runtime.cuda.interface import Device, Graph, OutOfMemory
from glama_deploy.text.excerpts import MAX_ENGINE_LINE, first_line

#: Factor by which the scratch memory of a run may exceed its share of the profile's. Feature maps grow with the pixels;
#: the tables of the Fourier transforms and a layer's own workspace do not. Not measured.
_SCRATCH_MARGIN = 1.5

#: The number of contexts that are kept, one for each of the sizes seen last.
MAX_CONTEXTS = 4


@dataclass
class PreparedContext:
    """An execution context for one size.

    Attributes:
        context: TensorRT's execution context.
        addresses: The device address of each tensor, by name; empty until all are set.
        runs: Plain runs at these addresses.
        graph: The CUDA graph of a run; None where none was captured.
    """

    context: Any
    addresses: dict[str, int] = field(default_factory=dict)
    runs: int = 0
    graph: Graph | None = None


class ContextCache:
    """Execution contexts for the sizes seen last, over one set of device memory.

    A captured graph depends on its context's state, shapes, addresses and scratch memory (TensorRT's developer guide,
    "CUDA Graphs"). Each context therefore serves one size and is not changed after its capture. All contexts share one
    buffer of scratch memory, because they run one after the other.
    """

    def __init__(self, engine: Any, device: Device, settings: Any, *, capture: bool, limit: int = MAX_CONTEXTS) -> None:
        """Make an empty cache.

        Args:
            engine: The deserialized engine.
            device: The GPU and its stream.
            settings: The argument of `create_execution_context`. It says that the caller provides scratch memory.
            capture: Whether runs are captured as CUDA graphs.
            limit: How many contexts are kept.
        """
        self._engine, self._device, self._settings = engine, device, settings
        self._capture, self._limit = capture, limit
        self._memory: BufferPool[int] = BufferPool(device.allocate, device.free)
        self._contexts: dict[tuple[tuple[int, ...], ...], PreparedContext] = {}

    def estimate_scratch(self, profile: int, share: float) -> int:
        """Estimate the scratch memory of a size that has no context yet.

        Args:
            profile: The index of the optimization profile that takes the size.
            share: The pixels of the run, as a share of the pixels in the profile's largest run; 0…1.

        Returns:
            Bytes: the part of the profile's scratch memory that the share takes, with a margin; never more than the
            profile's.
        """
        most = int(self._engine.get_device_memory_size_for_profile_v2(profile))
        return min(most, round(_SCRATCH_MARGIN * share * most))

    def get_memory(self, name: str, size: int) -> int:
        """Return device memory for a tensor.

        Where the memory has to grow, all contexts are dropped: their graphs have the old address.

        Args:
            name: The tensor's name.
            size: Bytes.

        Returns:
            The device address.
        """
        if self._memory.get_size(name) < size:
            self.clear()
        return self._memory.get(name, size)

    def get_context(self, profile: int, shapes: dict[str, tuple[int, ...]]) -> PreparedContext:
        """Return the context for a size.

        Args:
            profile: The index of the optimization profile.
            shapes: The shape of each input, by name.

        Returns:
            A context that is kept, or a new one.

        Raises:
            OutOfMemory: TensorRT made no context, or the GPU has no free memory.
            EngineError: the engine does not accept the profile or a shape.
        """
        key = tuple(shapes.values())
        prepared = self._contexts.pop(key, None) or self._make_context(profile, shapes)
        self._contexts[key] = prepared
        while len(self._contexts) > self._limit:
            self._device.synchronize()  # a run for a caller's stream may still use the context
            oldest = next(iter(self._contexts))
            self._discard_graph(self._contexts.pop(oldest))
        return prepared

    def run(self, prepared: PreparedContext, addresses: dict[str, int]) -> bool:
        """Enqueue the network.

        The first run at some addresses is a plain run, which TensorRT needs before a capture. The second run is
        captured.

        Args:
            prepared: The context of the inputs' size.
            addresses: The device address of each input and output, by name.

        Returns:
            Whether TensorRT accepted the run.
        """
        if addresses != prepared.addresses:
            self._bind_addresses(prepared, addresses)
        if self._capture and prepared.graph is None and prepared.runs == 1:
            prepared.graph = self._device.capture(lambda: self._execute(prepared))
        if prepared.graph is not None:
            prepared.graph.launch()
            return True
        done = self._execute(prepared)
        prepared.runs += done
        return done

    def clear(self) -> None:
        """Drop all contexts, after the stream has finished."""
        self._device.synchronize()
        for prepared in self._contexts.values():
            self._discard_graph(prepared)
        self._contexts.clear()

    def release(self) -> None:
        """Drop all contexts and free all memory. Both are made again when they are requested."""
        self.clear()
        self._memory.release()

    def close(self) -> None:
        """Release everything, including the engine."""
        self.release()
        self._engine = self._settings = None

    def _make_context(self, profile: int, shapes: dict[str, tuple[int, ...]]) -> PreparedContext:
        context = self._engine.create_execution_context(self._settings)
        if context is None:
            raise OutOfMemory("no execution context was made")
        try:
            context.set_optimization_profile_async(profile, self._device.stream)
        except RuntimeError as error:  # the bindings raise and never return False
            reason = first_line(error, MAX_ENGINE_LINE)
            raise EngineError(f"the engine has no optimization profile {profile} ({reason}); build it again") from error
        for name, shape in shapes.items():
            if not context.set_input_shape(name, shape):
                raise EngineError(f"the engine does not take {name} of shape {list(shape)}; build it again for that")
        size = self._count_scratch(context, profile, shapes)
        if size:
            context.set_device_memory(self.get_memory("scratch", size), self._memory.get_size("scratch"))
        return PreparedContext(context)

    def _count_scratch(self, context: Any, profile: int, shapes: dict[str, tuple[int, ...]]) -> int:
        """Return the bytes of scratch memory that a context needs for its shapes.

        TensorRT reports an error as 0 bytes. Only an engine without scratch memory needs 0 bytes.
        """
        size = int(context.update_device_memory_size_for_shapes())
        if size == 0 and self._engine.get_device_memory_size_for_profile_v2(profile):
            sizes = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
            raise EngineError(
                f"TensorRT cannot tell the scratch memory for {sizes} in optimization profile {profile}; its log above "
                "says why; build the engine again"
            )
        return size

    def _bind_addresses(self, prepared: PreparedContext, addresses: dict[str, int]) -> None:
        self._discard_graph(prepared)
        prepared.addresses, prepared.runs = {}, 0  # no addresses until all are set
        for name, address in addresses.items():
            if not prepared.context.set_tensor_address(name, address):
                raise EngineError(f"the engine has no tensor {name!r}; build it again")
        prepared.addresses = addresses

    def _execute(self, prepared: PreparedContext) -> bool:
        return bool(prepared.context.execute_async_v3(self._device.stream))

    def _discard_graph(self, prepared: PreparedContext) -> None:
        if prepared.graph is not None:
            self._device.synchronize()  # a run for a caller's stream may be a launch of the graph
            prepared.graph.discard()
            prepared.graph = None
