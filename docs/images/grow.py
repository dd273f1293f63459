"""Draw grow.jpg: text in a JPEG of the sample photo, filled with a tight mask, and with masks that grow.

python docs/images/grow.py

The text is drawn with antialiased edges, and the file is a JPEG, as in a picture from the web. The tight mask has the
pixels that the text covers by more than half. PSNR is of the pixels within GROW_PIXELS of the text, against the photo.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import glama_deploy
from glama_deploy.export.samples import SAMPLE
from glama_deploy.inpainting.mask_edits import grow_holes
from glama_deploy.psnr import compute_mean_square, compute_psnr

#: The part of the sample that is shown: left, top, right, bottom.
PART = (260, 300, 660, 470)

#: Pixels by which the masks grow.
GROW_PIXELS = (0, 1, 3, 6)

#: Pixels between the pictures.
GAP = 8


def main() -> None:
    """Draw the picture, and print the PSNR of each mask."""
    photo = Image.open(SAMPLE).convert("RGB")
    cover = Image.new("L", photo.size)
    ImageDraw.Draw(cover).text((300, 350), "© holiday 2026", fill=255, font=ImageFont.load_default(44))
    texted = photo.copy()
    texted.paste((255, 255, 255), mask=cover)
    file = io.BytesIO()
    texted.save(file, "JPEG", quality=85)
    image = np.asarray(Image.open(file))
    tight = np.asarray(cover) > 127
    judged = grow_holes(tight, GROW_PIXELS[-1])
    inpainter = glama_deploy.load("default", "openvino", "fp32")
    shown = [Image.fromarray(image)]
    for pixels in GROW_PIXELS:
        filled = inpainter(image, grow_holes(tight, pixels))
        error = compute_mean_square(filled[judged], np.asarray(photo)[judged])
        print(f"grown by {pixels}: {compute_psnr(error):.1f} dB")
        shown.append(Image.fromarray(filled))
    shown = [shown[0], shown[1], shown[3]]
    width, height = PART[2] - PART[0], PART[3] - PART[1]
    sheet = Image.new("RGB", (3 * width + 2 * GAP, height), (255, 255, 255))
    for place, picture in enumerate(shown):
        sheet.paste(picture.crop(PART), (place * (width + GAP), 0))
    sheet.save(Path(__file__).parent / "grow.jpg", quality=85)


if __name__ == "__main__":
    main()
