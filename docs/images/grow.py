"""Draw grow.jpg: text in a JPEG of the sample photo, filled with a tight mask, and with the same mask grown.

python docs/images/grow.py

The text is drawn with antialiased edges, and the file is a JPEG, as in a picture from the web. The tight mask has the
pixels that the text covers by more than half. The PSNR is that against the photo, of the pixels that the mask marks,
and of the pixels within SHOWN_GROW pixels of the text, which are the same for each mask.
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
PART = (260, 325, 660, 425)

#: Pixels by which the masks grow, and the grown mask that is shown.
GROW_PIXELS = (0, 1, 3, 6)
SHOWN_GROW = 3

#: Pixels between the pictures.
GAP = 8


def make_picture() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the photo, the photo with text as a JPEG stores it (uint8 H×W×3), and the tight mask (bool H×W)."""
    photo = Image.open(SAMPLE).convert("RGB")
    cover = Image.new("L", photo.size)
    ImageDraw.Draw(cover).text((300, 350), "© holiday 2026", fill=255, font=ImageFont.load_default(44))
    texted = photo.copy()
    texted.paste((255, 255, 255), mask=cover)
    file = io.BytesIO()
    texted.save(file, "JPEG", quality=85)
    return np.asarray(photo), np.asarray(Image.open(file)), np.asarray(cover) > 127


def measure(filled: np.ndarray, photo: np.ndarray, judged: np.ndarray) -> float:
    """Return the PSNR of the judged pixels (bool H×W) in dB."""
    return compute_psnr(compute_mean_square(filled[judged], photo[judged]))


def main() -> None:
    """Draw the picture, and print the PSNR of each mask."""
    photo, image, tight = make_picture()
    inpainter = glama_deploy.load("default", "openvino", "fp32", compile_sizes=False)
    shown = {}
    for pixels in GROW_PIXELS:
        mask = grow_holes(tight, pixels)
        filled = inpainter(image, mask)
        own, same = (measure(filled, photo, judged) for judged in (mask, grow_holes(tight, SHOWN_GROW)))
        print(f"grown by {pixels}: {own:.1f} dB of the missing pixels, {same:.1f} dB within {SHOWN_GROW} pixels")
        shown[pixels] = mask, filled
    columns = [[image, photo], *([_show_mask(shown[pixels][0]), shown[pixels][1]] for pixels in (0, SHOWN_GROW))]
    width, height = PART[2] - PART[0], PART[3] - PART[1]
    sheet = Image.new("RGB", (3 * width + 2 * GAP, 2 * height + GAP), (255, 255, 255))
    for column, pictures in enumerate(columns):
        for row, picture in enumerate(pictures):
            place = column * (width + GAP), row * (height + GAP)
            sheet.paste(Image.fromarray(picture).crop(PART), place)
    sheet.save(Path(__file__).parent / "grow.jpg", quality=85)


def _show_mask(mask: np.ndarray) -> np.ndarray:
    """Return a mask as a picture, uint8 H×W×3."""
    return np.repeat(np.where(mask, np.uint8(255), np.uint8(0))[..., None], 3, axis=2)


if __name__ == "__main__":
    main()
