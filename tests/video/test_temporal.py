"""What other frames show behind the mask."""

from __future__ import annotations

import numpy as np
import pytest

from glama_deploy.inpainting.boxes import Span
from glama_deploy.video.registration import correlate, reduce_frame, sample
from glama_deploy.video.temporal import Neighbour, Shown, find_background, find_known, look_at, with_neighbours

SIZE = (80, 120)


def draw_scene(row: float, column: float) -> np.ndarray:
    """The part of a scene (H×W×3, 0 to 255) at any place. Fourier's shift theorem moves it exactly between pixels.

    The amplitude of a wave is proportional to its length, as in photographs. The scene repeats after 256 pixels.
    """
    rng = np.random.default_rng(0)
    frequencies = np.fft.fftfreq(256)
    rows, columns = frequencies[:, None], frequencies[None, :]
    strength = np.hypot(rows, columns)
    shape = np.where((strength > 0) & (strength < 0.35), 1 / np.maximum(strength, 1e-3), 0)
    moved = np.exp(2j * np.pi * (rows * row + columns * column))
    spectra = (np.fft.fft2(rng.standard_normal((256, 256))) * shape * moved for _ in range(3))
    channels = [np.fft.ifft2(spectrum).real for spectrum in spectra]
    return np.stack(channels, axis=2)[: SIZE[0], : SIZE[1]] * 1.8 + 127


def take_frame(row: float, column: float) -> np.ndarray:
    return draw_scene(row, column).round().clip(0, 255).astype(np.uint8)


def number(shown: list[Shown], at: int) -> list[Neighbour]:
    """The other frames with their distance, the nearest first."""
    places = sorted((place for place in range(len(shown)) if place != at), key=lambda place: abs(place - at))
    return [(place - at, shown[place]) for place in places]


def look(frame: np.ndarray, mask: np.ndarray) -> Shown:
    return look_at(frame, mask, find_known(mask))


@pytest.fixture
def logo() -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    mask[30:50, 50:75] = True
    return mask


def cover(frame: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return np.where(mask[..., None], np.uint8(255), frame)


@pytest.mark.parametrize("speed", [(0, 4), (0.3, 2.7), (-1.5, 3.25)])
def test_a_pan_shows_what_a_logo_covers(speed, logo):
    frames = [take_frame(speed[0] * place, speed[1] * place) for place in range(24)]
    shown = [look(cover(frame, logo), logo) for frame in frames]
    filled, left = find_background(shown[4], number(shown, 4))
    assert not left.any()
    # the median of samples between pixels is blurred a little, and each is rounded: 3 of 255
    assert np.abs(filled[logo].astype(int) - frames[4][logo]).mean() < 3
    np.testing.assert_array_equal(filled[~logo], frames[4][~logo])


def test_a_still_camera_gives_the_exact_pixels_behind_an_object():
    frame = take_frame(0, 0)
    masks = []
    for place in range(12):
        mask = np.zeros(SIZE, bool)
        mask[30:50, 10 + 6 * place : 25 + 6 * place] = True
        masks.append(mask)
    shown = [look(cover(frame, mask), mask) for mask in masks]
    filled, left = find_background(shown[5], number(shown, 5))
    assert not left.any()
    np.testing.assert_array_equal(filled, frame)


def test_a_logo_of_a_still_camera_is_left_to_the_network(logo):
    shown = [look(cover(take_frame(0, 0), logo), logo) for _ in range(6)]
    filled, left = find_background(shown[0], number(shown, 0))
    np.testing.assert_array_equal(left, logo)
    np.testing.assert_array_equal(filled, shown[0].rgb)


def test_another_scene_is_not_taken(logo):
    rng = np.random.default_rng(0)
    other = [look(rng.integers(0, 256, (*SIZE, 3), np.uint8), np.zeros(SIZE, bool)) for _ in range(4)]
    _, left = find_background(look(cover(take_frame(0, 0), logo), logo), [*enumerate(other, 1)])
    np.testing.assert_array_equal(left, logo)


def test_phase_correlation_finds_a_movement_between_pixels():
    everything = np.ones(SIZE, bool)
    one, other = (
        reduce_frame(take_frame(*place).mean(axis=2, dtype=np.float32), everything) for place in ((0, 0), (1.5, -6.25))
    )
    # the parabola through the peak is exact to about a third of a pixel; the refinement does the rest
    np.testing.assert_allclose(correlate(one, other), (-1.5, 6.25), atol=0.35)


def test_samples_between_pixels_follow_the_scene():
    found = sample(take_frame(0, 0), Span(10, 10, 40, 60), (2.25, 3.5))
    # a cubic kernel blurs the shortest waves, which are weak; and the frame is rounded
    assert np.abs(found - draw_scene(2.25, 3.5)[10:40, 10:60]).mean() < 1


def test_each_frame_gets_the_frames_around_it():
    found = [
        (frame, others)
        for frame, others in with_neighbours(iter(range(6)), 2)  # type: ignore[arg-type]
    ]
    assert found == [
        (0, [(1, 1), (2, 2)]),
        (1, [(-1, 0), (1, 2), (2, 3)]),
        (2, [(-1, 1), (1, 3), (-2, 0), (2, 4)]),
        (3, [(-1, 2), (1, 4), (-2, 1), (2, 5)]),
        (4, [(-1, 3), (1, 5), (-2, 2)]),
        (5, [(-1, 4), (-2, 3)]),
    ]
    assert [frame for frame, _ in with_neighbours(iter(range(2)), 5)] == [0, 1]  # type: ignore[arg-type]
