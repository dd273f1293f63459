"""Fill the frames of a video: show the network what it needs of each, and write the missing pixels back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from glama_deploy.inpainting.boxes import Span, bounding_box
from glama_deploy.inpainting.mask_edits import MaskEdits, blend_rim
from glama_deploy.video.clip import Clip
from glama_deploy.video.reading import Decoded
from glama_deploy.video.temporal import Neighbour, Shown, find_background, find_known, look_at

#: Fills images B×H×W×3 (uint8 or uint16) that share one mask (bool H×W).
FillFrames = Callable[[np.ndarray, np.ndarray], np.ndarray]

#: Pixels that the network is shown around the holes, beside the length of the longest side of all holes together. The
#: boxes that the planner makes lie within.
_AROUND_PIXELS = 128

#: A part of a frame begins at a multiple of this many pixels, as the planner's boxes do.
_STEP_PIXELS = 16


@dataclass(frozen=True)
class Task:
    """A frame that is filled.

    Attributes:
        decoded: the frame.
        missing: bool H×W, True where a pixel is missing.
        shown: the frame as its neighbours look at it, if they do.
        others: the frames around it, the nearest first.
    """

    decoded: Decoded
    missing: np.ndarray
    shown: Shown | None = None
    others: Sequence[Neighbour] = ()


class FrameFiller:
    """Fills frames of a clip.

    Args:
        clip: the clip.
        fill_frames: the inpainter.
        edits: how the rim of the holes is blended.
        is_whole: whether the network is shown whole frames.
    """

    def __init__(self, clip: Clip, fill_frames: FillFrames, edits: MaskEdits, *, is_whole: bool = False) -> None:
        self._format, self._size = clip.format, clip.size
        self._fill_frames, self._feather = fill_frames, edits.feather
        self._is_whole = is_whole
        nothing = np.zeros(0, bool)
        #: The mask that was looked at last, the mask of whole blocks, and the pixels that other frames may take.
        self._looked = nothing, nothing, nothing

    def look_at(self, decoded: Decoded, missing: np.ndarray) -> Shown:
        """Prepare a frame for its neighbours.

        Args:
            decoded: the frame.
            missing: bool H×W.

        Returns:
            The frame as its neighbours look at it.
        """
        if missing is not self._looked[0]:
            covered = self._format.cover_blocks(missing)
            self._looked = missing, covered, find_known(covered)
        rgb = self._format.show(decoded.frame, Span(0, 0, *self._size))
        return look_at(rgb, *self._looked[1:])

    def fill(self, tasks: Sequence[Task]) -> list[Decoded]:
        """Fill frames that share one mask.

        Args:
            tasks: the frames. Their planes are changed.

        Returns:
            The frames.
        """
        missing = tasks[0].missing
        if missing.any():
            shown = self._format.cover_blocks(missing)
            span = self._choose_part(shown)
            images = np.stack([self._show(task, span) for task in tasks])
            filled = self._fill_images(tasks, images, shown, span)
            for task, image, before in zip(tasks, filled, images, strict=True):
                if self._feather:
                    image = blend_rim(before, image, shown[span.slices], self._feather)
                task.decoded.frame.make_writable()
                self._format.write(task.decoded.frame, span, image, missing[span.slices])
        return [task.decoded for task in tasks]

    def _fill_images(self, tasks: Sequence[Task], images: np.ndarray, shown: np.ndarray, span: Span) -> np.ndarray:
        """Return the parts of the frames (B×h×w×3), filled."""
        if tasks[0].shown is None:
            return self._fill_frames(images, shown[span.slices])
        results = []
        for task in tasks:
            assert task.shown is not None
            rgb, left = find_background(task.shown, task.others)
            part, left = rgb[span.slices], np.ascontiguousarray(left[span.slices])
            results.append(self._fill_frames(np.ascontiguousarray(part)[None], left)[0] if left.any() else part)
        return np.stack(results)

    def _show(self, task: Task, span: Span) -> np.ndarray:
        """Return a part of a frame in RGB."""
        if task.shown is not None:
            return task.shown.rgb[span.slices]
        return self._format.show(task.decoded.frame, span)

    def _choose_part(self, missing: np.ndarray) -> Span:
        """Return the part of the frame that the network may see."""
        height, width = self._size
        if self._is_whole:
            return Span(0, 0, height, width)
        hole = bounding_box(missing)
        wide = hole.grown(_AROUND_PIXELS + max(hole.size))
        return Span(
            max(0, wide.top) // _STEP_PIXELS * _STEP_PIXELS,
            max(0, wide.left) // _STEP_PIXELS * _STEP_PIXELS,
            min(height, -(-wide.bottom // _STEP_PIXELS) * _STEP_PIXELS),
            min(width, -(-wide.right // _STEP_PIXELS) * _STEP_PIXELS),
        )
