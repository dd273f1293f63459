"""What `glama-bench` measures: each in a process of its own, which runs when it is told to.

So engines do not share thread pools, and each one's peak memory is its own.
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
from glama_deploy.bundle import Bundle
from glama_deploy.errors import GlamaError
from glama_deploy.node_names import IMAGE, MASK
from glama_deploy.system.spawning import outside_current_folder
from glama_deploy.text.excerpts import first_line

#: PyTorch in three ways and OpenCV are peers: the same network without this project. Each in fp32, or in what stands
#: last behind a colon; on the CPU, or with `cuda` behind one, and TensorRT, on a GPU.
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
    "onnxruntime:cuda",
    "onnxruntime:cuda:fp16",
    "tensorrt",
)

#: A subject may end in this with a number: strokes over the whole image, which it sees as a whole, are then a square
#: hole of that many per cent of the image, of which it sees what `region="auto"` shows it.
HOLE = "@"

#: Runs before the first that counts: TorchScript rewrites its graph in the second.
WARM_UP = 3

#: What takes the checkpoint beside the bundle.
_NEEDS_CHECKPOINT = ("torchscript", "torch", "torch-compile", "opencv")


@dataclass(frozen=True)
class Task:
    """A subject with what it is given: an image of (height, width) with one hole mask, `batch` of them at once."""

    subject: str
    bundle: Path
    checkpoint: Path | None
    size: tuple[int, int]
    batch: int
    threads: int
    allow_engine_code: bool = False

    @property
    def name(self) -> str:
        """The subject without its hole."""
        return self.subject.partition(HOLE)[0]

    @property
    def engine(self) -> str:
        """What runs it, without where and in what."""
        return self.name.partition(":")[0]

    @property
    def precision(self) -> str:
        last = self.name.rpartition(":")[2]
        return last if last in catalogue.PRECISIONS else "fp32"

    @property
    def gpu(self) -> bool:
        """Whether it runs on a GPU."""
        return on_gpu(self.subject)

    @property
    def hole(self) -> float | None:
        """The share of the image that is one square hole, where it is not strokes that are missing."""
        share = self.subject.partition(HOLE)[2]
        return float(share) / 100 if share else None


class Running:
    """A subject in its process. Raises GlamaError where it does not start, with the reason."""

    def __init__(self, task: Task) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(task, other), daemon=True)
        with outside_current_folder():
            self._process.start()
        other.close()
        #: For people: engine, version, device, precision; and the precision alone.
        self.description, self.precision = map(str, self._ask(None))

    def seconds(self) -> float:
        """Of one run."""
        return float(self._ask("run"))

    def stop(self) -> int:
        """End the process; the most memory that it held, in bytes."""
        held = int(self._ask("stop"))
        self._process.join(10)
        return held

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
    """In the child: open the subject, then run it each time it is told to."""
    try:
        description, precision, run = _open(task)
        for _ in range(WARM_UP):
            run()
    except GlamaError as error:
        pipe.send(("error", str(error)))
        return
    except Exception as error:  # noqa: BLE001 - a peer that cannot run this network is a row that says so
        pipe.send(("error", f"{type(error).__name__}: {first_line(error)}"))
        return
    pipe.send(("ready", (description, precision)))
    while pipe.recv() == "run":
        start = time.perf_counter()
        run()
        pipe.send(("seconds", time.perf_counter() - start))
    pipe.send(("bytes", _peak_bytes()))


def _peak_bytes() -> int:
    """Return the most memory that this process has held, in bytes; 0 where the system does not say."""
    try:
        found = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text(encoding="utf-8"))
        return int(found[1]) * 1024 if found else 0
    except OSError:
        return int(getattr(psutil.Process().memory_info(), "peak_wset", 0))  # Windows; macOS has no such figure


def is_subject(text: str) -> bool:
    """Whether it is one of :data:`SUBJECTS`, or a backend, with or without a hole, around which only ours look."""
    name, at, share = text.partition(HOLE)
    ours = name.partition(":")[0] not in _NEEDS_CHECKPOINT
    known = name in SUBJECTS or name in catalogue.backends()
    return known and (not at or (ours and share.isdecimal() and len(share) <= 2 and int(share) > 0))


def on_gpu(subject: str) -> bool:
    """Whether the subject runs on a GPU."""
    record = catalogue.backends().get(subject.partition(HOLE)[0])
    return ":cuda" in subject or (record is not None and record.device == "cuda")


def scene(task: Task) -> tuple[np.ndarray, np.ndarray]:
    """uint8 [B, H, W, 3] and bool [B, H, W]: noise, and strokes or the hole."""
    from glama_deploy.masks import by_name

    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (task.batch, *task.size, 3), np.uint8)
    if task.hole is None:
        return images, np.stack([by_name("MediumStrokes")(*task.size, rng) for _ in range(task.batch)])
    height, width = task.size
    masks = np.zeros((task.batch, height, width), bool)
    missing = task.hole * height * width
    high = round(min(height, max(missing**0.5, missing / width)))  # a square, or as long as a narrow image makes it
    wide = round(missing / high)
    top, left = (height - high) // 2, (width - wide) // 2
    masks[:, top : top + high, left : left + wide] = True
    return images, masks


#: What is said of a subject, its precision, and a run of it.
_Opened = tuple[str, str, Callable[[], object]]


def _open(task: Task) -> _Opened:
    if task.engine in _NEEDS_CHECKPOINT:
        if task.checkpoint is None:
            raise GlamaError("it needs the checkpoint, which a bundle does not hold; give --ckpt")
        if not task.gpu:
            network, (height, width) = Bundle.open(task.bundle).manifest.network, task.size
            needed = memory.estimate(height, width, network, task.batch)
            memory.check(needed, f"the image is {height}x{width}", "give a smaller --size")  # ours do so themselves
    if task.engine in ("torch", "torchscript", "torch-compile"):
        return _made(_torch(task))
    return _made(_opencv(task)) if task.engine == "opencv" else _inpainter(task)


def _made(peer: _Opened) -> _Opened:
    """The same, with what making it took (tracing it, writing its graph) left out of the most memory that was held:
    ours are opened from a finished file, too."""
    gc.collect()
    with suppress(OSError, AttributeError):  # elsewhere than on Linux there is no such number anyway
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # VmHWM begins anew
    return peer


def _inpainter(task: Task) -> _Opened:
    """Through `Inpainter`, with all that it does around the engine; its sizes compiled from the start, as they are once
    they have come for some seconds."""
    import glama_deploy

    backend = task.name.removesuffix(f":{task.precision}")
    chooses = not catalogue.backends()[task.engine].is_strongly_typed  # the others have but one precision
    precision = task.precision if chooses else "auto"
    allowed = task.allow_engine_code
    inpainter = glama_deploy.load(
        task.bundle, backend, precision, task.threads, compile_sizes=True, allow_engine_code=allowed
    )
    if precision not in ("auto", inpainter.precision):
        raise GlamaError(f"this CPU has no {precision.rpartition('+')[2]}")
    images, masks = scene(task)
    if task.hole is not None:
        said = f"{inpainter.description}, a hole of {task.hole:.0%}"
        both = list(zip(images, masks, strict=True))
        return said, inpainter.precision, lambda: [inpainter(image, mask) for image, mask in both]
    if task.batch == 1:
        return inpainter.description, inpainter.precision, lambda: inpainter(images[0], masks[0], region="full")
    return inpainter.description, inpainter.precision, lambda: inpainter.batch(images, masks)


def _torch(task: Task) -> _Opened:
    """PyTorch itself, on tensors that are ready where it runs: eager, traced, or compiled. fp32 without TF32."""
    import torch

    assert task.checkpoint is not None
    if task.gpu and not torch.cuda.is_available():
        raise GlamaError("PyTorch sees no GPU here")
    torch.backends.cudnn.allow_tf32 = False
    torch.set_num_threads(task.threads)
    device = torch.device("cuda" if task.gpu else "cpu")
    images, masks = scene(task)
    image = torch.from_numpy(images).to(device).permute(0, 3, 1, 2).float() / 255
    mask = torch.from_numpy(masks).to(device)[:, None].float()
    network = composed(task.checkpoint).to(device)
    if task.engine == "torchscript":
        file = io.BytesIO(torchscript(network, image, mask))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            network = torch.jit.load(file)
    elif task.engine == "torch-compile":
        network = torch.compile(network)

    def run() -> None:
        with torch.inference_mode():
            network(image, mask)
        if task.gpu:
            torch.cuda.synchronize()

    way = {"torch": "eager", "torchscript": "TorchScript", "torch-compile": "torch.compile"}[task.engine]
    return f"PyTorch {torch.__version__.split('+')[0]} {'CUDA ' if task.gpu else ''}{way} fp32", "fp32", run


def composed(path: Path) -> Any:
    """A checkpoint's network as a torch module of masking, network and compositing: what `big-lama.pt` holds."""
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


def torchscript(network: Any, image: Any, mask: Any) -> bytes:
    """The file of a module that was traced on these tensors."""
    import torch

    file = io.BytesIO()
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(network, (image, mask)), file)
    return file.getvalue()


def _opencv(task: Task) -> _Opened:
    """OpenCV's DNN module, on a graph of this size."""
    import cv2

    from glama_deploy.checkpoints import formats as checkpoint
    from glama_deploy.export.graph.network import build

    assert task.checkpoint is not None
    read = checkpoint.read(task.checkpoint)
    model = build(read.config, read.weights, task.size).SerializeToString()
    cv2.setNumThreads(task.threads)
    network = cv2.dnn.readNetFromONNX(np.frombuffer(model, np.uint8))
    images, masks = scene(task)
    image = np.ascontiguousarray(images.transpose(0, 3, 1, 2), np.float32) / 255
    mask = masks[:, None].astype(np.float32)

    def run() -> None:
        network.setInput(image, IMAGE)
        network.setInput(mask, MASK)
        network.forward()

    return f"OpenCV DNN {cv2.__version__} fp32", "fp32", run
