"""LaMa's augmentations of photographs: `transform_variant: distortions` of advimman/lama.

LaMa uses albumentations 0.5.2 and imgaug 0.4.0. This module has the same steps with the same ranges, with OpenCV and
with the caller's generator of random numbers. Each step is applied to half of the photographs.
"""

from __future__ import annotations

import cv2
import numpy as np

#: Probability of each step.
STEP_PROBABILITY = 0.5

#: Largest standard deviation of the distances of the quadrangle's corners from the image's corners, as a share of the
#: image's sides.
MAX_CORNER_SHIFT_SHARE = 0.06

#: Range of the scale of each axis.
SCALE_RANGE = (0.7, 1.3)

#: Largest rotation.
MAX_ROTATION_DEGREES = 40.0

#: Largest shear.
MAX_SHEAR_DEGREES = 0.1

#: Largest coefficient of the lens distortion. Positive coefficients give a pincushion.
MAX_LENS_COEFFICIENT = 0.05

#: Range of the clip limit of the adaptive equalization of the histogram.
CLIP_LIMIT_RANGE = (1.0, 4.0)

#: Number of tiles along each side of the adaptive equalization.
TILES_PER_SIDE = 8

#: Largest relative change of contrast.
MAX_CONTRAST_CHANGE = 0.2

#: Largest change of brightness, as a share of white.
MAX_BRIGHTNESS_CHANGE = 0.2

#: Largest change of hue, whose range is 0 to 180.
MAX_HUE_CHANGE = 5.0

#: Largest change of saturation, whose range is 0 to 255.
MAX_SATURATION_CHANGE = 30.0

#: Largest change of value, whose range is 0 to 255.
MAX_VALUE_CHANGE = 5.0


def bend(image: np.ndarray, side: int, rng: np.random.Generator) -> np.ndarray:
    """Change the perspective, rotate and scale, pad, and apply a lens distortion, each step at random.

    Args:
        image: uint8 H×W×3.
        side: Smallest height and width of the result in pixels. A smaller image is padded by reflection.
        rng: Generator of random numbers.

    Returns:
        uint8 H'×W'×3.
    """
    if rng.random() < STEP_PROBABILITY:
        image = change_perspective(image, np.abs(rng.normal(0, rng.uniform(0, MAX_CORNER_SHIFT_SHARE), (4, 2))) % 1)
    if rng.random() < STEP_PROBABILITY:
        scales, rotation = rng.uniform(*SCALE_RANGE, 2), rng.uniform(-MAX_ROTATION_DEGREES, MAX_ROTATION_DEGREES)
        shears = rng.uniform(-MAX_SHEAR_DEGREES, MAX_SHEAR_DEGREES, 2)
        image = rotate(image, scales, rotation, shears)
    image = pad(image, side)
    if rng.random() < STEP_PROBABILITY:
        image = distort_lens(image, rng.uniform(-MAX_LENS_COEFFICIENT, MAX_LENS_COEFFICIENT))
    return image


def recolour(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Equalize, change contrast and brightness, and shift hue, saturation and value, each step at random.

    Args:
        image: uint8 H×W×3, RGB.
        rng: Generator of random numbers.

    Returns:
        uint8 H×W×3.
    """
    if rng.random() < STEP_PROBABILITY:
        image = equalize(image, rng.uniform(*CLIP_LIMIT_RANGE))
    if rng.random() < STEP_PROBABILITY:
        contrast, brightness = (
            rng.uniform(-MAX_CONTRAST_CHANGE, MAX_CONTRAST_CHANGE),
            rng.uniform(-MAX_BRIGHTNESS_CHANGE, MAX_BRIGHTNESS_CHANGE),
        )
        image = change_contrast(image, 1 + contrast, brightness)
    if rng.random() < STEP_PROBABILITY:
        largest = np.array([MAX_HUE_CHANGE, MAX_SATURATION_CHANGE, MAX_VALUE_CHANGE])
        image = shift_hue(image, *rng.uniform(-largest, largest))
    return image


def change_perspective(image: np.ndarray, shifts: np.ndarray) -> np.ndarray:
    """Stretch a quadrangle inside the image to the whole image.

    Args:
        image: uint8 H×W×3.
        shifts: [4, 2], the distances (x, y) of the quadrangle's corners (top left, top right, bottom right, bottom
            left) from the image's corners, as shares of the image's sides.

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
    """Shear, scale and rotate an image about its middle. The image is mirrored beyond its edges.

    Args:
        image: uint8 H×W×3.
        scales: [2], scale of x and of y.
        degrees: Angle of the rotation in degrees, clockwise.
        shears: [2], shear of x and of y in degrees.

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
    """Pad an image by reflection, evenly on both sides.

    Args:
        image: uint8 H×W×3.
        side: Smallest height and width of the result in pixels.

    Returns:
        uint8 max(H, side)×max(W, side)×3.
    """
    rows, columns = (max(0, side - extent) for extent in image.shape[:2])
    edges = (rows // 2, rows - rows // 2, columns // 2, columns - columns // 2)
    return cv2.copyMakeBorder(image, *edges, cv2.BORDER_REFLECT_101) if any(edges) else image


def distort_lens(image: np.ndarray, k: float) -> np.ndarray:
    """Apply a lens distortion.

    Args:
        image: uint8 H×W×3.
        k: The coefficients k1 = k2 of the distortion.

    Returns:
        uint8 H×W×3.
    """
    height, width = image.shape[:2]
    camera = np.array([[width, 0, width * 0.5], [0, height, height * 0.5], [0, 0, 1]], np.float32)
    coefficients = np.array([k, k, 0, 0, 0], np.float32)
    centred = np.array([[width, 0, (width - 1) * 0.5], [0, height, (height - 1) * 0.5], [0, 0, 1]], np.float32)
    x, y = cv2.initUndistortRectifyMap(camera, coefficients, np.eye(3), centred, (width, height), cv2.CV_32FC1)
    return cv2.remap(image, x, y, interpolation=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)


def equalize(image: np.ndarray, clip_limit: float) -> np.ndarray:
    """Equalize the histogram of the lightness tile by tile (CLAHE).

    Args:
        image: uint8 H×W×3, RGB.
        clip_limit: Contrast limit of CLAHE.

    Returns:
        uint8 H×W×3, RGB.
    """
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
    tiles = cv2.createCLAHE(clipLimit=clip_limit, tileGridSize=(TILES_PER_SIDE, TILES_PER_SIDE))
    lab[..., 0] = tiles.apply(np.ascontiguousarray(lab[..., 0]))
    return cv2.cvtColor(lab, cv2.COLOR_LAB2RGB)


def change_contrast(image: np.ndarray, contrast: float, brightness: float) -> np.ndarray:
    """Change the contrast and the brightness.

    Args:
        image: uint8 H×W×3.
        contrast: Factor of all values.
        brightness: Added to all values after the multiplication, as a share of 255.

    Returns:
        uint8 H×W×3.
    """
    levels = np.arange(256, dtype=np.float32) * contrast + brightness * 255
    return np.clip(levels, 0, 255).astype(np.uint8)[image]


def shift_hue(image: np.ndarray, hue: float, saturation: float, value: float) -> np.ndarray:
    """Shift the hue, the saturation and the value.

    Args:
        image: uint8 H×W×3, RGB.
        hue: Added to the hue, modulo 180.
        saturation: Added to the saturation, limited to 0…255.
        value: Added to the value, limited to 0…255.

    Returns:
        uint8 H×W×3, RGB.
    """
    levels = np.arange(256)
    tables = (
        np.mod(levels + hue, 180).astype(np.uint8),
        np.clip(levels + saturation, 0, 255).astype(np.uint8),
        np.clip(levels + value, 0, 255).astype(np.uint8),
    )
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    shifted = np.stack([table[hsv[..., channel]] for channel, table in enumerate(tables)], axis=2)
    return cv2.cvtColor(shifted, cv2.COLOR_HSV2RGB)
