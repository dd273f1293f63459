"""OpenVINO on a CPU with AVX2 alone, which `ONEDNN_MAX_CPU_ISA` makes of any newer CPU, in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from glama_deploy.network import NetworkConfig
from glama_deploy.system import cpu

PROGRAM = """
import sys
import numpy as np
import glama_deploy

model, precision, compile_sizes, out = sys.argv[1:]
inpainter = glama_deploy.load(model, "openvino", precision, compile_sizes=compile_sizes == "True")
rng = np.random.default_rng(0)
image, mask = rng.random((1, 3, 64, 72), np.float32), (rng.random((1, 1, 64, 72)) < 0.3).astype(np.float32)
np.save(out, inpainter._runner.run(image, mask))
print(inpainter.precision, inpainter._runner.holder[0], inpainter.description)
"""

pytestmark = pytest.mark.skipif(not cpu.is_x86(), reason="the variable is for x86 CPUs")


def run(bundle, precision, out, *, compile_sizes=False) -> tuple[np.ndarray, str]:
    """The result, and what the inpainter says of itself."""
    command = [sys.executable, "-c", PROGRAM, str(bundle.path), precision, str(compile_sizes), str(out)]
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    return np.load(out), said


@pytest.mark.parametrize("compile_sizes", [False, True])
def test_a_half_type_that_the_cpu_lacks_is_the_fp32_path_to_the_byte(
    make_checkpoint, make_bundle, tmp_path, compile_sizes
):
    """The network is wide enough that a compiled size is computed in another way."""
    bundle = make_bundle(make_checkpoint(NetworkConfig(ngf=32, n_blocks=1)))
    expected, _ = run(bundle, "fp32", tmp_path / "fp32.npy", compile_sizes=compile_sizes)
    for half in ("bf16", "fp16"):
        result, said = run(bundle, half, tmp_path / f"{half}.npy", compile_sizes=compile_sizes)
        assert result.tobytes() == expected.tobytes()
        assert said.startswith(f"fp32 {(1, 3, 64, 72) if compile_sizes else ()} ")
        assert f"this CPU has no {half}" in said
