"""Draw video.jpg: a frame of a clip with a logo, filled by itself, and filled with --temporal.

python docs/images/video.py

The clip pans over a photograph of benchmarks/photos. It is written and read as H.264.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import glama_deploy
from glama_deploy.inpainting.folder import Masks
from glama_deploy.video.options import VideoOptions
from glama_deploy.video.package import import_av
from glama_deploy.video.run import fill_video, open_job

#: Width and height of the clip, its frames, the frame that is shown, and the pixels by which the camera moves.
SIZE, FRAMES, SHOWN, SPEED = (320, 180), 48, 20, 3

#: The logo, and the mask around it.
LOGO, MASK = (209, 124, 296, 156), (205, 120, 300, 160)

#: Pixels between the pictures.
GAP = 8


def draw_frames() -> Iterator[Image.Image]:
    """Draw the frames of the clip."""
    photo = Image.open(Path(__file__).parents[2] / "benchmarks" / "photos" / "cincinnati-bridge.jpg").convert("RGB")
    for number in range(FRAMES):
        left, top = SPEED * number, 180
        frame = photo.crop((left, top, left + SIZE[0], top + SIZE[1]))
        draw = ImageDraw.Draw(frame)
        draw.rounded_rectangle(LOGO, 8, fill=(235, 60, 50))
        draw.text((217, 132), "CHANNEL", fill=(255, 255, 255), font=ImageFont.load_default(16))
        yield frame


def read_frame(path: Path) -> Image.Image:
    """Read the frame that is shown."""
    with import_av().open(str(path)) as container:
        frames = [frame.to_image() for frame in container.decode(video=0)]
    return frames[SHOWN]


def main() -> None:
    """Draw the picture."""
    av = import_av()
    inpainter = glama_deploy.load("default", "openvino", "fp32", compile_sizes=False)
    with tempfile.TemporaryDirectory() as name:
        source, mask = Path(name) / "clip.mp4", Path(name) / "mask.png"
        with av.open(str(source), "w") as container:
            stream = container.add_stream("libx264", rate=25, options={"crf": "16"})
            stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
            for frame in draw_frames():
                container.mux(stream.encode(av.VideoFrame.from_image(frame)))
            container.mux(stream.encode())
        drawn = Image.new("L", SIZE)
        ImageDraw.Draw(drawn).rounded_rectangle(MASK, 10, fill=255)
        drawn.save(mask)
        shown = [read_frame(source)]
        for reach in (0, 30):
            out = Path(name) / f"{reach}.mp4"
            job = open_job(source, mask, out, Masks(), VideoOptions(reach=reach), overwrite=False)
            fill_video(job, inpainter.fill_frames, "docs")
            shown.append(read_frame(out))
    sheet = np.full((SIZE[1], 3 * SIZE[0] + 2 * GAP, 3), 255, np.uint8)
    for place, frame in enumerate(shown):
        sheet[:, place * (SIZE[0] + GAP) :][:, : SIZE[0]] = np.asarray(frame)
    Image.fromarray(sheet).save(Path(__file__).with_suffix(".jpg"), quality=88)


if __name__ == "__main__":
    main()
