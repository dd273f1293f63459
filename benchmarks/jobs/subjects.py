"""The subjects of `glama-bench --jobs`: this project's engines, and what people use today."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from glama_deploy import memory
from glama_deploy.benchmarks.bench import contenders
from glama_deploy.benchmarks.jobs.peers import RESIZED_SIDE
from glama_deploy.bundle import Bundle
from glama_deploy.errors import GlamaError
from glama_deploy.io.decoding import read_size


@dataclass(frozen=True)
class Subject:
    """A way of doing a job.

    Attributes:
        name: the subject's name.
        network: from what it opens the network.
        is_ours: whether it is this project's.
        same_network: whether it fills at full size with the network in fp32, so that ratios are to it.
        shows_whole: whether the network is shown whole pictures, which may need more memory than there is.
    """

    name: str
    network: Literal["bundle", "script", "checkpoint", "graph", "none"]
    is_ours: bool = False
    same_network: bool = False
    shows_whole: bool = False


#: The subjects by name, in the order of the tables.
SUBJECTS = {
    subject.name: subject
    for subject in (
        Subject("openvino:fp32", "bundle", is_ours=True),
        Subject("openvino:bf16", "bundle", is_ours=True),
        Subject("onnxruntime:fp32", "bundle", is_ours=True),
        Subject("torchscript:whole", "script", same_network=True, shows_whole=True),
        Subject("torchscript:crop", "script", same_network=True),
        Subject("torch:crop", "checkpoint", same_network=True),
        Subject("carve:resized", "graph"),
        Subject("opencv:telea", "none"),
    )
}

#: The subject that gives the pixels that the others are compared with.
REFERENCE = Subject("reference:fp32", "bundle")


class Networks:
    """One network in the forms that the subjects open. A form is made when a subject first asks for it."""

    def __init__(self, bundle: Bundle, checkpoint: Path | None, folder: Path) -> None:
        """Name the network.

        Args:
            bundle: the network's bundle.
            checkpoint: the bundle's checkpoint; None if there is none.
            folder: gets the forms that are made.
        """
        self._bundle, self._checkpoint, self._folder = bundle, checkpoint, folder

    def find(self, subject: Subject) -> str:
        """Return the file or folder from which a subject opens the network.

        Args:
            subject: the subject.

        Returns:
            The path; empty for a subject without a network.

        Raises:
            GlamaError: the subject needs the checkpoint.
        """
        if subject.network == "none":
            return ""
        if subject.network == "bundle":
            return str(self._bundle.path)
        if self._checkpoint is None:
            raise GlamaError("it needs the checkpoint, which a bundle does not hold; give --ckpt")
        if subject.network == "checkpoint":
            return str(self._checkpoint)
        if subject.network == "script":
            return str(self._make_script(self._checkpoint))
        return str(self._make_graph(self._checkpoint))

    def check_memory(self, subject: Subject, images: Path) -> None:
        """Check that the largest picture of a job fits into the free memory, if the subject shows it whole.

        Args:
            subject: the subject.
            images: folder of the job's pictures.

        Raises:
            ImageError: the free memory does not suffice.
        """
        if not subject.shows_whole:
            return
        height, width = max(map(read_size, images.iterdir()), key=lambda size: size[0] * size[1])
        needed = memory.estimate(height, width, self._bundle.manifest.network)
        memory.check(needed, f"a picture is {height}x{width}", "the whole picture was not measured")

    def _make_script(self, checkpoint: Path) -> Path:
        """Trace the network. Raises GlamaError if the traced network is wrong at another size."""
        path = self._folder / "network.pt"
        if path.is_file():
            return path
        import torch

        network = contenders.compose_network(checkpoint)
        rng = np.random.default_rng(0)
        scenes = [
            (
                torch.from_numpy(rng.random((1, 3, *size), np.float32)),
                torch.from_numpy((rng.random((1, 1, *size)) < 0.2).astype(np.float32)),
            )
            for size in ((64, 64), (72, 96))
        ]
        data = contenders.trace_network(network, *scenes[0])
        path.write_bytes(data)
        traced = torch.jit.load(path)
        with torch.inference_mode():
            difference = float((traced(*scenes[1]) - network(*scenes[1])).abs().max())
        if difference > 1e-3:  # rounding leaves less than 1e-5
            path.unlink()
            raise GlamaError(f"the traced network differs by {difference:.3g} at another size")
        return path

    def _make_graph(self, checkpoint: Path) -> Path:
        """Write the graph of 512×512 with the transforms as DFT nodes."""
        path = self._folder / "network-512.onnx"
        if path.is_file():
            return path
        from glama_deploy.checkpoints import formats
        from glama_deploy.export.graph.network import build

        read = formats.read(checkpoint)
        model = build(read.config, read.weights, (RESIZED_SIDE, RESIZED_SIDE), fft="dft")
        path.write_bytes(model.SerializeToString())
        return path
