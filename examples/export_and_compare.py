"""Export a checkpoint to ONNX and OpenVINO, and print how far each engine is from PyTorch.

    python examples/export_and_compare.py [--ckpt default] [--out bundle]

Exit code 1 says that a target was not built, or that an engine is beyond its tolerance.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from glama_deploy.errors import GlamaError
from glama_deploy.export.pipeline import Request, export

parser = argparse.ArgumentParser(description="Export a checkpoint and compare each engine with PyTorch.")
parser.add_argument("--ckpt", default="default", help="a checkpoint, or 'default', the embedded network")
parser.add_argument("--out", type=Path, default=Path("bundle"))
arguments = parser.parse_args()

try:
    outcome = export(Request(arguments.ckpt, arguments.out, targets=("onnx", "openvino")), step=print)
except GlamaError as error:  # what is wrong with the input, in one line
    parser.exit(2, f"{error}\n")
engines = outcome.bundle.manifest.engines
for name, engine in engines.items():
    parity = engine.parity
    if parity.measured:
        print(f"{name}: largest error {parity.max_abs_error:.1e}, PSNR {parity.psnr or float('inf'):.1f} dB")
    else:
        print(f"{name}: not measured: {parity.reason}")
for target, reason in outcome.failures.items():
    print(f"{target}: not built: {reason}")
sys.exit(0 if not outcome.failures and all(engine.parity.passed for engine in engines.values()) else 1)
