"""The FFT plugins without a GPU: everything but cuFFT itself and the launch of one kernel is really executed.

In their place stand functions of the same names that run numpy on addresses in memory, and a module that is called
`tensorrt` and asks of a plugin what TensorRT's Python binding asks. What they hide, the tests marked `gpu` show.
"""

from __future__ import annotations

import ctypes
import gc
import shutil
import subprocess
import sys
from dataclasses import replace
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from glama_deploy.errors import EngineError
from glama_deploy.runtime.tensorrt.plugins import cpu_reference as reference
from glama_deploy.runtime.tensorrt.plugins import cufft, fft, hermitian, transforms
from glama_deploy.runtime.tensorrt.plugins import registration as tensorrt
from glama_deploy.runtime.tensorrt.plugins.fft import Size

STREAM = 77

#: Odd, even, prime and tiny sides.
sides = st.sampled_from([1, 2, 3, 4, 5, 7, 8, 12, 13, 16, 17, 31])
shapes = st.tuples(st.integers(1, 3), st.integers(1, 5), sides, sides)


def spectrum_like(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """What a network makes of a spectrum: float32 [B, C, H, F, 2] that is no real array's."""
    values = np.random.default_rng(seed).normal(size=fft.rfft2_shape(shape)).astype(np.float32)
    return np.maximum(values, -0.2)


def real_array(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def close(actual: np.ndarray, expected: np.ndarray) -> None:
    """Equal up to float32: 24 bits, a few of them lost in sums of up to some hundred terms."""
    np.testing.assert_allclose(actual, expected, rtol=0, atol=4e-6 * max(1.0, float(np.abs(expected).max())))


# the nodes


@given(shapes)
def test_shapes_are_numpys(shape):
    spectrum = fft.rfft2_shape(shape)
    assert spectrum == (*np.fft.rfft2(np.zeros(shape)).shape, 2)
    assert fft.irfft2_shape(spectrum, shape) == shape
    size = fft.irfft2_size(spectrum, shape)
    assert size == fft.rfft2_size(shape) == Size(shape[0] * shape[1], *shape[2:])
    assert size.batch * size.real_bytes == 4 * np.prod(shape)
    assert size.batch * size.spectrum_bytes == 4 * np.prod(spectrum)


def test_a_half_spectrum_does_not_say_its_width_but_like_does():
    assert fft.rfft2_shape((1, 2, 6, 8)) == fft.rfft2_shape((1, 2, 6, 9)) == (1, 2, 6, 5, 2)
    assert fft.irfft2_shape((1, 2, 6, 5, 2), (1, 2, 6, 9)) == (1, 2, 6, 9)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((2, 6, 8),), "RFFT2: an input of 4 axes"),
        (((1, 2, 6, 5), (1, 2, 6, 8)), "IRFFT2: an input of 5 axes"),
        (((1, 2, 6, 5, 2), (1, 2, 6, 10)), r"no spectrum of \[1, 2, 6, 10\]; \[1, 2, 6, 6, 2\] is"),
        (((1, 2, 6, 5, 3), (1, 2, 6, 8)), "no spectrum"),
        (((1, 3, 6, 5, 2), (1, 2, 6, 8)), "no spectrum"),
    ],
)
def test_wrong_shapes_are_refused(shapes, message):
    with pytest.raises(ValueError, match=message):
        fft.rfft2_shape(*shapes) if len(shapes) == 1 else fft.irfft2_shape(*shapes)


@given(shapes)
def test_the_reference_is_torchs_unnormalised_transform(shape):
    x = real_array(shape)
    expected = torch.view_as_real(torch.fft.rfft2(torch.from_numpy(x), norm="backward"))
    close(fft.rfft2(x), expected.numpy())
    z = spectrum_like(shape)
    back = torch.fft.irfft2(torch.view_as_complex(torch.from_numpy(z)), s=shape[2:], norm="forward")
    close(fft.irfft2(z, x), back.numpy())
    assert fft.rfft2(x).dtype == fft.irfft2(z, x).dtype == np.float32


@given(shapes)
def test_there_and_back_is_the_array_times_its_number_of_values(shape):
    x = real_array(shape)
    close(fft.irfft2(fft.rfft2(x), x), x * (shape[2] * shape[3]))


# the copy that cuFFT may consume


def hermitian_copy(z: np.ndarray, width: int) -> np.ndarray:
    """What the kernel computes, in numpy: complex64 [N, H, F] → the same, of a real array."""
    mirrored = np.conj(np.roll(z[:, ::-1], 1, axis=1))
    columns = [f for f in range(z.shape[2]) if 2 * f % width == 0]
    result = z.copy()
    result[:, :, columns] = (z + mirrored)[:, :, columns] / 2
    return result


@given(shapes)
def test_the_hermitian_part_is_all_that_numpys_inverse_reads(shape):
    z = spectrum_like(shape).reshape(-1, *fft.rfft2_shape(shape)[2:]).view(np.complex64)[..., 0]
    part = hermitian_copy(z, shape[3])
    for given_, made in ((z, part), (part, part)):
        expected = np.fft.irfft2(given_, shape[2:], norm="forward")
        close(np.fft.irfft2(made, shape[2:], norm="forward"), expected)
    # and it is a real array's spectrum: forward of its inverse is itself
    close(np.abs(np.fft.rfft2(np.fft.irfft2(part, shape[2:])) - part), np.zeros(part.shape))


@pytest.fixture(scope="session")
def kernel_on_cpu(tmp_path_factory) -> Any:
    """The kernel's own source, compiled for this CPU: one block after the other, one thread each."""
    compiler = shutil.which("c++") or shutil.which("g++")
    if not compiler:
        pytest.skip("no C++ compiler here")
    folder = tmp_path_factory.mktemp("kernel")
    (folder / "kernel.cpp").write_text(
        "struct float2 { float x, y; };\nstruct { int x; } blockIdx, threadIdx, blockDim = {1};\n#define __global__\n"
        + hermitian.SOURCE
        + 'extern "C" void launch(int blocks, float2* target, const float2* source, int height, int half, int width)\n'
        "{ for (int& b = blockIdx.x = 0; b < blocks; b++) hermitian_copy(target, source, height, half, width); }"
    )
    library = folder / "kernel.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, folder / "kernel.cpp"], check=True)
    return ctypes.CDLL(str(library)).launch


@settings(deadline=None)
@given(shape=shapes)
def test_the_kernel_makes_a_spectrum_hermitian(kernel_on_cpu, shape):
    z = spectrum_like(shape)
    size, target = fft.rfft2_size(shape), np.full_like(z, np.nan)
    pointers = (ctypes.c_void_p(target.ctypes.data), ctypes.c_void_p(z.ctypes.data))
    kernel_on_cpu(size.batch * size.height, *pointers, size.height, size.half, size.width)
    folded = z.reshape(size.batch, size.height, size.half, 2).view(np.complex64)[..., 0]
    copied = target.reshape(*folded.shape, 2).view(np.complex64)[..., 0]
    np.testing.assert_array_equal(copied, hermitian_copy(folded, size.width))  # halves of sums: the same floats


@pytest.mark.parametrize("architecture", ["sm_75", "sm_87", "sm_90"])  # Turing, Orin, Hopper
def test_the_kernel_compiles_without_a_gpu(architecture):
    pytest.importorskip("cuda.bindings.nvrtc")
    assert hermitian.compiled(architecture).startswith(b"\x7fELF")


def test_an_architecture_that_the_compiler_does_not_know_is_one_line():
    pytest.importorskip("cuda.bindings.nvrtc")
    with pytest.raises(EngineError, match="NVRTC_ERROR_INVALID_OPTION"):
        hermitian.compiled("sm_1")


# cuFFT, the real library


@pytest.fixture(scope="module")
def real_cufft() -> cufft.Cufft:
    try:
        return cufft.load()
    except EngineError as error:
        pytest.skip(str(error))


def test_the_library_loads_and_has_every_function_that_is_called(real_cufft):
    assert real_cufft.version() >= 10_000


@pytest.mark.without_gpu
def test_a_plan_without_a_driver_is_one_clear_line(real_cufft):
    with pytest.raises(
        EngineError, match=r"^cufftCreate of .*libcufft.* failed with status \d: .*no NVIDIA driver[^\n]*$"
    ):
        cufft.Plan(real_cufft, "R2C", Size(2, 8, 8))


@pytest.mark.without_gpu
def test_the_copy_without_a_driver_is_one_clear_line():
    pytest.importorskip("cuda.bindings.runtime")
    with pytest.raises(EngineError, match="cudaError"):
        hermitian.HermitianCopy().prepare()


def test_no_library_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr(cufft, "_candidates", lambda: ["libcufft-that-is-not-there.so"])
    with pytest.raises(EngineError, match=r"cuFFT is not installed; install the CUDA toolkit .* --fft matmul"):
        cufft.load()
    broken = tmp_path / "libcufft.so"
    broken.write_bytes(b"not a library")
    monkeypatch.setattr(cufft, "_candidates", lambda: [str(broken)])
    with pytest.raises(EngineError, match="does not load"):
        cufft.load()


def test_a_library_without_the_functions_is_named():
    with pytest.raises(EngineError, match=r"old\.so has no cufftGetVersion"):
        cufft.Cufft(SimpleNamespace(), "old.so")


# cuFFT over memory


def floats(address: int, count: int) -> np.ndarray:
    """The floats at an address, to read and write."""
    return np.ctypeslib.as_array((ctypes.c_float * count).from_address(address))


class MemoryCufft:
    """cuFFT's functions over addresses in memory. Its inverse does what cuFFT's does to whoever is careless: it takes
    the input's symmetry for granted, and leaves rubbish in it."""

    def __init__(self, work_per_array: int = 64, fails: dict[str, int] | None = None) -> None:
        self.work_per_array, self.fails = work_per_array, fails or {}
        self.plans: dict[int, SimpleNamespace] = {}
        self.made: list[tuple[str, Size]] = []
        names = [name for name in vars(MemoryCufft) if name.startswith("cufft")]
        self.functions = SimpleNamespace(**{name: self._function(name) for name in names})

    def _function(self, name: str) -> Any:
        def function(*arguments: Any) -> int:
            if name not in self.fails:
                getattr(self, name)(*arguments)
            return self.fails.get(name, 0)

        return function

    def cufftGetVersion(self, version: Any) -> None:
        version._obj.value = 11000

    def cufftCreate(self, handle: Any) -> None:
        handle._obj.value = len(self.made) + 1
        self.plans[len(self.made) + 1] = SimpleNamespace(automatic=True)

    def cufftSetAutoAllocation(self, handle: int, automatic: int) -> None:
        self.plans[handle].automatic = bool(automatic)

    def cufftMakePlanMany64(self, handle, rank, sides, *rest) -> None:
        inembed, istride, idist, onembed, ostride, odist, kind, batch, work = rest
        plan, size = self.plans[handle], Size(batch, *sides)
        real, half = [size.height, size.width], [size.height, size.half]
        assert rank == 2
        assert not plan.automatic
        assert (istride, ostride) == (1, 1)
        forward = kind == 0x2A
        assert kind in (0x2A, 0x2C)
        assert [list(inembed), list(onembed)] == ([real, half] if forward else [half, real])
        assert [idist, odist] == [np.prod(list(inembed)), np.prod(list(onembed))]
        self.made.append(("R2C" if forward else "C2R", size))
        plan.size, plan.work_bytes, plan.kind = size, batch * self.work_per_array, self.made[-1][0]
        work._obj.value = plan.work_bytes

    def cufftSetStream(self, handle: int, stream: int) -> None:
        self.plans[handle].stream = stream

    def cufftSetWorkArea(self, handle: int, work: int) -> None:
        self.plans[handle].work = work

    def cufftExecR2C(self, handle: int, source: int, target: int) -> None:
        x, z = self._arrays(handle, "R2C", source, target)
        z[:] = fft.rfft2(x[None])[0]

    def cufftExecC2R(self, handle: int, source: int, target: int) -> None:
        x, z = self._arrays(handle, "C2R", target, source)
        x[:] = trusting_inverse(z[..., 0] + 1j * z[..., 1], x.shape[2])
        z[:] = np.nan

    def cufftDestroy(self, handle: int) -> None:
        del self.plans[handle]

    def _arrays(self, handle: int, kind: str, real: int, spectrum: int) -> tuple[np.ndarray, np.ndarray]:
        plan = self.plans[handle]
        assert plan.kind == kind
        assert plan.stream == STREAM
        assert real % 8 == spectrum % 8 == 0, "cuFFT wants both aligned to a complex value"
        assert plan.work % 256 == 0
        floats(plan.work, plan.work_bytes // 4)[:] = np.nan
        size = plan.size
        x = floats(real, size.batch * size.height * size.width).reshape(size.batch, size.height, size.width)
        z = floats(spectrum, size.batch * size.height * size.half * 2)
        return x, z.reshape(size.batch, size.height, size.half, 2)


def trusting_inverse(z: np.ndarray, width: int) -> np.ndarray:
    """The inverse of [N, H, F] that reads the missing half of the spectrum, and the lower half of the first and last
    column, off the rest by symmetry, as a two-dimensional complex-to-real transform may."""
    n, height, _ = z.shape
    full = np.zeros((n, height, width), complex)
    for f in range(width):
        for h in range(height):
            mirrored = width - f if 2 * f > width else f
            trusted = 2 * f < width and f > 0
            if 2 * f > width or (not trusted and 2 * h > height):
                full[:, h, f] = np.conj(z[:, -h % height, mirrored])
            else:
                full[:, h, f] = z[:, h, f]
    return np.fft.ifft2(full, norm="forward").real


class MemoryCopy:
    """The kernel over addresses in memory."""

    device = 0

    def prepare(self) -> int:
        return self.device

    def run(self, device: int, source: int, target: int, size: Size, stream: int) -> None:
        assert (device, stream) == (self.device, STREAM)
        count, shape = size.batch * size.spectrum_bytes // 4, (size.batch, size.height, size.half)
        z = floats(source, count).view(np.complex64).reshape(shape)
        floats(target, count).view(np.complex64).reshape(shape)[:] = hermitian_copy(z, size.width)


def over_memory(library: MemoryCufft) -> transforms.Transforms:
    return transforms.Transforms(cufft.Cufft(library.functions, "memory"), MemoryCopy())


class Buffer:
    """Memory at an address that is a multiple of 256, with a guard on both sides that must stay as it is."""

    def __init__(self, size: int, contents: np.ndarray | None = None) -> None:
        self._memory = np.full(size + 1024, 0xA5, np.uint8)
        self._start = 256 + -(self._memory.ctypes.data) % 256
        self.size, self.address = size, self._memory.ctypes.data + self._start
        if contents is not None:
            self.array(contents.shape)[:] = contents

    def array(self, shape: tuple[int, ...]) -> np.ndarray:
        assert self.size == 4 * np.prod(shape)
        return self._memory[self._start : self._start + self.size].view(np.float32).reshape(shape)

    def assert_guards(self) -> None:
        assert (self._memory[: self._start] == 0xA5).all()
        assert (self._memory[self._start + self.size :] == 0xA5).all()


def test_the_trusting_inverse_is_right_for_real_arrays_only():
    x = real_array((3, 6, 8)).astype(np.float64)
    np.testing.assert_allclose(trusting_inverse(np.fft.rfft2(x), 8), x * 48, atol=1e-12)  # float64 rounding
    z = spectrum_like((1, 3, 6, 8))[0].view(np.complex64)[..., 0]
    assert np.abs(trusting_inverse(z, 8) - np.fft.irfft2(z, (6, 8), norm="forward")).max() > 1


@given(shape=shapes, work=st.sampled_from([0, 64, 200_000, 600_000]))
@settings(deadline=None)
def test_a_size_that_wants_much_work_runs_in_parts(shape, work):
    library = MemoryCufft(work_per_array=work)
    size, x, z = fft.rfft2_size(shape), real_array(shape), spectrum_like(shape)
    for forward, source, expected in ((True, x, fft.rfft2(x)), (False, z, fft.irfft2(z, x))):
        shared = over_memory(library)
        room = transforms.work_bytes(size)
        if work * min(size.batch, 2) > room:
            with pytest.raises(EngineError, match="larger work area"):
                (shared.forward if forward else shared.inverse)(size)
            continue
        transform = (shared.forward if forward else shared.inverse)(size)
        workspace = Buffer((transforms.forward_workspace if forward else transforms.inverse_workspace)(size))
        given_, target = Buffer(source.nbytes, source), Buffer(expected.nbytes)
        transform.run(given_.address, target.address, workspace.address, STREAM)
        close(target.array(expected.shape), expected)
        np.testing.assert_array_equal(given_.array(source.shape), source)  # not written
        for buffer in (given_, target, workspace):
            buffer.assert_guards()


def test_parts_are_even_and_cover_every_array_once():
    size = Size(batch=15, height=3, width=5)  # 60 bytes an array: odd starts would be unaligned
    room = transforms.work_bytes(size)
    library = MemoryCufft(work_per_array=room // 5 // 4 * 4)  # five arrays fit
    transform = over_memory(library).forward(size)
    assert [start for start, _ in transform._parts] == [0, 4, 8, 12]
    assert [made.batch for _, made in library.made] == [15, 8, 7, 4, 3]


@given(st.tuples(st.integers(1, 40), sides, sides), st.tuples(st.integers(0, 5), st.integers(0, 9), st.integers(0, 9)))
def test_the_workspace_of_a_size_is_enough_for_every_smaller_one(small, more):
    larger = Size(*(a + b for a, b in zip(small, more, strict=True)))
    for workspace in (transforms.forward_workspace, transforms.inverse_workspace):
        assert workspace(Size(*small)) <= workspace(larger)
        assert workspace(larger) % 256 == 0


def test_nodes_of_one_size_share_a_plan_that_goes_with_the_last_of_them():
    library = MemoryCufft()
    shared = over_memory(library)
    size = Size(4, 8, 8)
    nodes = [shared.forward(size) for _ in range(36)] + [shared.inverse(size) for _ in range(36)]
    assert [kind for kind, _ in library.made] == ["R2C", "C2R"]
    for side in range(9, 9 + transforms._KEPT):
        shared.forward(replace(size, width=side))
    assert {1, 2} <= library.plans.keys()  # forgotten by the cache, in use by the nodes
    del nodes
    gc.collect()
    assert not {1, 2} & library.plans.keys()
    assert len(library.plans) == transforms._KEPT
    del shared
    gc.collect()
    assert not library.plans


def test_plans_of_two_gpus_are_not_mixed_up():
    library = MemoryCufft()
    shared = over_memory(library)
    shared.forward(Size(1, 4, 4))
    shared._copy.device = 1
    shared.forward(Size(1, 4, 4))
    assert len(library.made) == 2


@pytest.mark.parametrize(
    ("function", "status", "words"),
    [
        ("cufftCreate", 7, "no NVIDIA driver"),
        ("cufftMakePlanMany64", 2, "out of GPU memory"),
        ("cufftMakePlanMany64", 8, "unsupported size"),
        ("cufftMakePlanMany64", 99, "unknown here"),
        ("cufftSetStream", 1, "invalid plan"),
        ("cufftSetWorkArea", 13, "no work area"),
        ("cufftExecR2C", 6, "execution failed"),
    ],
)
def test_every_status_is_checked_and_worded(function, status, words):
    library = MemoryCufft(fails={function: status})
    with pytest.raises(EngineError, match=f"^{function} of memory failed with status {status}: .*{words}"):
        over_memory(library).forward(Size(1, 4, 4)).run(0, 0, 0, STREAM)
    gc.collect()
    assert not library.plans, "a plan that was not finished is destroyed too"


# the plugins, under a module with TensorRT's contract


def fake_tensorrt(name: str = "tensorrt", version: str = "10.7.0") -> Any:
    """A module with what of TensorRT the plugins touch: its base classes insist on being initialised, as the binding's
    do, and its registry hands out creators by name, version and namespace."""

    def base(title: str) -> type:
        def init(self: Any) -> None:
            self.__dict__.setdefault("initialised", set()).add(title)

        return type(title, (), {"__init__": init})

    titles = ["IPluginV3", "IPluginV3OneCore", "IPluginV3OneBuild", "IPluginV3OneRuntime", "IPluginCreatorV3One"]
    bases = {title: base(title) for title in titles}
    trt: Any = ModuleType(name)
    vars(trt).update(bases, __version__=version)
    trt.DataType = SimpleNamespace(FLOAT="float", HALF="half", INT8="int8")
    trt.TensorFormat = SimpleNamespace(LINEAR="linear", HWC="hwc", CHW4="chw4")
    trt.DimensionOperation = SimpleNamespace(SUM=lambda a, b: a + b, FLOOR_DIV=lambda a, b: a // b)
    trt.DimsExprs = trt.PluginFieldCollection = list
    trt.INetworkDefinition = type("INetworkDefinition", (), {"add_plugin_v3": None})
    trt.TensorRTPhase = SimpleNamespace(BUILD=0, RUNTIME=1)
    registry = Registry()
    trt.get_plugin_registry = lambda: registry
    return trt


class Registry:
    def __init__(self) -> None:
        self.creators: dict[tuple[str, str, str], Any] = {}
        self.refuses = False

    def get_creator(self, type: str, version: str, plugin_namespace: str = "") -> Any:
        return self.creators.get((type, version, plugin_namespace))

    def register_creator(self, creator: Any, plugin_namespace: str = "") -> bool:
        key = (creator.name, creator.plugin_version, plugin_namespace)
        if self.refuses or key in self.creators:
            return False
        assert creator.initialised == {"IPluginCreatorV3One"}
        assert creator.plugin_namespace == plugin_namespace
        assert creator.field_names == []
        self.creators[key] = creator
        return True


class Expressions:
    """TensorRT's IExprBuilder; expressions are numbers here."""

    def constant(self, value: int) -> int:
        return value

    def operation(self, operation: Any, first: int, second: int) -> int:
        return operation(first, second)


class Engine:
    """One node's life in TensorRT: built for a profile, run by two contexts."""

    capabilities: ClassVar = {"IPluginV3", "IPluginV3OneCore", "IPluginV3OneBuild", "IPluginV3OneRuntime"}

    def __init__(self, trt: Any, node: str, largest: list[tuple[int, ...]]) -> None:
        self.trt = trt
        self.creator = trt.get_plugin_registry().get_creator(node, "1", "glama")
        plugin = self.creator.create_plugin("a node", [], trt.TensorRTPhase.BUILD).clone()
        assert plugin.initialised == self.capabilities
        assert (plugin.plugin_name, plugin.plugin_version, plugin.plugin_namespace) == (node, "1", "glama")
        assert plugin.num_outputs == 1
        for capability in range(3):
            assert plugin.get_capability_interface(capability) is plugin
        assert plugin.get_output_data_types([trt.DataType.FLOAT] * len(largest)) == [trt.DataType.FLOAT]
        (output,) = plugin.get_output_shapes([list(shape) for shape in largest], [], Expressions())
        tensors = [SimpleNamespace(desc=self.desc(s), max=s) for s in (*largest, tuple(output))]
        inputs, outputs = tensors[:-1], tensors[-1:]
        assert all(plugin.supports_format_combination(p, tensors, len(inputs)) for p in range(len(tensors)))
        plugin.configure_plugin(inputs, outputs)
        assert plugin.get_valid_tactics() == []
        assert plugin.get_fields_to_serialize() == []
        assert plugin.get_fields_to_serialize() is plugin.get_fields_to_serialize()  # the binding keeps a bare pointer
        self.workspace = plugin.get_workspace_size(inputs, outputs)
        loaded = self.creator.create_plugin("a node", [], trt.TensorRTPhase.RUNTIME)
        self.contexts = [loaded.attach_to_context(None) for _ in range(2)]
        for context in self.contexts:
            assert context is not loaded
            context.set_tactic(0)

    def desc(self, shape: tuple[int, ...]) -> SimpleNamespace:
        return SimpleNamespace(dims=shape, type=self.trt.DataType.FLOAT, format=self.trt.TensorFormat.LINEAR)

    def run(self, context: int, source: np.ndarray, shape: tuple[int, ...], *others: tuple[int, ...]) -> np.ndarray:
        """The node's output of `shape`; of `others` inputs there is only the shape, and no memory to read."""
        inputs = [self.desc(source.shape), *map(self.desc, others)]
        outputs = [self.desc(shape)]
        plugin, workspace = self.contexts[context], Buffer(self.workspace)
        given_, target = Buffer(source.nbytes, source), Buffer(4 * int(np.prod(shape)))
        plugin.on_shape_change(inputs, outputs)
        addresses = [given_.address, *(0 for _ in others)]
        plugin.enqueue(inputs, outputs, addresses, [target.address], workspace.address, STREAM)
        np.testing.assert_array_equal(given_.array(source.shape), source)  # a plugin must not write its inputs
        for buffer in (given_, target, workspace):
            buffer.assert_guards()
        return target.array(shape).copy()


def registered(library: MemoryCufft) -> Any:
    trt = fake_tensorrt()
    tensorrt.register(trt, over_memory(library))
    return trt


@settings(deadline=None)
@given(smaller=st.lists(shapes, min_size=1, max_size=4))
def test_the_plugins_compute_the_nodes_for_every_size_of_a_profile(smaller):
    largest = tuple(np.max(smaller, axis=0).tolist())
    trt = registered(MemoryCufft(work_per_array=256))
    forward = Engine(trt, "RFFT2", [largest])
    inverse = Engine(trt, "IRFFT2", [fft.rfft2_shape(largest), largest])
    for turn, shape in enumerate([*smaller, largest, smaller[0]]):
        x, z = real_array(shape), spectrum_like(shape)
        close(forward.run(turn % 2, x, fft.rfft2_shape(shape)), fft.rfft2(x))
        close(inverse.run(turn % 2, z, shape, shape), fft.irfft2(z, x))


def test_only_the_copys_symmetry_makes_the_inverse_numpys(monkeypatch):
    """Without it the test above would fail: the library over memory is no kinder than cuFFT."""
    monkeypatch.setitem(globals(), "hermitian_copy", lambda z, width: z)
    trt, shape = registered(MemoryCufft()), (1, 2, 6, 8)
    z = spectrum_like(shape)
    out = Engine(trt, "IRFFT2", [z.shape, shape]).run(0, z, shape, shape)
    assert np.abs(out - fft.irfft2(z, np.empty(shape))).max() > 1


def test_planning_happens_before_a_run_and_once_a_size():
    library = MemoryCufft()
    engine = Engine(registered(library), "RFFT2", [(1, 2, 8, 8)])
    plugin, desc = engine.contexts[0], [engine.desc((1, 2, 8, 8))]
    plugin.on_shape_change(desc, [])
    assert len(library.made) == 1
    engine.run(0, real_array((1, 2, 8, 8)), (1, 2, 8, 5, 2))
    engine.run(1, real_array((1, 2, 8, 8)), (1, 2, 8, 5, 2))
    assert len(library.made) == 1


def test_a_destroyed_plugin_holds_no_plan():
    engine = Engine(registered(MemoryCufft()), "RFFT2", [(1, 2, 8, 8)])
    engine.run(0, real_array((1, 2, 8, 8)), (1, 2, 8, 5, 2))
    engine.contexts[0].destroy()
    assert engine.contexts[0]._transform is None


@pytest.mark.parametrize(
    ("type_", "format_"), [("half", "linear"), ("int8", "linear"), ("float", "hwc"), ("half", "chw4")]
)
@pytest.mark.parametrize("pos", [0, 1, 2])
def test_nothing_but_dense_float32_is_taken(type_, format_, pos):
    engine = Engine(registered(MemoryCufft()), "IRFFT2", [(1, 2, 8, 5, 2), (1, 2, 8, 8)])
    good, bad = engine.desc(()), SimpleNamespace(dims=(), type=type_, format=format_)
    tensors = [SimpleNamespace(desc=bad if p == pos else good) for p in range(3)]
    assert [engine.contexts[0].supports_format_combination(p, tensors, 2) for p in range(3)] == [
        p != pos for p in range(3)
    ]


def test_a_node_with_the_wrong_number_of_inputs_has_no_format():
    engine = Engine(registered(MemoryCufft()), "RFFT2", [(1, 2, 8, 8)])
    tensors = [SimpleNamespace(desc=engine.desc(()))] * 3
    assert not engine.contexts[0].supports_format_combination(0, tensors, 2)


def test_symbolic_shapes_are_the_shapes():
    operation = SimpleNamespace(SUM="+", FLOOR_DIV="//")
    builder = SimpleNamespace(constant=str, operation=lambda op, a, b: f"({a} {op} {b})")
    assert fft.rfft2_symbols(["b", "c", "h", "w"], builder, operation) == ["b", "c", "h", "((w // 2) + 1)", "2"]
    assert fft.irfft2_symbols(["b", "c", "h", "f", "2"], ["B", "C", "H", "w"]) == ["b", "c", "h", "w"]


def test_no_workspace_is_an_error_and_no_crash():
    engine = Engine(registered(MemoryCufft()), "RFFT2", [(1, 2, 8, 8)])
    with pytest.raises(EngineError, match="RFFT2 no workspace"):
        engine.contexts[0].enqueue([engine.desc((1, 2, 8, 8))], [], [256], [512], 0, STREAM)


def test_inputs_that_do_not_belong_together_are_an_error_and_no_crash():
    engine = Engine(registered(MemoryCufft()), "IRFFT2", [(1, 2, 8, 5, 2), (1, 2, 8, 8)])
    with pytest.raises(ValueError, match="no spectrum"):
        engine.contexts[0].on_shape_change([engine.desc((1, 2, 8, 5, 2)), engine.desc((1, 2, 8, 12))], [])


def test_registering_twice_is_registering_once():
    library = MemoryCufft()
    trt = registered(library)
    before = dict(trt.get_plugin_registry().creators)
    assert [key[0] for key in before] == ["RFFT2", "IRFFT2"]
    tensorrt.register(trt)  # looks for no cuFFT: there is nothing to register
    assert trt.get_plugin_registry().creators == before


@pytest.mark.parametrize(
    ("name", "version", "message"),
    [
        ("tensorrt_rtx", "1.7.1.116", r"^TensorRT-RTX takes no plugins; export with --fft matmul$"),
        ("tensorrt", "8.6.1", r"^TensorRT 8\.6\.1 takes no V3 plugins; install 10 or newer"),
    ],
)
def test_a_module_without_the_plugins_is_refused(name, version, message):
    with pytest.raises(EngineError, match=message):
        tensorrt.register(fake_tensorrt(name, version), over_memory(MemoryCufft()))


def test_a_refused_registration_is_an_error():
    trt = fake_tensorrt()
    trt.get_plugin_registry().refuses = True
    with pytest.raises(EngineError, match=r"TensorRT 10\.7\.0 refused the plugin glama::RFFT2"):
        tensorrt.register(trt, over_memory(MemoryCufft()))


def test_tensorrt_rtx_itself_is_refused():
    with pytest.raises(EngineError, match="takes no plugins"):
        tensorrt.register(pytest.importorskip("tensorrt_rtx"))


def test_the_classes_fit_the_binding():
    """TensorRT-RTX's Python module has TensorRT's plugin classes and registry, though nothing that would run them: the
    calls below go through the binding. In a process of its own, since its parser aborts on a node of a known plugin."""
    pytest.importorskip("tensorrt_rtx")
    code = """
import gc
import tensorrt_rtx as trt
from glama_deploy.runtime.tensorrt.plugins import registration as tensorrt

for node, shapes in ((tensorrt._Forward, [(1, 2, 8, 9)]), (tensorrt._Inverse, [(1, 2, 8, 5, 2), (1, 2, 8, 9)])):
    registry = trt.get_plugin_registry()
    assert registry.get_creator(node.name, "1", "glama") is None
    tensorrt._creators.append(tensorrt._creator(trt, node, None))
    assert registry.register_creator(tensorrt._creators[-1], "glama")
    creator = registry.get_creator(node.name, "1", "glama")
    assert (creator.name, creator.plugin_version, creator.plugin_namespace) == (node.name, "1", "glama")
    assert len(creator.field_names) == 0
    plugin = creator.create_plugin("a node", trt.PluginFieldCollection([]), trt.TensorRTPhase.BUILD)
    for kind in (trt.PluginCapabilityType.CORE, trt.PluginCapabilityType.BUILD, trt.PluginCapabilityType.RUNTIME):
        assert trt.IPluginV3.get_capability_interface(plugin, kind) is plugin  # C++, which asks Python
    core, build = trt.IPluginV3OneCore, trt.IPluginV3OneBuild
    assert (core.plugin_name.fget(plugin), core.plugin_namespace.fget(plugin)) == (node.name, "glama")
    assert (build.num_outputs.fget(plugin), build.timing_cache_id.fget(plugin)) == (1, "")
    tensors = []
    for shape in shapes:
        desc, tensor = trt.PluginTensorDesc(), trt.DynamicPluginTensorDesc()
        desc.dims, desc.type, desc.format = trt.Dims(shape), trt.DataType.FLOAT, trt.TensorFormat.LINEAR
        tensor.desc, tensor.max = desc, trt.Dims(shape)
        tensors.append(tensor)
    assert plugin.supports_format_combination(0, tensors, node.inputs)
    assert plugin.get_workspace_size(tensors, []) == node.workspace(tensorrt.fft.rfft2_size((1, 2, 8, 9)))
    assert node.size(*(tuple(t.desc.dims) for t in tensors)) == tensorrt.fft.Size(2, 8, 9)
    assert type(plugin.clone()) is type(plugin.attach_to_context(None)) is type(plugin)
    del plugin
    gc.collect()
print("fits")
"""
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert child.stdout == "fits\n", child.stderr


def test_importing_the_package_needs_only_numpy():
    code = "import sys, glama_deploy.runtime.tensorrt.plugins; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "glama_deploy.runtime.tensorrt.plugins.transforms" in loaded
    assert not {"torch", "onnx", "polygraphy", "tensorrt", "tensorrt_rtx", "cuda"} & set(loaded)


# whole graphs on a CPU


def own_node(op: str, inputs: list[str], output: str) -> onnx.NodeProto:
    return helper.make_node(
        op, inputs, [output], name=output, domain="glama", plugin_namespace="glama", plugin_version="1"
    )


def fourier_unit(channels: int, height: int, width: int, weight: np.ndarray, bias: np.ndarray) -> onnx.ModelProto:
    """rfft2, a 1×1 convolution with ReLU of the interleaved spectrum, irfft2, both orthonormal, batch free; and the sum
    with the input, as a spectral transform has it."""
    half, root = width // 2 + 1, np.float32(1 / np.sqrt(height * width))
    nodes = [
        own_node("RFFT2", ["x"], "spectrum"),
        helper.make_node("Mul", ["spectrum", "scale"], ["scaled"]),
        helper.make_node("Transpose", ["scaled"], ["parts_first"], perm=[0, 1, 4, 2, 3]),
        helper.make_node("Reshape", ["parts_first", "as_channels"], ["channels"]),
        helper.make_node("Conv", ["channels", "weight", "bias"], ["mixed"]),
        helper.make_node("Relu", ["mixed"], ["positive"]),
        helper.make_node("Reshape", ["positive", "as_parts"], ["parts"]),
        helper.make_node("Transpose", ["parts"], ["parts_last"], perm=[0, 1, 3, 4, 2]),
        own_node("IRFFT2", ["parts_last", "x"], "back"),
        helper.make_node("Mul", ["back", "scale"], ["scaled_back"]),
        helper.make_node("Add", ["x", "scaled_back"], ["y"]),
    ]
    constants = {
        "scale": root,
        "weight": weight,
        "bias": bias,
        "as_channels": np.array([0, 2 * channels, height, half], np.int64),
        "as_parts": np.array([0, channels, 2, height, half], np.int64),
    }
    shape = ["batch", channels, height, width]
    graph = helper.make_graph(
        nodes,
        "fourier_unit",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("glama", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def torch_fourier_unit(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """The same as LaMa writes it."""
    b, c, h, w = x.shape
    z = torch.view_as_real(torch.fft.rfftn(torch.from_numpy(x), dim=(-2, -1), norm="ortho"))
    z = z.permute(0, 1, 4, 2, 3).reshape(b, 2 * c, h, w // 2 + 1)
    z = torch.relu(torch.nn.functional.conv2d(z, torch.from_numpy(weight), torch.from_numpy(bias)))
    z = z.reshape(b, c, 2, h, w // 2 + 1).permute(0, 1, 3, 4, 2).contiguous()
    return x + torch.fft.irfftn(torch.view_as_complex(z), s=(h, w), dim=(-2, -1), norm="ortho").numpy()


def unit_weights(channels: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(channels)
    weight = rng.normal(0, 0.5, (2 * channels, 2 * channels, 1, 1)).astype(np.float32)
    return weight, rng.normal(0, 0.1, 2 * channels).astype(np.float32)


@pytest.mark.parametrize(("batch", "channels", "height", "width"), [(1, 4, 16, 16), (2, 3, 9, 14), (1, 2, 13, 31)])
def test_a_fourier_unit_runs_on_a_cpu_as_in_torch(batch, channels, height, width):
    weights = unit_weights(channels)
    x = real_array((batch, channels, height, width))
    out = reference.run(fourier_unit(channels, height, width, *weights), {"x": x})
    assert out.keys() == {"y"}
    close(out["y"], torch_fourier_unit(x, *weights))


@pytest.mark.slow
def test_the_reference_runs_every_operator_of_the_whole_network(tiny):
    """The matmul graph of the exporter, node by node, against the same graph in one session."""
    import onnxruntime

    from glama_deploy.checkpoints import formats as checkpoint
    from glama_deploy.export.graph.network import build

    source = checkpoint.read(tiny)
    model = build(source.config, source.weights, None, ("inpainted", "predicted"))
    rng = np.random.default_rng(0)
    mask = (rng.random((2, 1, 40, 64)) < 0.3).astype(np.float32)
    feeds = {"image": rng.random((2, 3, 40, 64), np.float32), "mask": mask}
    whole = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    result = reference.run(model, feeds)
    for name, expected in zip(["inpainted", "predicted"], whole.run(None, feeds), strict=True):
        close(result[name], expected)


# on a GPU


class OnDevice:
    """A transform's source, target and workspace on the GPU."""

    def __init__(self, source: np.ndarray, target: np.ndarray, workspace: int) -> None:
        from glama_deploy.runtime.cuda.cuda_python import CudaPythonDevice

        self.cuda, self.source, self.target = CudaPythonDevice(), source, target
        self.addresses = [self.cuda.allocate(size) for size in (source.nbytes, target.nbytes, workspace)]

    def upload(self) -> None:
        self.cuda.upload(self.addresses[0], self.source)
        self.cuda.synchronize()

    def download(self) -> tuple[np.ndarray, np.ndarray]:
        """What is at the target and, afterwards, at the source."""
        result, after = np.empty_like(self.target), np.empty_like(self.source)
        self.cuda.download(result, self.addresses[1])
        self.cuda.download(after, self.addresses[0])
        self.cuda.synchronize()
        return result, after


@pytest.mark.gpu
@pytest.mark.parametrize("shape", [(1, 192, 64, 64), (2, 3, 33, 47), (1, 16, 131, 127), (1, 4, 8, 9), (3, 1, 1, 2)])
@pytest.mark.parametrize("forward", [True, False])
def test_cufft_computes_the_nodes(real_cufft, shape, forward):
    shared, size = transforms.Transforms(real_cufft, hermitian.HermitianCopy()), fft.rfft2_size(shape)
    x, z = real_array(shape), spectrum_like(shape)
    source, expected = (x, fft.rfft2(x)) if forward else (z, fft.irfft2(z, x))
    workspace = (transforms.forward_workspace if forward else transforms.inverse_workspace)(size)
    device = OnDevice(source, expected, workspace)
    transform = (shared.forward if forward else shared.inverse)(size)
    device.upload()
    transform.run(*device.addresses, device.cuda.stream)
    result, after = device.download()
    close(result, expected)
    np.testing.assert_array_equal(after, source)


@pytest.mark.gpu
def test_a_transform_can_be_captured_in_a_graph(real_cufft):
    from cuda.bindings import runtime

    shape = (1, 16, 40, 61)
    size, x = fft.rfft2_size(shape), real_array(shape)
    transform = transforms.Transforms(real_cufft, hermitian.HermitianCopy()).inverse(size)
    device = OnDevice(spectrum_like(shape), x, transforms.inverse_workspace(size))
    stream = device.cuda.stream
    device.upload()
    transform.run(*device.addresses, stream)  # kernels load when they are first launched, which a capture forbids
    device.download()
    assert runtime.cudaStreamBeginCapture(stream, runtime.cudaStreamCaptureMode.cudaStreamCaptureModeGlobal)[0] == 0
    transform.run(*device.addresses, stream)
    status, graph = runtime.cudaStreamEndCapture(stream)
    assert status == 0
    status, replay = runtime.cudaGraphInstantiate(graph, 0)
    assert status == 0
    for seed in (1, 2):
        device.source = spectrum_like(shape, seed)
        device.upload()
        assert runtime.cudaGraphLaunch(replay, stream)[0] == 0
        close(device.download()[0], fft.irfft2(device.source, x))


@pytest.mark.gpu
def test_tensorrt_runs_a_fourier_unit():
    trt = pytest.importorskip("tensorrt", reason="TensorRT is not installed")
    from polygraphy.backend.trt import CreateConfig, Profile, TrtRunner, engine_from_network, network_from_onnx_bytes

    tensorrt.register(trt)
    channels, height, width = 16, 40, 61
    weights = unit_weights(channels)
    model = fourier_unit(channels, height, width, *weights)
    network = network_from_onnx_bytes(model.SerializeToString(), strongly_typed=True)
    profile = Profile().add("x", *((batch, channels, height, width) for batch in (1, 2, 3)))
    with TrtRunner(engine_from_network(network, CreateConfig(profiles=[profile]))) as runner:
        for batch in (1, 3, 2):
            x = real_array((batch, channels, height, width))
            # float32 throughout (Polygraphy leaves TF32 off), the convolution's sums in an order of its own
            np.testing.assert_allclose(runner.infer({"x": x})["y"], torch_fourier_unit(x, *weights), atol=1e-4)
