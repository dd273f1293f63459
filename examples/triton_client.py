"""Fill a picture by a model of `glama package BUNDLE --for triton`, with NVIDIA's client.

    pip install 'tritonclient[http,grpc]' pillow
    python examples/triton_client.py photo.jpg mask.png filled.png [--url localhost:8000] [--grpc]

The model of the Python backend cuts boxes around the holes by itself.
"""

from __future__ import annotations

import argparse

import numpy as np
from PIL import Image

parser = argparse.ArgumentParser(description="Fill a picture by Triton.")
parser.add_argument("photo")
parser.add_argument("mask", help="white = missing")
parser.add_argument("out")
parser.add_argument("--url", default="localhost:8000", help="of gRPC usually localhost:8001")
parser.add_argument("--grpc", action="store_true")
parser.add_argument("--model", default="glama")
arguments = parser.parse_args()
if arguments.grpc:
    import tritonclient.grpc as client
else:
    import tritonclient.http as client

image = np.array(Image.open(arguments.photo).convert("RGB"))[None]  # uint8 1×H×W×3
mask = (np.array(Image.open(arguments.mask).convert("L")) > 127).astype(np.uint8)[None]  # uint8 1×H×W, 1 = missing
inputs = []
for name, values in (("image", image), ("mask", mask)):
    inputs.append(client.InferInput(name, list(values.shape), "UINT8"))
    inputs[-1].set_data_from_numpy(values)
server = client.InferenceServerClient(arguments.url)
answer = server.infer(arguments.model, inputs, outputs=[client.InferRequestedOutput("inpainted")])
Image.fromarray(answer.as_numpy("inpainted")[0]).save(arguments.out)
