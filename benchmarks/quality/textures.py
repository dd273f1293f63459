"""Procedural pictures for training: dead leaves, whose edges and spectrum resemble those of photographs.

    python benchmarks/quality/textures.py --out FOLDER [--photos FOLDER] [--count 200] [--side 512] [--seed 0]

A picture is a pile of leaves of all sizes that hide one another. Their radii follow the density r⁻³, for which the
picture looks alike at every scale (Lee, Mumford and Huang, "Occlusion Models for Natural Images", 2001). Each leaf is a
stretched and rotated ellipse, diamond or rounded rectangle. Its surface is cut out of one of `--photos`. Without
photographs it is a colour with 1/f noise. A picture depends on the seed, its number, the side and the photographs.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from glama_deploy.benchmarks.quality.photos import list_photos
from glama_deploy.io.files import atomic_file
from glama_deploy.io.images import read_bytes

#: Pictures are drawn so many times larger, then made smaller, so that edges are smooth.
OVERSAMPLING = 2

#: Radii of leaves: the least in pixels of the written picture, the greatest as a share of its side.
LEAST_RADIUS, GREATEST_SHARE = 4.0, 0.5

#: Leaves are added until this share of pixels is bare. The rest shows the ground.
BARE_SHARE = 0.002

#: The exponents p of |x/a|ᵖ + |y/b|ᵖ ≤ 1: a diamond, an ellipse, a rounded rectangle.
SHAPES = (1.0, 2.0, 8.0)

#: Standard deviation of 1/f noise on a leaf, at most, in levels of 0 to 255.
NOISE = 30.0


def main() -> None:
    """Parse the options, and write the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.count < 1 or options.side < 8 or options.seed < 0:
        parser.error("--count must be at least 1, --side at least 8, --seed at least 0")
    if options.photos and not options.photos.is_dir():
        parser.error(f"--photos {options.photos} is not a folder")
    photos = list_photos(options.photos) if options.photos else []
    if options.photos and not photos:
        parser.error(f"--photos {options.photos} has no photographs; quality/photographs.py writes such a folder")
    options.out.mkdir(parents=True, exist_ok=True)
    for number in range(options.count):
        rng = np.random.default_rng([options.seed, number])
        surfaces = read_surfaces(photos, rng) if photos else draw_surfaces(options.side, rng)
        picture = Image.fromarray(draw_leaves(options.side, surfaces, rng))
        with atomic_file(options.out / f"leaves-{options.seed}-{number:05}.png") as temporary:
            picture.save(temporary, format="PNG")


def read_surfaces(photos: list[Path], rng: np.random.Generator, count: int = 8) -> list[np.ndarray]:
    """Read some of the photographs, for the leaves of one picture.

    Args:
        photos: the files.
        rng: chooses the photographs.
        count: how many at most.

    Returns:
        The photographs, `uint8` of shape `[H, W, 3]`.
    """
    chosen = rng.choice(len(photos), min(count, len(photos)), replace=False)
    return [read_bytes(photos[index]) for index in chosen]


def draw_surfaces(side: int, rng: np.random.Generator, count: int = 32) -> list[np.ndarray]:
    """Draw surfaces of one colour each with 1/f noise. Their lightness varies more than their hue, as in photographs.

    Args:
        side: height and width in pixels.
        rng: draws colours and noise.
        count: how many.

    Returns:
        The surfaces, `uint8` of shape `[side, side, 3]`.
    """
    frequencies = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side))
    frequencies[0, 0] = np.inf  # no mean
    surfaces = []
    for _ in range(count):
        noise = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((side, side))) / frequencies, s=(side, side))
        colour = rng.uniform(20, 235) + rng.normal(0, 15, 3)
        surface = colour + noise[..., None] / noise.std() * rng.uniform(0, NOISE)
        surfaces.append(np.clip(surface.round(), 0, 255).astype(np.uint8))
    return surfaces


def draw_leaves(side: int, surfaces: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Draw one picture of dead leaves, from the nearest leaf to the farthest.

    Args:
        side: height and width in pixels.
        surfaces: `uint8` of shapes `[H, W, 3]`, from which leaves are cut out at random places.
        rng: draws the leaves.

    Returns:
        The picture, `uint8` of shape `[side, side, 3]`.
    """
    large = side * OVERSAMPLING
    picture = np.zeros((large, large, 3), np.uint8)
    bare = np.ones((large, large), bool)
    left = bare.size
    while left > BARE_SHARE * bare.size:
        left -= _add_leaf(picture, bare, surfaces[rng.integers(len(surfaces))], rng)
    everything = slice(0, large), slice(0, large)
    picture[bare] = _cut_surface(surfaces[rng.integers(len(surfaces))], everything, rng)[bare]
    return np.asarray(Image.fromarray(picture).reduce(OVERSAMPLING))


def draw_radius(least: float, greatest: float, rng: np.random.Generator) -> float:
    """Draw a radius whose density is proportional to r⁻³, by inverting the distribution.

    Args:
        least: lower bound in pixels.
        greatest: upper bound in pixels.
        rng: draws the share of smaller radii.

    Returns:
        The radius in pixels.
    """
    return float((least**-2 + rng.random() * (greatest**-2 - least**-2)) ** -0.5)


def _add_leaf(picture: np.ndarray, bare: np.ndarray, surface: np.ndarray, rng: np.random.Generator) -> int:
    """Draw a leaf below those that are there, and return how many pixels of it are seen."""
    large = len(bare)
    radius = draw_radius(LEAST_RADIUS * OVERSAMPLING, GREATEST_SHARE * large, rng)
    stretch, angle, shape = rng.uniform(1, 2) ** 0.5, rng.uniform(0, np.pi), SHAPES[rng.integers(len(SHAPES))]
    half = radius * stretch * 2**0.5  # the corner of a rectangle is farthest
    y, x = rng.uniform(-half, large + half, 2)
    rows = slice(max(0, int(y - half)), min(large, int(y + half) + 1))
    columns = slice(max(0, int(x - half)), min(large, int(x + half) + 1))
    if not bare[rows, columns].any():
        return 0
    down = np.arange(rows.start, rows.stop)[:, None] - y
    right = np.arange(columns.start, columns.stop) - x
    along = np.abs(right * np.cos(angle) + down * np.sin(angle)) / (radius * stretch)
    across = np.abs(down * np.cos(angle) - right * np.sin(angle)) / (radius / stretch)
    seen = (along**shape + across**shape <= 1) & bare[rows, columns]
    picture[rows, columns][seen] = _cut_surface(surface, (rows, columns), rng)[seen]
    bare[rows, columns] &= ~seen
    return int(seen.sum())


def _cut_surface(surface: np.ndarray, box: tuple[slice, slice], rng: np.random.Generator) -> np.ndarray:
    """Cut a box out of a surface at a random place. A surface goes on as its mirror image beyond its edges."""
    indices = []
    for extent, length in zip(box, surface.shape[:2], strict=True):
        place = (rng.integers(2 * length) + np.arange(extent.stop - extent.start)) % (2 * length)
        indices.append(np.minimum(place, 2 * length - 1 - place))
    return surface[np.ix_(*indices)]


if __name__ == "__main__":
    main()
