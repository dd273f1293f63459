"""Fill a picture by a model of `glama package BUNDLE --for ovms`, with NVIDIA's client of the same protocol.

    pip install 'tritonclient[http]' pillow
    python examples/ovms_client.py photo.jpg mask.png filled.png [--url localhost:8000]

OpenVINO Model Server decodes the files: a JPEG or PNG in RGB, and a PNG in gray, above 0 where pixels are missing.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import tritonclient.http as client
from PIL import Image

parser = argparse.ArgumentParser(description="Fill a picture by OpenVINO Model Server.")
parser.add_argument("photo", type=Path)
parser.add_argument("mask", type=Path, help="a PNG in gray, above 0 = missing")
parser.add_argument("out")
parser.add_argument("--url", default="localhost:8000")
parser.add_argument("--model", default="glama")
arguments = parser.parse_args()

inputs = []
for name, file in (("image", arguments.photo), ("mask", arguments.mask)):
    inputs.append(client.InferInput(name, [1], "BYTES"))
    inputs[-1].set_data_from_numpy(np.array([file.read_bytes()], object))
server = client.InferenceServerClient(arguments.url)
answer = server.infer(arguments.model, inputs, outputs=[client.InferRequestedOutput("inpainted")])
bgr = answer.as_numpy("inpainted")[0]  # uint8 H×W×3
Image.fromarray(np.ascontiguousarray(bgr[..., ::-1])).save(arguments.out)
