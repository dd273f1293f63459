"""LaMa's augmentations of photographs: `transform_variant: distortions` of advimman/lama.

LaMa draws them with albumentations 0.5.2 and imgaug 0.4.0. The same steps, with the same ranges, are made here with
OpenCV and with a generator of the caller's. Each step happens in half of the cases.
"""

from __future__ import annotations

import cv2
import numpy as np

#: The share of photographs that a step changes.
STEP_PROBABILITY = 0.5

#: Largest standard deviation of the corners' distance from the image's corners, as a share of its sides.
MAX_CORNER_SHIFT = 0.06

#: Scales of each axis, and the largest rotation and shear in degrees.
SCALES = (0.7, 1.3)
MAX_ROTATION_DEGREES = 40.0
MAX_SHEAR_DEGREES = 0.1

#: Largest coefficient of the lens (positive: pincushion).
MAX_LENS = 0.05

#: Clip limits and tiles (a side) of the adaptive equalization of the histogram.
CLIP_LIMITS = (1.0, 4.0)
TILES = 8

#: Largest relative change of contrast, and change of brightness as a share of white.
MAX_CONTRAST = 0.2
MAX_BRIGHTNESS = 0.2

#: Largest changes of hue (of 180), saturation and value (of 255).
MAX_HUE, MAX_SATURATION, MAX_VALUE = 5.0, 30.0, 5.0


def bend(image: np.ndarray, side: int, rng: np.random.Generator) -> np.ndarray:
    """Change the perspective, rotate and scale, pad, and distort as a lens does, each or not.

    Args:
        image: uint8 H×W×3.
        side: The result is at least so many pixels high and wide. A smaller one is padded by reflection.
        rng: Draws which steps are made, and how.

    Returns:
        uint8 H'×W'×3.
    """
    if rng.random() < STEP_PROBABILITY:
        image = change_perspective(image, np.abs(rng.normal(0, rng.uniform(0, MAX_CORNER_SHIFT), (4, 2))) % 1)
    if rng.random() < STEP_PROBABILITY:
        scales, rotation = rng.uniform(*SCALES, 2), rng.uniform(-MAX_ROTATION_DEGREES, MAX_ROTATION_DEGREES)
        shears = rng.uniform(-MAX_SHEAR_DEGREES, MAX_SHEAR_DEGREES, 2)
        image = rotate(image, scales, rotation, shears)
    image = pad(image, side)
    if rng.random() < STEP_PROBABILITY:
        image = distort_lens(image, rng.uniform(-MAX_LENS, MAX_LENS))
    return image


def recolour(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Equalize, change contrast and brightness, and shift hue, saturation and value, each or not.

    Args:
        image: uint8 H×W×3, RGB.
        rng: Draws which steps are made, and how.

    Returns:
        uint8 H×W×3.
    """
    if rng.random() < STEP_PROBABILITY:
        image = equalize(image, rng.uniform(*CLIP_LIMITS))
    if rng.random() < STEP_PROBABILITY:
        contrast, brightness = rng.uniform(-MAX_CONTRAST, MAX_CONTRAST), rng.uniform(-MAX_BRIGHTNESS, MAX_BRIGHTNESS)
        image = change_contrast(image, 1 + contrast, brightness)
    if rng.random() < STEP_PROBABILITY:
        most = np.array([MAX_HUE, MAX_SATURATION, MAX_VALUE])
        image = shift_hue(image, *rng.uniform(-most, most))
    return image


def change_perspective(image: np.ndarray, shifts: np.ndarray) -> np.ndarray:
    """Stretch a quadrangle inside the image over all of it.

    Args:
        image: uint8 H×W×3.
        shifts: [4, 2], how far each corner of the quadrangle (top left, top right, bottom right, bottom left) lies
            inside the image's corner, as shares (x, y) of its sides.

    Returns:
        uint8 H×W×3.
    """
    height, width = image.shape[:2]
    inside = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]]) * shifts
    corners = ((np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) + inside) * (width, height)).astype(np.float32)
    lengths = np.linalg.norm(corners - np.roll(corners, -1, axis=0), axis=1)  # top, right, bottom, left
    across, down = max(2, int(max(lengths[0], lengths[2]))), max(2, int(max(lengths[1], lengths[3])))
    target = np.array([[0, 0], [across, 0], [across, down], [0, down]], np.float32)
    matrix = cv2.getPerspectiveTransform(corners, target)
    warped = cv2.warpPerspective(image, matrix, (across, down), borderMode=cv2.BORDER_REPLICATE)
    return cv2.resize(warped, (width, height), interpolation=cv2.INTER_AREA)


def rotate(image: np.ndarray, scales: np.ndarray, degrees: float, shears: np.ndarray) -> np.ndarray:
    """Shear, scale and rotate about the middle. Pixels beyond the image mirror it.

    Args:
        image: uint8 H×W×3.
        scales: Of x and y.
        degrees: Of the rotation, clockwise.
        shears: Of x and y, in degrees.

    Returns:
        uint8 H×W×3.
    """
    height, width = image.shape[:2]
    middle = np.array([width / 2 - 0.5, height / 2 - 0.5])
    turn, shear_x, shear_y = np.deg2rad([degrees, *shears])
    linear = np.array(
        [
            [scales[0] * np.cos(turn), -scales[1] * np.sin(turn + shear_x)],
            [scales[0] * np.sin(turn), scales[1] * np.cos(turn + shear_x)],
        ]
    ) @ np.array([[1, 0], [np.sin(shear_y), np.cos(shear_y)]])
    matrix = np.column_stack([linear, middle - linear @ middle])
    return cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)


def pad(image: np.ndarray, side: int) -> np.ndarray:
    """Pad an image by reflection, evenly on both sides, to at least `side` rows and columns."""
    rows, columns = (max(0, side - extent) for extent in image.shape[:2])
    edges = (rows // 2, rows - rows // 2, columns // 2, columns - columns // 2)
    return cv2.copyMakeBorder(image, *edges, cv2.BORDER_REFLECT_101) if any(edges) else image


def distort_lens(image: np.ndarray, k: float) -> np.ndarray:
    """Distort an image as a lens with the coefficients k1 = k2 = `k` does."""
    height, width = image.shape[:2]
    camera = np.array([[width, 0, width * 0.5], [0, height, height * 0.5], [0, 0, 1]], np.float32)
    coefficients = np.array([k, k, 0, 0, 0], np.float32)
    centred = np.array([[width, 0, (width - 1) * 0.5], [0, height, (height - 1) * 0.5], [0, 0, 1]], np.float32)
    x, y = cv2.initUndistortRectifyMap(camera, coefficients, np.eye(3), centred, (width, height), cv2.CV_32FC1)
    return cv2.remap(image, x, y, interpolation=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)


def equalize(image: np.ndarray, clip_limit: float) -> np.ndarray:
    """Equalize the lightness's histogram tile by tile (CLAHE), uint8 RGB."""
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
    tiles = cv2.createCLAHE(clipLimit=clip_limit, tileGridSize=(TILES, TILES))
    lab[..., 0] = tiles.apply(np.ascontiguousarray(lab[..., 0]))
    return cv2.cvtColor(lab, cv2.COLOR_LAB2RGB)


def change_contrast(image: np.ndarray, contrast: float, brightness: float) -> np.ndarray:
    """Multiply uint8 values by `contrast` and add `brightness` (a share of 255)."""
    levels = np.arange(256, dtype=np.float32) * contrast + brightness * 255
    return np.clip(levels, 0, 255).astype(np.uint8)[image]


def shift_hue(image: np.ndarray, hue: float, saturation: float, value: float) -> np.ndarray:
    """Add to the hue (of 180, which is a circle), the saturation and the value (of 255) of uint8 RGB."""
    levels = np.arange(256)
    tables = (
        np.mod(levels + hue, 180).astype(np.uint8),
        np.clip(levels + saturation, 0, 255).astype(np.uint8),
        np.clip(levels + value, 0, 255).astype(np.uint8),
    )
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    shifted = np.stack([table[hsv[..., channel]] for channel, table in enumerate(tables)], axis=2)
    return cv2.cvtColor(shifted, cv2.COLOR_HSV2RGB)
