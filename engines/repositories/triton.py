"""Write a model folder for Triton Inference Server: `config.pbtxt`, and the version folder `1`.

    onnxruntime   1/model.onnx
    openvino      1/model.xml, 1/model.bin    changed by :mod:`glama_deploy.engines.repositories.openvino_model`
    tensorrt      1/model.plan                for the GPU that the engine was built for
    python        1/model.py, 1/bundle/       this package's runtime, with boxes, tiles and compositing

Every backend has the same tensors: `image` uint8 [N, H, W, 3] and `mask` uint8 [N, H, W] → `inpainted` uint8
[N, H, W, 3]. The configuration is complete, because not every backend completes a missing field. OpenVINO has
`max_batch_size: 0`: its backend pads or refuses other batches. A graph of one size is batched by the server
(`dynamic_batching`). With free sides the server would join requests of equal size only, so `max_batch_size` is 0.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glama_deploy.bundle import MANIFEST, Bundle, SizeRange, Tensor
from glama_deploy.catalogue import ONNX, OPENVINO, TENSORRT
from glama_deploy.engines.repositories.openvino_model import write_model
from glama_deploy.engines.repositories.served_model import ServedModel, intersect_sizes
from glama_deploy.engines.repositories.text_format import Constant, Message, write_message
from glama_deploy.errors import BundleError
from glama_deploy.node_names import BATCH, HEIGHT, IMAGE, INPAINTED, MASK, PREDICTED, WIDTH
from glama_deploy.remote.description import DESCRIPTION, ModelDescription
from glama_deploy.remote.triton_model import BUNDLE_FOLDER, SETTINGS

#: The name of the backend that runs this package.
PYTHON = "python"

CONFIG = "config.pbtxt"

#: Images that the server joins for a graph of one size that takes any number.
_MAX_JOINED_IMAGES = 8

_SCRIPT = '''"""The model of Triton's Python backend. `glama package` wrote this file."""

from glama_deploy.remote.triton_model import TritonPythonModel

__all__ = ["TritonPythonModel"]
'''

_TYPES = {"uint8": Constant("TYPE_UINT8"), "float32": Constant("TYPE_FP32")}


@dataclass(frozen=True)
class _Files:
    """What a backend's files tell the configuration.

    Attributes:
        description: What clients read of the model.
        outputs: The outputs that the configuration lists.
        kind: The device of the instances.
        max_batch: Images that the server may join; 0: none.
        profiles: Optimization profiles of a plan.
        parameters: Parameters of the backend.
        platform: The backend's older name, which some tools read.
        model_file: The name of the model's file.
    """

    description: ModelDescription
    outputs: tuple[Tensor, ...]
    kind: str
    model_file: str
    max_batch: int = 0
    profiles: tuple[SizeRange, ...] = ()
    parameters: Mapping[str, str] | None = None
    platform: str = ""


def list_backends() -> tuple[str, ...]:
    """Return the backends that a model folder can be written for.

    Returns:
        The names that Triton uses.
    """
    return tuple(_WRITERS)


def write_triton_model(model: ServedModel, backend: str) -> None:
    """Write the files of a model and its configuration.

    Args:
        model: The model.
        backend: The backend, one of :func:`list_backends`.

    Raises:
        BundleError: The bundle does not have what the backend runs.
        EngineError: A file cannot be written by the engine's package.
    """
    files = _WRITERS[backend](model)
    text = write_message(_make_config(model, backend, files))
    (model.folder / CONFIG).write_text(text, encoding="ascii")


def _write_onnx(model: ServedModel) -> _Files:
    engine = model.find_engine(ONNX)
    max_batch = _MAX_JOINED_IMAGES if engine.sizes.static else 0
    sizes = engine.sizes.model_copy(update={"max_batch": max_batch or None})
    (graph,) = model.bundle.files(ONNX.name)
    shutil.copyfile(graph, model.version_folder / "model.onnx")
    description = model.describe(sizes, engine.precision)
    outputs = model.bundle.manifest.outputs
    platform = f"{ONNX.backend}_onnx"
    return _Files(description, outputs, "KIND_AUTO", "model.onnx", max_batch=max_batch, platform=platform)


def _write_openvino(model: ServedModel) -> _Files:
    engine = model.find_engine(OPENVINO)
    description = model.describe(engine.sizes, engine.precision)
    source, _ = model.bundle.files(OPENVINO.name)
    write_model(source, model.version_folder / "model.xml", description, has_mask_channel=False)
    outputs = tuple(tensor for tensor in model.bundle.manifest.outputs if tensor.name != PREDICTED)
    parameters = {"PERFORMANCE_HINT": "LATENCY"} if model.instances == 1 else {"NUM_STREAMS": str(model.instances)}
    return _Files(description, outputs, "KIND_CPU", "model.xml", parameters=parameters)


def _write_plan(model: ServedModel) -> _Files:
    engine = model.find_engine(TENSORRT)
    if model.bundle.manifest.fft == "plugin":
        raise BundleError(
            f"{model.bundle.path} has a plugin in Python, which Triton does not load; export with `fft=matmul`"
        )
    if engine.settings is not None and engine.settings.stripped:
        raise BundleError(f"the engine of {model.bundle.path} has no weights; build it again without `stripped`")
    (plan,) = model.bundle.files(TENSORRT.name)
    shutil.copyfile(plan, model.version_folder / "model.plan")
    description = model.describe(engine.sizes, engine.precision)
    max_batch = (engine.sizes.max_batch or 1) if engine.sizes.static else 0
    return _Files(
        description,
        model.bundle.manifest.outputs,
        "KIND_GPU",
        "model.plan",
        max_batch=max_batch,
        profiles=engine.profiles,
        parameters={"compute_capabilities": ", ".join(engine.compute_capabilities) or "any", **engine.versions},
        platform=f"{TENSORRT.backend}_plan",
    )


def _write_python(model: ServedModel) -> _Files:
    model.bundle.check_ends()
    copy_bundle(model.bundle, model.version_folder / BUNDLE_FOLDER)
    (model.version_folder / "model.py").write_text(_SCRIPT, encoding="utf-8")
    engines = model.bundle.manifest.engines.values()
    description = model.describe(intersect_sizes(model.bundle), ", ".join(sorted({each.precision for each in engines})))
    return _Files(description, (_INPAINTED,), "KIND_CPU", "model.py", parameters=SETTINGS)


#: The backends, by Triton's names.
_WRITERS: dict[str, Callable[[ServedModel], _Files]] = {
    PYTHON: _write_python,
    ONNX.backend: _write_onnx,
    OPENVINO.backend: _write_openvino,
    TENSORRT.backend: _write_plan,
}

#: The tensors of the Python backend, which takes any graph of a bundle.
_BYTES: dict[str, Any] = {"dtype": "uint8", "range": (0.0, 255.0)}
_IMAGE = Tensor(name=IMAGE, layout="NHWC", shape=(BATCH, HEIGHT, WIDTH, 3), meaning="RGB", **_BYTES)
_MASK = Tensor(name=MASK, layout="NHW", shape=(BATCH, HEIGHT, WIDTH), meaning="above 0 = missing", **_BYTES)
_INPAINTED = _IMAGE.model_copy(update={"name": INPAINTED})


def copy_bundle(bundle: Bundle, target: Path) -> None:
    """Copy the files of a bundle that its manifest lists.

    Args:
        bundle: The bundle.
        target: The folder of the copy, which does not exist.

    Raises:
        BundleError: A file is missing, or was changed while it was copied.
    """
    graphs = [graph.file for graph in bundle.manifest.graphs.values()]
    engines = [file for engine in bundle.manifest.engines.values() for file in engine.files]
    bundle.verify()
    for file in {each.path for each in (*graphs, *engines)}:
        (target / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(bundle.path / file, target / file)
    shutil.copyfile(bundle.path / MANIFEST, target / MANIFEST)
    Bundle.open(target).verify()


def _make_config(model: ServedModel, backend: str, files: _Files) -> Message:
    """Return Triton's message ModelConfig."""
    inputs = (_IMAGE, _MASK) if backend == PYTHON else model.bundle.manifest.inputs
    group: dict[str, object] = {"count": model.instances, "kind": Constant(files.kind)}
    if len(files.profiles) > 1:
        group["profile"] = [str(number) for number in range(len(files.profiles))]
    parameters = {
        DESCRIPTION: files.description.model_dump_json(),
        "checkpoint": model.bundle.manifest.checkpoint.file,
        "checkpoint_sha256": model.bundle.manifest.checkpoint.sha256,
        **(files.parameters or {}),
    }
    batching: dict[str, Message] = {"dynamic_batching": {}} if files.max_batch > 1 else {}
    return {
        "name": model.name,
        **({"platform": files.platform} if files.platform else {}),
        "backend": backend,
        "default_model_filename": files.model_file,
        "version_policy": {"latest": {"num_versions": 1}},
        "max_batch_size": files.max_batch,
        "input": [_describe_tensor(tensor, files.max_batch) for tensor in inputs],
        "output": [_describe_tensor(tensor, files.max_batch) for tensor in files.outputs],
        "instance_group": group,  # type: ignore[dict-item]
        **batching,
        "metric_tags": [{"key": "precision", "value": files.description.precision}],
        "parameters": [{"key": key, "value": {"string_value": value}} for key, value in parameters.items()],
        "model_warmup": [
            _make_warmup(size, inputs, files.max_batch)
            for size in dict.fromkeys(each.opt for each in files.profiles or (files.description.sizes,))
        ],
    }


def _describe_tensor(tensor: Tensor, max_batch: int) -> Message:
    """Return Triton's message of an input or output. The batch is left out where the server counts it."""
    dims = [-1 if isinstance(side, str) else side for side in tensor.shape[1 if max_batch else 0 :]]
    return {"name": tensor.name, "data_type": _TYPES[tensor.dtype], "dims": dims}


def _make_warmup(size: tuple[int, int], inputs: tuple[Tensor, ...], max_batch: int) -> Message:
    """Return a request that the server runs before it is ready: an image of noise whose pixels are missing."""
    return {
        "name": f"{size[0]}x{size[1]}",
        "batch_size": 1,
        "inputs": [
            {
                "key": tensor.name,
                "value": {
                    "data_type": _TYPES[tensor.dtype],
                    "dims": tensor.shape_for(1, *size)[1 if max_batch else 0 :],
                    "random_data": True,
                },
            }
            for tensor in inputs
        ],
    }
