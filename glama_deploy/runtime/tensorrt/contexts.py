"""What an engine needs on the GPU to run one size: an execution context, memory and, with luck, a CUDA graph."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from glama_deploy.errors import EngineError
from glama_deploy.runtime.cuda.buffers import Blocks
from glama_deploy.runtime.cuda.interface import Device, Graph, OutOfMemory


@dataclass
class Plan:
    """An execution context that is ready for one size, where its tensors are, and the graph of its run."""

    context: Any
    addresses: dict[str, int] = field(default_factory=dict)
    runs: int = 0
    graph: Graph | None = None


class Plans:
    """A plan for each of the sizes seen last, over one set of device memory.

    A captured graph holds on to its context's state, shapes, addresses and scratch memory (TensorRT's developer guide,
    "CUDA Graphs"): so a context serves one size only and is not touched after its capture. All of them share one
    block of scratch memory, since they run one after the other.
    """

    def __init__(self, engine: Any, device: Device, settings: Any, *, capture: bool, limit: int = 4) -> None:
        """`settings`: what `create_execution_context` takes, and says that scratch memory is ours to give."""
        self._engine, self._device, self._settings = engine, device, settings
        self._capture, self._limit = capture, limit
        self._memory: Blocks[int] = Blocks(device.allocate, device.free)
        self._plans: dict[tuple[tuple[int, ...], ...], Plan] = {}

    def memory(self, name: str, size: int) -> int:
        """Device memory for a tensor. Where it has to grow, no plan survives: their graphs hold the old address."""
        if self._memory.room(name) < size:
            self.clear()
        return self._memory.get(name, size)

    def plan(self, profile: int, shapes: dict[str, tuple[int, ...]]) -> Plan:
        """The plan for inputs of these shapes, with the optimization profile that they belong to."""
        key = tuple(shapes.values())
        plan = self._plans.pop(key, None) or self._make(profile, shapes)
        self._plans[key] = plan
        while len(self._plans) > self._limit:
            oldest = next(iter(self._plans))
            self._forget_graph(self._plans.pop(oldest))
        return plan

    def run(self, plan: Plan, addresses: dict[str, int]) -> bool:
        """Put the network into the stream, from and into these addresses; False where TensorRT refuses.

        The first run at these addresses is a plain one, which TensorRT needs before a capture; the second is captured.
        """
        if addresses != plan.addresses:
            self._bind(plan, addresses)
        if self._capture and plan.graph is None and plan.runs == 1:
            plan.graph = self._device.capture(lambda: self._execute(plan))
        if plan.graph is not None:
            plan.graph.launch()
            return True
        done = self._execute(plan)
        plan.runs += done
        return done

    def clear(self) -> None:
        """Give up all plans, once the stream has done with them."""
        self._device.synchronize()
        for plan in self._plans.values():
            self._forget_graph(plan)
        self._plans.clear()

    def release(self) -> None:
        """Give up all plans and all memory; both come back when they are asked for."""
        self.clear()
        self._memory.release()

    def close(self) -> None:
        """Release everything, the engine too."""
        self.release()
        self._engine = self._settings = None

    def _make(self, profile: int, shapes: dict[str, tuple[int, ...]]) -> Plan:
        context = self._engine.create_execution_context(self._settings)
        if context is None:
            raise OutOfMemory("no execution context was made")
        if not context.set_optimization_profile_async(profile, self._device.stream):
            raise EngineError(f"the engine has no optimization profile {profile}; build it again")
        for name, shape in shapes.items():
            if not context.set_input_shape(name, shape):
                raise EngineError(f"the engine does not take {name} of shape {list(shape)}; build it again for that")
        size = context.update_device_memory_size_for_shapes()
        if size:
            context.set_device_memory(self.memory("scratch", size), self._memory.room("scratch"))
        return Plan(context)

    def _bind(self, plan: Plan, addresses: dict[str, int]) -> None:
        self._forget_graph(plan)
        plan.addresses, plan.runs = {}, 0  # until all are set it has none
        for name, address in addresses.items():
            if not plan.context.set_tensor_address(name, address):
                raise EngineError(f"the engine has no tensor {name!r}; build it again")
        plan.addresses = addresses

    def _execute(self, plan: Plan) -> bool:
        return bool(plan.context.execute_async_v3(self._device.stream))

    def _forget_graph(self, plan: Plan) -> None:
        if plan.graph is not None:
            plan.graph.discard()
            plan.graph = None
