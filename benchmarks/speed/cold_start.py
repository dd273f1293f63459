"""From the start of a process to the first inpainted 256×256 image, with a network that was opened here before.

python benchmarks/speed/cold_start.py [--network default|lama|...] [--runs 9] [--package FOLDER ...]

Measures `import glama_deploy`, a program of Python and `glama-inpaint`, each in fresh processes, in turns. The time of
Python alone is a row of its own, and is in all other rows. `--package` names checkouts to compare, `.` by default:
each row is then measured with each checkout in turn. CPU seconds, of all cores, stand beside the wall seconds.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from glama_deploy.checkpoints import formats
from glama_deploy.export.pipeline import Request, export
from glama_deploy.network import NAMED

#: The program, whose argument is a network.
PROGRAM = """
import sys
import numpy as np
import glama_deploy
inpainter = glama_deploy.load(sys.argv[1])
mask = np.zeros((256, 256), bool)
mask[100:150, 80:170] = True
inpainter(np.full((256, 256, 3), 128, np.uint8), mask)
"""

#: An end without Python's and OpenVINO's clean-up, which comes after the first picture.
END = "__import__('os')._exit(0)\n"

COMMAND = "from glama_deploy.cli.start import inpaint; inpaint()"

#: The rows: name and program.
ROWS = {
    "Python alone": "pass",
    "import glama_deploy": "import glama_deploy",
    "import numpy": "import numpy",
    "program, first picture": PROGRAM + END,
    "glama-inpaint, to its end": COMMAND,
}


def measure(checkout: Path, program: str, arguments: list[str], environment: Mapping[str, str]) -> tuple[float, float]:
    """Run a program in a process of its own.

    Args:
        checkout: the folder that has the package `glama_deploy`.
        program: the program.
        arguments: its arguments.
        environment: its environment.

    Returns:
        Wall seconds and CPU seconds.
    """
    if sys.platform == "win32":
        raise SystemExit("this script measures on Linux and macOS")
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    environment = {**environment, "PYTHONPATH": str(checkout)}  # which comes before an installed package
    command = [sys.executable, "-c", program, *arguments]
    subprocess.run(command, check=True, env=environment, cwd=environment["GLAMA_CACHE"], capture_output=True)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Parse the options, measure, and print the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="default", choices=["default", *NAMED])
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--package", type=Path, nargs="+", default=[Path(".")])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        # the bytecode of an installed package is cached, and so it is here
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        environment |= {
            "GLAMA_CACHE": str(Path(folder) / "cache"),
            "PYTHONPYCACHEPREFIX": str(Path(folder) / "bytecode"),
        }
        Path(environment["GLAMA_CACHE"]).mkdir()
        model = options.network
        if model != "default":
            from glama_deploy.reference.random_weights import untrained

            source, model = Path(folder) / "network.safetensors", str(Path(folder) / "bundle")
            formats.save(source, NAMED[options.network], untrained(NAMED[options.network]))
            export(Request(source, Path(model), ("openvino",), parity=False))
        image, mask, out = (str(Path(folder) / name) for name in ("image.png", "mask.png", "out.png"))
        missing = np.zeros((256, 256), np.uint8)
        missing[100:150, 80:170] = 255
        Image.fromarray(missing).save(mask)
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)).save(image)
        files = ["--model", model, "--image", image, "--mask", mask, "--out", out, "--overwrite"]
        found: dict[tuple[str, Path], list[tuple[float, float]]] = {}
        for turn in range(options.runs + 1):
            for name, program in ROWS.items():
                for checkout in options.package:
                    arguments = files if program == COMMAND else [model]
                    seconds = measure(checkout.resolve(), program, arguments, environment)
                    if turn:  # the first turn compiles, and fills the caches
                        found.setdefault((name, checkout), []).append(seconds)
    for (name, checkout), times in found.items():
        wall, cpu = ([one[part] for one in times] for part in (0, 1))
        print(
            f"{name:26} {checkout!s:20} median {statistics.median(wall):.3f} s, least {min(wall):.3f} s; "
            f"CPU {statistics.median(cpu):.3f} s, least {min(cpu):.3f} s ({len(times)} runs)"
        )


if __name__ == "__main__":
    main()
