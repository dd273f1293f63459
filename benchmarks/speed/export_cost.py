"""Time and peak memory of `glama-export`, all targets and parity, for a network with untrained weights.

python benchmarks/speed/export_cost.py [--network big-lama] [--precision fp16]

With fp16 the ranges are calibrated at 2048×2048, the largest size of the default profile.
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from glama_deploy.network import NAMED

TARGETS = ("onnx", "openvino", "trt-rtx")

WRITE_CHECKPOINT = """
import sys
from glama_deploy.network import NAMED
from glama_deploy.checkpoints import formats
from glama_deploy.reference.random_weights import untrained
formats.save(sys.argv[2], NAMED[sys.argv[1]], untrained(NAMED[sys.argv[1]]))
"""


def main() -> None:
    """Parse the options, measure, and print the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="big-lama", choices=NAMED)
    parser.add_argument("--precision", default="fp32", choices=("fp32", "fp16", "bf16"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "network.safetensors"
        subprocess.run([sys.executable, "-c", WRITE_CHECKPOINT, options.network, str(source)], check=True)
        command = [str(Path(sys.executable).parent / "glama-export"), "--ckpt", str(source)]
        command += ["--out", str(Path(folder) / "bundle"), *(x for target in TARGETS for x in ("--target", target))]
        command += ["--precision", options.precision]
        start = time.monotonic()
        child = psutil.Popen(command)
        peak = 0
        while child.poll() is None:
            peak = max(peak, measure_resident_bytes(child))
            time.sleep(0.02)
        seconds = time.monotonic() - start
    targets = ", ".join(TARGETS)
    line = f"{options.network} {options.precision} to {targets} with parity: {seconds:.0f} s, peak {peak / 1e9:.1f} GB"
    print(f"{line}, exit code {child.returncode}")


def measure_resident_bytes(process: psutil.Process) -> int:
    """Measure the memory of a process and of all processes that it started, such as TensorRT's build.

    Args:
        process: the process.

    Returns:
        The resident bytes.
    """
    total = 0
    for one in (process, *process.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            total += one.memory_info().rss
    return total


if __name__ == "__main__":
    main()
