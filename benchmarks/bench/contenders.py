"""The subjects of `glama-bench`. Each runs in its own process, whenever the parent asks.

Engines then do not share thread pools, and the peak memory of a process belongs to one engine.
"""

from __future__ import annotations

import ctypes
import gc
import io
import multiprocessing
import re
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from glama_deploy import catalogue, memory
from glama_deploy.benchmarks.bench.run_parts import EngineClock, GpuMemory
from glama_deploy.bundle import Bundle
from glama_deploy.errors import GlamaError
from glama_deploy.node_names import IMAGE, MASK
from glama_deploy.runtime.base import installed, require
from glama_deploy.runtime.devices import CPU, parse_device
from glama_deploy.runtime.onnxruntime.provider_records import PROVIDERS
from glama_deploy.system.spawning import outside_current_folder
from glama_deploy.text.excerpts import describe_error

#: The subjects that are measured by default. PyTorch in fp32 in three ways and OpenCV are peers: they run the same
#: network without this project. A suffix names the device (`cuda`) or a precision other than fp32. TensorRT runs on a
#: GPU.
SUBJECTS = (
    "torchscript",
    "torch",
    "torch-compile",
    "opencv",
    "onnxruntime",
    "onnxruntime:int8",
    "openvino",
    "openvino:bf16",
    "openvino:int8",
    "openvino:int8+bf16",
    "torchscript:cuda",
    "torch:cuda",
    "torch:cuda:fp16",
    "torch:cuda:bf16",
    "onnxruntime:cuda",
    "onnxruntime:cuda:fp16",
    "tensorrt",
)

#: Separates a subject from its hole. `openvino@5` fills a square hole of 5 % of the image with `region="auto"`. Without
#: a hole, strokes are missing and the engine sees the whole image.
HOLE_MARK = "@"

#: Runs before the first that counts. TorchScript optimizes its graph in the second run.
WARM_UP_RUNS = 3

#: The subjects that run the checkpoint instead of the bundle (all peers do), with the modules that each needs.
_CHECKPOINT_MODULES = {
    "torchscript": ("torch",),
    "torch": ("torch",),
    "torch-compile": ("torch",),
    "opencv": ("cv2", "onnx"),
}


@dataclass(frozen=True)
class Task:
    """A subject and what it is measured on.

    Args:
        subject: one of :data:`SUBJECTS` or a backend, with or without a hole.
        bundle: folder of the bundle.
        checkpoint: the bundle's checkpoint, for the peers that run checkpoints.
        size: height and width of each image, in pixels.
        batch: number of images in one run.
        threads: number of CPU threads.
        allow_engine_code: see :func:`glama_deploy.load`.
        device: where the engines of this project compute, as `load` takes it; empty: as the subject says.
    """

    subject: str
    bundle: Path
    checkpoint: Path | None
    size: tuple[int, int]
    batch: int
    threads: int
    allow_engine_code: bool = False
    device: str = ""

    @property
    def name(self) -> str:
        """Return the subject without its hole."""
        return self.subject.partition(HOLE_MARK)[0]

    @property
    def engine(self) -> str:
        """Return the engine's name without device and precision."""
        return self.name.partition(":")[0]

    @property
    def precision(self) -> str:
        """Return the precision that the subject names, or fp32."""
        last = self.name.rpartition(":")[2]
        return last if last in catalogue.PRECISIONS else "fp32"

    @property
    def is_on_gpu(self) -> bool:
        """Return whether the subject runs on a GPU."""
        return runs_on_gpu(self.subject, self.device)

    @property
    def hole_share(self) -> float | None:
        """Return the share of the image that one square hole covers, or None where strokes are missing."""
        share = self.subject.partition(HOLE_MARK)[2]
        return float(share) / 100 if share else None


@dataclass(frozen=True)
class Timing:
    """The time of one run.

    Attributes:
        seconds: the seconds of the run.
        parts: the seconds of its parts in the engine, as `run_parts` names them; empty for a peer.
    """

    seconds: float
    parts: dict[str, float]


class Running:
    """A subject in its own process.

    Args:
        task: the subject and what it is measured on.

    Raises:
        GlamaError: The subject does not start; the message has the reason.
    """

    def __init__(self, task: Task) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(task, other), daemon=True)
        with outside_current_folder():
            self._process.start()
        other.close()
        #: Engine, version, device and precision as text; and the precision alone.
        self.description, self.precision = map(str, self._ask(None))

    def time_run(self) -> Timing:
        """Run the subject once.

        Returns:
            The time of the run.
        """
        return Timing(*self._ask("run"))

    def stop(self) -> tuple[int, int | None]:
        """End the process.

        Returns:
            The most memory that the process held, and the GPU memory that it holds, in bytes; None if the latter is not
            known.
        """
        peak, on_gpu = self._ask("stop")
        self._process.join(10)
        return peak, on_gpu

    def _ask(self, command: str | None) -> Any:
        try:
            if command is not None:
                self._pipe.send(command)
            kind, value = self._pipe.recv()
        except (EOFError, OSError) as error:
            self._process.join(10)
            raise GlamaError(
                f"its process ended (exit code {self._process.exitcode}); is there enough memory?"
            ) from error
        if kind == "error":
            raise GlamaError(value)
        return value


def _serve(task: Task, pipe: Connection) -> None:
    """Open the subject in the child process, then run it whenever the parent asks."""
    gpu = _watch_memory(task)
    try:
        opened = _open(task)
        for _ in range(WARM_UP_RUNS):
            opened.run()
    except GlamaError as error:
        pipe.send(("error", str(error)))
        return
    except Exception as error:  # noqa: BLE001 - a peer that cannot run this network is a row that says so
        pipe.send(("error", describe_error(error)))
        return
    opened.take_parts()
    pipe.send(("ready", (opened.description, opened.precision)))
    while pipe.recv() == "run":
        start = time.perf_counter()
        opened.run()
        seconds = time.perf_counter() - start
        pipe.send(("seconds", (seconds, opened.take_parts())))
    pipe.send(("bytes", (read_peak_bytes(), gpu.read_used() if gpu else None)))


def _watch_memory(task: Task) -> GpuMemory | None:
    """Read the free memory of the GPU that a task runs on; None where the task does not run on a GPU through CUDA."""
    place = None if is_peer(task.name) else parse_device(task.device or None)
    provider = PROVIDERS.get(task.name.partition(":")[2])
    kind = place.kind if place else provider.device if provider else "cuda"
    return GpuMemory(place.index if place else None) if task.is_on_gpu and kind == "cuda" else None


def read_peak_bytes() -> int:
    """Read the most memory that this process has held.

    Returns:
        Bytes; 0 where the system does not say.
    """
    try:
        found = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text(encoding="utf-8"))
        return int(found[1]) * 1024 if found else 0
    except OSError:
        return int(getattr(psutil.Process().memory_info(), "peak_wset", 0))  # Windows; macOS has no such figure


def is_peer(subject: str) -> bool:
    """Check whether a subject runs the network without this project.

    Args:
        subject: a subject that :func:`is_subject` accepts.

    Returns:
        True for a peer. PyTorch in a half type is this project's.
    """
    engine, _, kind = subject.partition(HOLE_MARK)[0].partition(":")
    return engine in _CHECKPOINT_MODULES and kind.rpartition(":")[2] not in catalogue.PRECISIONS


def is_subject(text: str) -> bool:
    """Check whether a text names a subject.

    Args:
        text: one of :data:`SUBJECTS` or a backend, with or without a provider. A subject of this project may have a
            hole.

    Returns:
        True for a subject.
    """
    name, at, share = text.partition(HOLE_MARK)
    backends = {each for record in catalogue.backends().values() for each in _list_backends(record)}
    known = name in SUBJECTS or name in backends
    return known and (not at or (not is_peer(name) and share.isdecimal() and len(share) <= 2 and int(share) > 0))


def describe_subjects() -> str:
    """Return what a message expects as a subject.

    Returns:
        All names, with those that a provider or a hole makes.
    """
    providers = [
        f"{record.backend}:PROVIDER with {catalogue.join_names(record.providers)}"
        for record in catalogue.backends().values()
        if record.providers
    ]
    names = ", ".join([*SUBJECTS, *providers])
    return f"{names}, or an engine of this project with {HOLE_MARK}5 behind its name"


def runs_checkpoint(subject: str) -> bool:
    """Check whether a subject runs the checkpoint instead of the bundle.

    Args:
        subject: a subject that :func:`is_subject` accepts.

    Returns:
        True for peers, and for PyTorch in a half type.
    """
    return subject.partition(HOLE_MARK)[0].partition(":")[0] in _CHECKPOINT_MODULES


def list_missing(subject: str) -> list[str]:
    """List the modules that a subject needs and that are not installed.

    Args:
        subject: a subject that :func:`is_subject` accepts.

    Returns:
        The modules' names. An engine with several packages needs one of them.
    """
    engine = subject.partition(HOLE_MARK)[0].partition(":")[0]
    if engine in _CHECKPOINT_MODULES:
        return [module for module in _CHECKPOINT_MODULES[engine] if not installed(module)]
    packages = [record.package for record in catalogue.ENGINES.values() if record.backend == engine]
    return [] if any(map(installed, packages)) else packages[:1]


def runs_on_gpu(subject: str, device: str = "") -> bool:
    """Check whether a subject runs on a GPU, or another device that is not the CPU.

    Args:
        subject: a subject that :func:`is_subject` accepts.
        device: where the engines of this project compute; empty: as the subject says.

    Returns:
        True for a GPU.
    """
    name = subject.partition(HOLE_MARK)[0]
    if device and name.partition(":")[0] in catalogue.backends():
        return device != str(CPU)
    record = catalogue.backends().get(name)
    provider = PROVIDERS.get(name.partition(":")[2])
    is_gpu_provider = provider is not None and provider.device != "cpu"
    return ":cuda" in subject or is_gpu_provider or (record is not None and record.devices == ("cuda",))


def _list_backends(record: catalogue.EngineRecord) -> list[str]:
    """Return the name of an engine's backend, alone and with each provider."""
    return [record.backend, *(f"{record.backend}:{provider}" for provider in record.providers)]


def make_scene(task: Task) -> tuple[np.ndarray, np.ndarray]:
    """Make images of noise and their masks.

    Args:
        task: the size, the batch and the hole.

    Returns:
        Images, uint8 [B, H, W, 3], and masks, bool [B, H, W], of strokes or of the hole.
    """
    from glama_deploy.masks import by_name

    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (task.batch, *task.size, 3), np.uint8)
    if task.hole_share is None:
        return images, np.stack([by_name("MediumStrokes")(*task.size, rng) for _ in range(task.batch)])
    height, width = task.size
    masks = np.zeros((task.batch, height, width), bool)
    missing = task.hole_share * height * width
    high = round(min(height, max(missing**0.5, missing / width)))  # a square, or as long as a narrow image makes it
    wide = round(missing / high)
    top, left = (height - high) // 2, (width - wide) // 2
    masks[:, top : top + high, left : left + wide] = True
    return images, masks


@dataclass(frozen=True)
class _Opened:
    """An open subject.

    Attributes:
        description: engine, version, device and precision, for people.
        precision: what the subject computes in.
        run: a function that runs the subject once.
        take_parts: a function that returns the seconds of the last run by part; a peer has no parts.
    """

    description: str
    precision: str
    run: Callable[[], object]
    take_parts: Callable[[], dict[str, float]] = dict


def _open(task: Task) -> _Opened:
    if task.engine in _CHECKPOINT_MODULES:
        if task.checkpoint is None:
            raise GlamaError("it needs the checkpoint, which a bundle does not hold; give --ckpt")
        if not task.is_on_gpu:
            network, (height, width) = Bundle.open(task.bundle).manifest.network, task.size
            needed = memory.estimate(height, width, network, task.batch)
            memory.check(needed, f"the image is {height}x{width}", "give a smaller --size")  # ours do so themselves
    if not is_peer(task.name):
        return _open_inpainter(task)
    return _forget_preparation(_open_opencv(task) if task.engine == "opencv" else _open_torch(task))


def _forget_preparation(peer: _Opened) -> _Opened:
    """Restart the count of the peak memory after a peer is prepared.

    Tracing a network and writing its graph need memory. This project's engines open a finished file.
    """
    gc.collect()
    with suppress(OSError, AttributeError):  # elsewhere than on Linux there is no such number anyway
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # VmHWM begins anew
    return peer


def _open_inpainter(task: Task) -> _Opened:
    """Open this project's `Inpainter`, with all that it does around the engine.

    Sizes are compiled at once. Otherwise OpenVINO compiles a size after some seconds of inference.
    """
    import glama_deploy

    model, backend, precision = task.bundle, task.name.removesuffix(f":{task.precision}"), task.precision
    if task.engine in _CHECKPOINT_MODULES:
        assert task.checkpoint is not None
        model, backend = task.checkpoint, task.engine
    elif catalogue.backends()[task.engine].is_strongly_typed:  # it has but one precision
        precision = "auto"
    allowed, device = task.allow_engine_code, task.device or None
    inpainter = glama_deploy.load(
        model, backend, precision, task.threads, compile_sizes=True, allow_engine_code=allowed, device=device
    )
    if precision not in ("auto", inpainter.precision):
        here = task.device or "CPU"
        raise GlamaError(f"this {here} has no {precision.rpartition('+')[2]}")
    images, masks = make_scene(task)
    said, clock = inpainter.description, EngineClock(inpainter)
    run: Callable[[], object]
    if task.hole_share is not None:
        said += f", a hole of {task.hole_share:.0%}"
        run = lambda: [inpainter(image, mask) for image, mask in zip(images, masks, strict=True)]  # noqa: E731
    elif task.batch == 1:
        run = lambda: inpainter(images[0], masks[0], region="full")  # noqa: E731
    else:
        run = lambda: inpainter.batch(images, masks)  # noqa: E731
    return _Opened(said, inpainter.precision, run, clock.take_parts)


def _open_torch(task: Task) -> _Opened:
    """Open PyTorch (eager, traced or compiled) on tensors that already lie on the device, in fp32 without TF32."""
    torch = require("torch", "PyTorch", "pip install torch")
    assert task.checkpoint is not None
    if task.is_on_gpu and not torch.cuda.is_available():
        raise GlamaError("PyTorch sees no GPU here")
    torch.backends.cudnn.allow_tf32 = False
    torch.set_num_threads(task.threads)
    device = torch.device("cuda" if task.is_on_gpu else "cpu")
    images, masks = make_scene(task)
    image = torch.from_numpy(images).to(device).permute(0, 3, 1, 2).float() / 255
    mask = torch.from_numpy(masks).to(device)[:, None].float()
    network = compose_network(task.checkpoint).to(device)
    if task.engine == "torchscript":
        file = io.BytesIO(trace_network(network, image, mask))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            network = torch.jit.load(file)
    elif task.engine == "torch-compile":
        network = torch.compile(network)

    def run() -> None:
        with torch.inference_mode():
            network(image, mask)
        if task.is_on_gpu:
            torch.cuda.synchronize()

    way = {"torch": "eager", "torchscript": "TorchScript", "torch-compile": "torch.compile"}[task.engine]
    name = f"PyTorch {torch.__version__.split('+')[0]} {'CUDA ' if task.is_on_gpu else ''}{way} fp32"
    return _Opened(name, "fp32", run)


def compose_network(path: Path) -> Any:
    """Build a torch module that masks the image, runs the network and composites, as `big-lama.pt` does.

    Args:
        path: a checkpoint.

    Returns:
        The module in evaluation mode. It takes image [B, 3, H, W] in 0…1 and mask [B, 1, H, W].
    """
    import torch

    from glama_deploy.checkpoints import formats as checkpoint
    from glama_deploy.reference.generator import inpaint

    class Composed(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.generator = checkpoint.load(path)

        def forward(self, image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            return inpaint(self.generator, image, mask)

    return Composed().eval()


def trace_network(network: Any, image: Any, mask: Any) -> bytes:
    """Trace a module.

    Args:
        network: the module.
        image: float32 [B, 3, H, W] in 0…1.
        mask: float32 [B, 1, H, W], 1 for missing.

    Returns:
        The bytes of the TorchScript file.
    """
    import torch

    file = io.BytesIO()
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(network, (image, mask)), file)
    return file.getvalue()


def _open_opencv(task: Task) -> _Opened:
    """Open OpenCV's DNN module on a graph of this size."""
    cv2 = require("cv2", "OpenCV", "pip install opencv-python-headless")
    require("onnx", "ONNX", "pip install onnx")
    from glama_deploy.checkpoints import formats as checkpoint
    from glama_deploy.export.graph.network import build

    assert task.checkpoint is not None
    read = checkpoint.read(task.checkpoint)
    model = build(read.config, read.weights, task.size).SerializeToString()
    cv2.setNumThreads(task.threads)
    network = cv2.dnn.readNetFromONNX(np.frombuffer(model, np.uint8))
    images, masks = make_scene(task)
    image = np.ascontiguousarray(images.transpose(0, 3, 1, 2), np.float32) / 255
    mask = masks[:, None].astype(np.float32)

    def run() -> None:
        network.setInput(image, IMAGE)
        network.setInput(mask, MASK)
        network.forward()

    return _Opened(f"OpenCV DNN {cv2.__version__} fp32", "fp32", run)
