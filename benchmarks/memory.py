"""Peak memory of one image by its size, in full-size feature maps: what `glama_deploy/memory.py` estimates with.

python benchmarks/memory.py [--network lama] [--backend openvino] [--sizes 256 512 1024 1536]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from glama_deploy import memory
from glama_deploy.export.pipeline import Request, export
from glama_deploy.network import NAMED
from glama_deploy.reference import checkpoint

CHILD = """
import re, sys
import numpy as np
import glama_deploy
model, backend, side = sys.argv[1], sys.argv[2], int(sys.argv[3])
inpainter = glama_deploy.load(model, backend)
mask = np.zeros((side, side), bool)
mask[:8] = True
inpainter(np.full((side, side, 3), 128, np.uint8), mask)
# getrusage would count what the parent held when it forked
print(int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="lama", choices=NAMED)
    parser.add_argument("--backend", default="openvino")
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512, 1024, 1536])
    options = parser.parse_args()
    ngf = NAMED[options.network].ngf
    with tempfile.TemporaryDirectory() as folder:
        from glama_deploy.reference.untrained import untrained

        source, bundle = Path(folder) / "network.safetensors", Path(folder) / "bundle"
        checkpoint.save(source, NAMED[options.network], untrained(NAMED[options.network]))
        export(Request(source, bundle, ("openvino",), parity=False))
        model = source if options.backend == "torch" else bundle
        peaks = {}
        for side in options.sizes:
            command = [sys.executable, "-c", CHILD, str(model), options.backend, str(side)]
            peaks[side] = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])
    smallest = min(peaks)
    for side, peak in peaks.items():
        line = f"{options.network} {options.backend} {side}x{side}: peak {peak / 1e9:.2f} GB"
        if side > smallest:
            maps = (peak - peaks[smallest]) / ((side**2 - smallest**2) * ngf * 4)
            estimated = memory.estimate(side, side, NAMED[options.network])
            line += f", {maps:.1f} full-size maps; estimated {estimated / 1e9:.2f} GB"
        print(line)


if __name__ == "__main__":
    main()
