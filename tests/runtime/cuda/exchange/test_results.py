"""The memory of results: what Python's garbage collection may do between any two lines."""

from __future__ import annotations

from fakes.cuda_runtime import MemoryRuntime
from glama_deploy.runtime.cuda.cuda_python import CudaPythonDevice
from glama_deploy.runtime.cuda.exchange.results import ResultMemory


def test_a_result_that_is_dropped_while_the_memory_is_closed_is_freed_once(monkeypatch):
    runtime = MemoryRuntime()
    device = CudaPythonDevice(runtime)
    free, closed = device.free_memory(), []
    memory = ResultMemory(device)
    early, late = memory.take(1 << 20), memory.take(1 << 20)
    memory.drop(early)
    wait = device.synchronize_gpu
    dropping = [late]

    def collect_and_wait() -> None:
        while dropping:
            memory.drop(dropping.pop())
        wait()

    monkeypatch.setattr(device, "synchronize_gpu", collect_and_wait)
    monkeypatch.setattr(device, "close", lambda: closed.append(True))
    memory.close()
    assert (device.free_memory(), closed) == (free, [True])
