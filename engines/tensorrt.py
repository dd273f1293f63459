"""ONNX to a TensorRT or TensorRT-RTX engine, through Polygraphy: one code path for `tensorrt` ≥ 10 and `tensorrt_rtx`.

Networks are strongly typed: every layer computes in the type that the graph gives it, and TF32 is off, so an fp32 graph
makes an fp32 engine. The build runs in a process of its own, because Polygraphy binds a process to one of the two
packages, and because a parser that aborts must not take the export with it.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

from glama_deploy.bundle import SizeRange
from glama_deploy.errors import EngineError
from glama_deploy.runtime.base import installed

Package = Literal["tensorrt", "tensorrt_rtx"]

#: For people: each package's name, and the target it serves.
_NAMES = {"tensorrt": "TensorRT", "tensorrt_rtx": "TensorRT-RTX"}
_TARGETS = {"tensorrt": "trt", "tensorrt_rtx": "trt-rtx"}


def build(onnx: Path, engine: Path, package: Package, sizes: SizeRange) -> dict[str, str]:
    """Build `engine` (its folder is made here) for the batch and sizes of `sizes`; give the versions that made it.

    TensorRT-RTX needs no GPU to build; TensorRT tunes on the one it finds. Raises EngineError where a package or the
    driver is missing, or the parser or the builder refuses: one line that ends in what to do.
    """
    for needed in (package, "polygraphy"):
        if not installed(needed):
            raise EngineError(
                f"{needed} is not installed; pip install {package.replace('_', '-')} polygraphy"
                + (" (on Jetson, use JetPack's own)" if needed == "tensorrt" else "")
            )
    engine.parent.mkdir(parents=True, exist_ok=True)
    request = {"onnx": str(onnx), "engine": str(engine), "package": package, "sizes": sizes.model_dump()}
    child = subprocess.run(
        [sys.executable, "-m", "glama_deploy.engines.tensorrt", json.dumps(request)],
        capture_output=True,
        text=True,
        check=False,
    )
    if child.returncode != 0 or not engine.is_file():
        raise EngineError(_explain(package, child.returncode, child.stdout + child.stderr))
    versions: dict[str, str] = json.loads(child.stdout.splitlines()[-1])
    return versions


def _explain(package: Package, status: int, output: str) -> str:
    """One line for a build that failed: the first error that the builder logged, and what to do."""
    name = _NAMES[package]
    if any(sign in output for sign in ("CUDA initialization failure", "no CUDA-capable device", "insufficient driver")):
        return (
            f"{name} found no NVIDIA driver here; build on the device: glama-build BUNDLE --target {_TARGETS[package]}"
        )
    errors = [line.strip() for line in output.splitlines() if "[E]" in line or "[!]" in line or "Error" in line]
    what = errors[0] if errors else f"the builder's process ended with status {status}"
    return f"{name} did not build the engine ({what}); see the sizes and the package's version"


def _build_here(request: dict[str, Any]) -> dict[str, str]:
    """What the child process does: parse, configure, build, write."""
    import polygraphy
    from polygraphy import config

    rtx = request["package"] == "tensorrt_rtx"
    config.USE_TENSORRT_RTX = rtx  # read when Polygraphy's TensorRT modules are first imported
    from polygraphy.backend import trt

    if rtx:
        from polygraphy.backend.tensorrt_rtx import CreateConfigRTX as CreateConfig
    else:
        from polygraphy.backend.trt import CreateConfig

    sizes = SizeRange.model_validate(request["sizes"])
    network = trt.network_from_onnx_path(request["onnx"], strongly_typed=True)
    profile = trt.Profile()
    corners = ((1, sizes.min), (1, sizes.opt), (sizes.max_batch or 1, sizes.max))
    for name, channels in (("image", 3), ("mask", 1)):
        profile.add(name, *[(batch, channels, *size) for batch, size in corners])
    package = importlib.import_module(request["package"])
    settings = CreateConfig(profiles=[profile])(network[0], network[1])
    # on by default, and an fp32 engine must not round its products to TF32's ten bits
    settings.clear_flag(package.BuilderFlag.TF32)
    data = trt.engine_bytes_from_network(network, config=settings)
    Path(request["engine"]).write_bytes(memoryview(data))
    return {request["package"]: package.__version__, "polygraphy": polygraphy.__version__}


if __name__ == "__main__":
    print(json.dumps(_build_here(json.loads(sys.argv[1]))))
