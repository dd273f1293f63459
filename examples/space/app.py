"""A Hugging Face Space with the page of glama-serve.

    python examples/space/app.py

A Space is shown in a frame of huggingface.co and has a host name of its own. Everybody may use it, so the queue is
short and pictures are small. GLAMA_MODEL names another model, and PORT another port.
"""

from __future__ import annotations

import os

from glama_deploy.server.run import open_socket, serve
from glama_deploy.server.settings import Settings

settings = Settings(
    models={"model": os.environ.get("GLAMA_MODEL", "default")},
    queue=16,
    max_bytes=16 << 20,
    max_pixels=12_000_000,
    allowed_hosts=tuple(filter(None, [os.environ.get("SPACE_HOST", "")])),
    frame_ancestors=("https://huggingface.co",),
)

if __name__ == "__main__":
    with open_socket("0.0.0.0", int(os.environ.get("PORT", "7860"))) as listener:
        serve(settings, listener, on_ready=lambda engine: print(f"ready: {engine}", flush=True))
