"""The two devices over a driver in memory: what they ask of their packages, and who is chosen."""

from __future__ import annotations

import importlib
import re
import sys
import threading

import numpy as np
import pytest

from fakes.cuda_runtime import MemoryRuntime
from fakes.pycuda_driver import MemoryPycuda
from glama_deploy.errors import EngineError
from glama_deploy.runtime.cuda.cuda_python import CudaPythonDevice
from glama_deploy.runtime.cuda.device import open_device
from glama_deploy.runtime.cuda.driver import find_driver_version, list_gpus
from glama_deploy.runtime.cuda.interface import OutOfMemory
from glama_deploy.runtime.cuda.pycuda import PyCudaDevice


@pytest.fixture(params=["cuda-python", "pycuda"])
def device(request):
    runtime = MemoryRuntime(room=4096)
    made = CudaPythonDevice(runtime) if request.param == "cuda-python" else PyCudaDevice(MemoryPycuda(runtime))
    with made.active():
        yield made, runtime
    made.close()
    assert not runtime.leaked


def test_uploaded_bytes_are_downloaded_unchanged(device):
    gpu, runtime = device
    there, back = gpu.pin(256), gpu.pin(256)
    there[:] = np.arange(256, dtype=np.uint8)
    first, second = gpu.allocate(256), gpu.allocate(256)
    gpu.upload(first, there)
    gpu.copy(second, first, 256)
    gpu.download(back, second)
    assert not runtime.names().count("synchronize")
    gpu.synchronize()
    np.testing.assert_array_equal(back, there)
    for address in (first, second):
        gpu.free(address)
    for block in (there, back):
        gpu.unpin(block)


def test_the_gpu_has_a_name_and_a_compute_capability(device):
    gpu, _ = device
    assert gpu.name().startswith("Memory")
    assert gpu.compute_capability() == (8, 9)


@pytest.mark.parametrize("package", ["cuda-python", "pycuda"])
@pytest.mark.parametrize("index", [0, 1])
def test_a_gpu_is_opened_by_its_number(package, index):
    runtime = MemoryRuntime(count=2)
    runtime.cudaSetDevice(1 - index)
    is_pycuda = package == "pycuda"
    gpu = PyCudaDevice(MemoryPycuda(runtime), index) if is_pycuda else CudaPythonDevice(runtime, index)
    assert runtime.streams[gpu.stream].gpu == index
    with gpu.active():
        address = gpu.allocate(16)
        gpu.free(address)
    assert runtime.gpus == {address: index}
    gpu.close()
    assert not runtime.leaked


@pytest.mark.parametrize(
    ("count", "there"), [(1, "1 CUDA GPU, cuda:0"), (2, "2 CUDA GPUs, cuda:0 to cuda:1")], ids=["one", "two"]
)
def test_a_gpu_that_does_not_exist_is_an_error_that_counts_those_that_do(count, there):
    runtime = MemoryRuntime(count=count)
    for open_gpu in (CudaPythonDevice, lambda api, index: PyCudaDevice(MemoryPycuda(api), index)):
        with pytest.raises(EngineError, match=f"^`device` is cuda:2, .* no such GPU; this process sees {there}$"):
            open_gpu(runtime, 2)
    assert not runtime.leaked


def test_too_much_memory_is_its_own_error(device):
    gpu, _ = device
    with pytest.raises(OutOfMemory, match="out of memory"):
        gpu.allocate(8192)


def test_the_gpu_says_what_is_free_and_whether_it_shares_the_hosts_memory(device):
    gpu, runtime = device
    address = gpu.allocate(1024)
    assert gpu.free_memory() == 4096 - 1024
    gpu.free(address)
    for runtime.is_integrated in (False, True):
        assert gpu.is_integrated() == runtime.is_integrated


def test_events_measure_the_time_of_the_work_between_them(device):
    gpu, runtime = device
    start, end = gpu.make_event(), gpu.make_event()

    def work() -> None:
        runtime.milliseconds += 8

    for _ in range(2):  # an event may be recorded again
        gpu.record(start)
        runtime.streams[gpu.stream].put(work)
        gpu.record(end)
        with pytest.raises(EngineError, match=r"invalid (argument|resource handle)"):
            gpu.measure_seconds(start, end)  # the work is not done
        gpu.synchronize()
        assert gpu.measure_seconds(start, end) == pytest.approx(0.008)


@pytest.mark.parametrize("stream", [1, 2])
def test_the_stream_waits_for_another_one(device, stream):
    gpu, runtime = device
    done = []
    runtime.streams[stream].put(lambda: done.append("theirs"))
    gpu.wait_for(stream)
    runtime.streams[gpu.stream].put(lambda: done.append("ours"))
    gpu.synchronize()
    assert done == ["theirs", "ours"]


@pytest.mark.parametrize("stream", [1, 2])
def test_another_stream_waits_for_what_is_before_a_mark(device, stream):
    gpu, runtime = device
    done = []
    runtime.streams[gpu.stream].put(lambda: done.append("before"))
    mark = gpu.mark()
    runtime.streams[gpu.stream].put(lambda: done.append("behind"))
    assert not mark.is_reached()
    mark.hold(stream)
    runtime.streams[stream].put(lambda: done.append("theirs"))
    runtime.cudaStreamSynchronize(stream)
    assert done == ["before", "theirs"]
    assert mark.is_reached()
    gpu.synchronize()


def test_the_host_waits_for_a_mark_or_for_the_whole_gpu(device):
    gpu, runtime = device
    done = []
    runtime.streams[gpu.stream].put(lambda: done.append(1))
    gpu.mark().wait()
    assert done == [1]
    for stream in (1, gpu.stream):
        runtime.streams[stream].put(lambda: done.append(2))
    gpu.synchronize_gpu()
    assert done == [1, 2, 2]


def test_a_mark_that_fails_is_an_error():
    runtime = MemoryRuntime()
    gpu = CudaPythonDevice(runtime)
    mark = gpu.mark()
    runtime.cudaEventQuery = lambda event: (runtime.cudaError_t.cudaErrorInvalidResourceHandle,)
    with pytest.raises(EngineError, match=r"^cudaEventQuery failed: invalid argument$"):
        mark.is_reached()


def test_mapped_memory_has_an_address_on_the_gpu(device):
    gpu, runtime = device
    for runtime.maps_host_memory in (False, True):
        assert gpu.can_map() == runtime.maps_host_memory
    block = gpu.pin(64, mapped=True)
    address = gpu.find_address(block)
    assert address != block.ctypes.data
    block[:] = 7
    assert bytes(runtime.block(address, 64)) == b"\7" * 64
    gpu.unpin(block)


def test_an_address_tells_its_gpu_and_memory_that_is_no_gpus_own_does_not():
    runtime = MemoryRuntime(count=2)
    runtime.maps_host_memory = True
    gpu = CudaPythonDevice(runtime)
    assert gpu.gpu == 0
    ours, managed, mapped = gpu.allocate(16), gpu.allocate(16), gpu.pin(16, mapped=True)
    runtime.managed.add(managed)
    runtime.cudaSetDevice(1)
    theirs = CudaPythonDevice(runtime).allocate(16)
    found = [gpu.find_gpu(address) for address in (ours, ours + 15, theirs, managed, gpu.find_address(mapped))]
    assert found == [0, 0, 1, None, None]
    with pytest.raises(EngineError, match=r"^CUDA knows no memory at 0x7$"):
        gpu.find_gpu(7)
    assert PyCudaDevice(MemoryPycuda(runtime)).find_gpu(7) is None  # pycuda cannot tell


def test_captured_work_runs_when_its_graph_is_launched_and_not_before():
    runtime = MemoryRuntime()
    gpu, done = CudaPythonDevice(runtime), []

    def work() -> bool:
        runtime.streams[gpu.stream].put(lambda: done.append(1))
        return True

    graph = gpu.capture(work)
    gpu.synchronize()
    assert not done
    graph.launch()
    graph.launch()
    gpu.synchronize()
    assert done == [1, 1]
    graph.discard()
    gpu.close()
    assert not runtime.leaked


@pytest.mark.parametrize("why", ["the work fails", "the work breaks the capture", "the driver does not capture"])
def test_a_failed_capture_gives_no_graph_and_leaks_nothing(why):
    runtime = MemoryRuntime()
    runtime.captures_at_all = why != "the driver does not capture"
    gpu = CudaPythonDevice(runtime)

    def work() -> bool:
        if why == "the work breaks the capture":
            runtime.cudaMalloc(16)
        return why != "the work fails"

    assert gpu.capture(work) is None
    gpu.synchronize()
    gpu.close()
    assert not runtime.leaked


def test_pycuda_captures_nothing():
    assert PyCudaDevice(MemoryPycuda(MemoryRuntime())).capture(lambda: True) is None


def test_pycuda_gives_the_primary_context_back_and_leaves_no_other_current():
    driver = MemoryPycuda(MemoryRuntime())
    gpu = PyCudaDevice(driver)
    with gpu.active():
        assert len(driver.stack) == 1
    gpu.close()
    assert (driver.stack, driver.retained) == ([], 0)


def test_without_a_gpu_both_packages_give_an_error(monkeypatch):
    monkeypatch.setattr("glama_deploy.runtime.cuda.cuda_python.find_driver_version", lambda: None)
    runtime = MemoryRuntime(count=0)
    with pytest.raises(EngineError, match=r"^no NVIDIA driver or GPU here \(CUDA driver version is insufficient"):
        CudaPythonDevice(runtime)
    with pytest.raises(EngineError, match=r"^no NVIDIA driver or GPU here \(pycuda counts none\)$"):
        PyCudaDevice(MemoryPycuda(runtime))


@pytest.mark.parametrize(
    ("driver", "supports", "remedy"),
    [
        ((12, 6), "12.6", "pip install 'cuda-python==12.6.*'"),  # JetPack 6
        ((12, 2), "12.2", "pip install 'cuda-python==12.6.*'"),
        ((12, 9), "12.9", "pip install 'cuda-python==12.9.*'"),
        ((11, 4), "11.4", "update the driver to one of CUDA 12 or newer"),
    ],
)
def test_a_driver_that_is_too_old_for_cuda_python_is_not_a_missing_one(monkeypatch, driver, supports, remedy):
    """CUDA reports both as error 35."""
    monkeypatch.setattr("glama_deploy.runtime.cuda.cuda_python.find_driver_version", lambda: driver)
    monkeypatch.setattr("glama_deploy.runtime.cuda.cuda_python.version", lambda name: "13.4.4")
    says = f"the NVIDIA driver supports CUDA {supports} and is too old for the installed cuda-python 13.4.4; {remedy}"
    with pytest.raises(EngineError, match=f"^{re.escape(says)}$"):
        CudaPythonDevice(MemoryRuntime(count=0))


class Driver:
    """`libcuda.so.1`: only the functions that give its CUDA version and the names of GPUs."""

    def __init__(self, version: int, count: int = 0, statuses: tuple[int, int] = (0, 0)) -> None:
        self._version, self._count, self._statuses = version, count, statuses

    def cuInit(self, flags: int) -> int:
        return self._statuses[0]

    def cuDeviceGetCount(self, count) -> int:
        count._obj.value = self._count
        return self._statuses[1]

    def cuDeviceGet(self, device, number: int) -> int:
        device._obj.value = number + 10
        return 0

    def cuDeviceGetName(self, name, size: int, device) -> int:
        name.value = f"GPU number {device.value - 10}".encode()
        return 0

    def cuDriverGetVersion(self, version) -> int:
        version._obj.value = self._version
        return 0


@pytest.mark.parametrize(("number", "version"), [(12060, (12, 6)), (13000, (13, 0)), (0, None)])
def test_the_driver_says_its_cuda_version_as_one_number(monkeypatch, number, version):
    monkeypatch.setattr("glama_deploy.runtime.cuda.driver.ctypes.CDLL", lambda name: Driver(number))
    assert find_driver_version() == version


@pytest.mark.parametrize(
    ("statuses", "count", "found"),
    [((0, 0), 2, ("GPU number 0", "GPU number 1")), ((0, 0), 0, ()), ((100, 0), 2, ()), ((0, 3), 2, ())],
)
def test_the_driver_lists_the_gpus_of_this_process(monkeypatch, statuses, count, found):
    monkeypatch.setattr(
        "glama_deploy.runtime.cuda.driver.ctypes.CDLL", lambda name: Driver(13000, count=count, statuses=statuses)
    )
    assert list_gpus() == found


@pytest.mark.parametrize(
    ("there", "chosen"),
    [
        ({"cuda", "pycuda"}, "CudaPythonDevice"),
        ({"cuda"}, "CudaPythonDevice"),
        ({"pycuda"}, "PyCudaDevice"),
        (set(), None),
    ],
)
def test_cuda_python_comes_before_pycuda_and_both_are_named_where_neither_is(monkeypatch, there, chosen):
    monkeypatch.setattr("glama_deploy.runtime.cuda.device.installed", lambda package: package.split(".")[0] in there)
    monkeypatch.setattr("glama_deploy.runtime.cuda.device.CudaPythonDevice", lambda index: "CudaPythonDevice")
    monkeypatch.setattr("glama_deploy.runtime.cuda.device.PyCudaDevice", lambda index: "PyCudaDevice")
    if chosen:
        assert open_device() == chosen
    else:
        with pytest.raises(EngineError, match=r"pip install cuda-python \(on JetPack 6: pip install 'cuda-p"):
            open_device()


NO_GPU = EngineError("no NVIDIA driver or GPU here (no CUDA-capable device is detected)")
INSUFFICIENT = EngineError(
    "no NVIDIA driver or GPU here (CUDA driver version is insufficient for CUDA runtime version)"
)


def failing(error: EngineError):
    def make(index: int | None) -> None:
        raise error

    return make


def test_where_cuda_python_does_not_fit_the_driver_pycuda_is_taken(monkeypatch):
    monkeypatch.setattr("glama_deploy.runtime.cuda.device.installed", lambda package: True)
    monkeypatch.setattr("glama_deploy.runtime.cuda.device.CudaPythonDevice", failing(NO_GPU))
    monkeypatch.setattr("glama_deploy.runtime.cuda.device.PyCudaDevice", lambda index: "PyCudaDevice")
    assert open_device() == "PyCudaDevice"


@pytest.mark.parametrize("there", [{"cuda.bindings.runtime"}, {"cuda.bindings.runtime", "pycuda.driver"}])
def test_without_a_driver_the_line_asks_for_no_newer_one(monkeypatch, there):
    monkeypatch.setattr("glama_deploy.runtime.cuda.device.installed", there.__contains__)
    monkeypatch.setattr("glama_deploy.runtime.cuda.device.has_driver", lambda: False)
    monkeypatch.setattr("glama_deploy.runtime.cuda.device.CudaPythonDevice", failing(INSUFFICIENT))
    monkeypatch.setattr("glama_deploy.runtime.cuda.device.PyCudaDevice", failing(EngineError("libcuda.so.1: no file")))
    with pytest.raises(EngineError, match=r"^no NVIDIA driver here; run this on the machine with the GPU$"):
        open_device()


def test_when_both_packages_fail_one_line_has_both_reasons(monkeypatch):
    monkeypatch.setattr("glama_deploy.runtime.cuda.device.has_driver", lambda: True)
    there = {"cuda.bindings.runtime", "pycuda.driver"}
    monkeypatch.setattr("glama_deploy.runtime.cuda.device.installed", there.__contains__)
    monkeypatch.setattr("glama_deploy.runtime.cuda.device.CudaPythonDevice", failing(NO_GPU))
    monkeypatch.setattr("glama_deploy.runtime.cuda.device.PyCudaDevice", failing(EngineError("pycuda counts none")))
    with pytest.raises(EngineError, match=r"^cuda-python: no NVIDIA .* is detected\); pycuda: pycuda counts none$"):
        open_device()
    there.remove("pycuda.driver")
    with pytest.raises(EngineError, match=r"^no NVIDIA driver or GPU here [^;]*$"):
        open_device()


def in_another_thread(work) -> list:
    """What `work` gives in a new thread, whose current GPU is the first one."""
    results: list = []
    thread = threading.Thread(target=lambda: results.append(work()))
    thread.start()
    thread.join()
    return results


def test_every_thread_works_on_the_gpu_that_was_current_at_opening_and_keeps_its_own():
    runtime = MemoryRuntime(count=2)
    runtime.cudaSetDevice(1)
    gpu = CudaPythonDevice(runtime)

    def work() -> tuple[int, int, int]:
        with gpu.active():
            address = gpu.allocate(16)
            gpu.wait_for(1)
            during = runtime.cudaGetDevice()[1]
        return runtime.gpus[address], during, runtime.cudaGetDevice()[1]

    assert in_another_thread(work) == [(1, 1, 0)]
    assert runtime.cudaGetDevice()[1] == 1


def test_a_thread_keeps_its_gpu_where_the_work_fails():
    runtime = MemoryRuntime(room=16, count=2)
    gpu = CudaPythonDevice(runtime)
    runtime.cudaSetDevice(1)
    with pytest.raises(OutOfMemory), gpu.active():
        gpu.allocate(32)
    assert runtime.cudaGetDevice()[1] == 1


def test_the_memory_driver_has_the_real_bindings_functions_and_values():
    """So that what passes over memory asks for nothing that cuda-python has not."""
    real = pytest.importorskip("cuda.bindings.runtime", reason="cuda-python is not installed")
    functions = [name for name in vars(MemoryRuntime) if re.fullmatch(r"cuda[A-Z]\w+", name)]
    assert len(functions) > 25
    for name in functions:
        ours, theirs = getattr(MemoryRuntime, name), getattr(real, name)
        if isinstance(ours, int):
            assert ours == theirs, name
        elif isinstance(ours, type):
            assert {member.name: member.value for member in ours}.items() <= {
                member: value.value for member, value in theirs.__members__.items()
            }.items()
        else:
            parameters = re.search(r"\((.*?)\)", theirs.__doc__.splitlines()[0]).group(1)
            assert len(list(filter(None, parameters.split(",")))) == ours.__code__.co_argcount - 1, name


def test_neither_package_is_imported_with_the_runner():
    importlib.import_module("glama_deploy.runtime.tensorrt.runner")
    assert "pycuda" not in sys.modules
