"""Time and peak memory of `glama-export`, all targets and parity, for a network with untrained weights.

python benchmarks/export_cost.py [--network big-lama]
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from glama_deploy.network import NAMED

TARGETS = ("onnx", "openvino", "trt-rtx")

MAKE = """
import sys
from glama_deploy.network import NAMED
from glama_deploy.reference import checkpoint
from glama_deploy.reference.untrained import untrained
checkpoint.save(sys.argv[2], NAMED[sys.argv[1]], untrained(NAMED[sys.argv[1]]))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="big-lama", choices=NAMED)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "network.safetensors"
        # in a process of its own: what this one holds when it starts the export would count as the export's
        subprocess.run([sys.executable, "-c", MAKE, options.network, str(source)], check=True)
        command = [str(Path(sys.executable).parent / "glama-export"), "--ckpt", str(source)]
        command += ["--out", str(Path(folder) / "bundle"), *(x for target in TARGETS for x in ("--target", target))]
        start = time.monotonic()
        code = subprocess.run(command, check=False).returncode
        seconds = time.monotonic() - start
    # the largest process of the export's tree, in kB on Linux (the TensorRT build is a process of its own)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
    print(
        f"{options.network} to {', '.join(TARGETS)} with parity: {seconds:.0f} s, peak {peak:.1f} GB, exit code {code}"
    )


if __name__ == "__main__":
    main()
