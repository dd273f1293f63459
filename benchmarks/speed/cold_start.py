"""From the start of a process to the first inpainted 256×256 image, with a bundle that was loaded here before.

python benchmarks/speed/cold_start.py [--network lama] [--runs 5]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from glama_deploy.checkpoints import formats
from glama_deploy.export.pipeline import Request, export
from glama_deploy.network import NAMED

CHILD = """
import sys
import numpy as np
import glama_deploy
inpainter = glama_deploy.load(sys.argv[1], "openvino")
mask = np.zeros((256, 256), bool)
mask[100:150, 80:170] = True
inpainter(np.full((256, 256, 3), 128, np.uint8), mask)
"""


def main() -> None:
    """Parse the options, measure, and print the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="lama", choices=NAMED)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["GLAMA_CACHE"] = str(Path(folder) / "cache")
        from glama_deploy.reference.random_weights import untrained

        source, bundle = Path(folder) / "network.safetensors", Path(folder) / "bundle"
        formats.save(source, NAMED[options.network], untrained(NAMED[options.network]))
        export(Request(source, bundle, ("openvino",), parity=False))
        seconds = []
        for _ in range(options.runs + 1):
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", CHILD, str(bundle)], check=True)
            seconds.append(time.perf_counter() - start)
    first, *cached = seconds
    print(
        f"{options.network}: first start {first:.2f} s (compiles), then {statistics.median(cached):.2f} s "
        f"({min(cached):.2f}…{max(cached):.2f}, {len(cached)} runs)"
    )


if __name__ == "__main__":
    main()
