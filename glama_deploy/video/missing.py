"""The missing pixels of each frame: one mask for all, a video of masks, or a folder of masks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from glama_deploy.errors import GlamaError, ImageError
from glama_deploy.inpainting.boxes import Span
from glama_deploy.inpainting.folder import Masks, read_frame_mask
from glama_deploy.io.images import READ_SUFFIXES, Picture
from glama_deploy.io.mask_files import SENT_THRESHOLD
from glama_deploy.video.clip import Clip, read_clip, turn_mask
from glama_deploy.video.options import is_video
from glama_deploy.video.package import show_time
from glama_deploy.video.reading import FrameReader


class FrameMasks:
    """The masks of a clip.

    Attributes:
        fixed: the mask of all frames, bool H×W as frames are stored; None where each frame has a mask of its own.

    Args:
        clip: the clip.
        path: a mask file, a video, or a folder; None for marks alone.
        masks: how masks are made.

    Raises:
        GlamaError: the masks cannot be read, are of another size, or are of another number than the frames.
    """

    def __init__(self, clip: Clip, path: Path | None, masks: Masks) -> None:
        self._clip, self._path, self._masks = clip, path, masks
        self._marked = self._draw_marks()
        self._files: list[Path] = []
        self._mask_clip: Clip | None = None
        self.fixed: np.ndarray | None = None
        if path is None:
            self.fixed = self._finish(np.zeros(clip.shown_size, bool))
        elif path.is_dir():
            names = [file for file in path.iterdir() if file.suffix.lower() in READ_SUFFIXES]
            self._files = sorted(names, key=lambda file: _split_numbers(file.name))
            if not names:
                raise ImageError(f"{path} has no masks; give masks, or one mask for all frames")
            self._check_count(len(self._files))
        elif is_video(path):
            self._mask_clip = read_clip(path)
            found, expected = self._mask_clip.shown_size, clip.shown_size
            if found != expected:
                raise ImageError(
                    f"{path} is {found[1]}x{found[0]}, and the frames are {expected[1]}x{expected[0]} (width x height, "
                    "as they are shown); give masks of the frames"
                )
            self._check_count(self._mask_clip.count)
        elif not path.exists():
            raise ImageError(f"no mask at {path}; check the path")
        else:
            self.fixed = self._finish(read_frame_mask(path, clip.shown_size, Masks(masks.rule)))

    def __iter__(self) -> Iterator[np.ndarray]:
        """Read the masks of the frames, one after the other.

        Yields:
            bool H×W as frames are stored, True where a pixel is missing. Without end where one mask serves all.

        Raises:
            ImageError: a mask cannot be read, or has another size.
        """
        while self.fixed is not None:
            yield self.fixed
        if self._mask_clip is not None:
            yield from self._read_video(self._mask_clip)
        for file in self._files:
            yield self._finish(read_frame_mask(file, self._clip.shown_size, Masks(self._masks.rule)))

    @property
    def files(self) -> list[Path]:
        """The files that hold the masks; empty for marks alone."""
        if self._mask_clip is not None:
            return self._mask_clip.files
        return self._files or ([self._path] if self._path is not None else [])

    def refuse_end(self, number: int) -> ImageError:
        """Make the error for frames that are more or fewer than their masks.

        Args:
            number: number of frames for which there are masks.

        Returns:
            The error.
        """
        return ImageError(
            f"{self._path} and {self._clip.path} have different numbers of frames: one ends after {number}; give "
            "one mask for each frame, or one mask for all"
        )

    def describe(self) -> str:
        """Return a text that is another one for other masks.

        Returns:
            The text.
        """
        if self.fixed is not None:
            return f"{np.packbits(self.fixed).tobytes().hex()}"
        stamps = [(str(file.absolute()), (found := file.stat()).st_size, found.st_mtime_ns) for file in self.files]
        return repr((stamps, self._masks.rule, self._masks.edits, self._masks.marks.rectangles))

    def _read_video(self, mask_clip: Clip) -> Iterator[np.ndarray]:
        """Read the masks of a video."""
        reader = FrameReader(mask_clip)
        rule = self._masks.rule
        threshold = SENT_THRESHOLD if rule.threshold is None else rule.threshold
        for decoded in reader:
            if reader.damaged:
                raise ImageError(
                    f"{mask_clip.path} is damaged at {show_time(reader.damaged[0])}; give another mask video"
                )
            rgb = mask_clip.format.show(decoded.frame, Span(0, 0, *mask_clip.size))
            values = rgb.max(axis=2) if rgb.dtype == np.uint8 else (rgb.max(axis=2) // 257).astype(np.uint8)
            bright = values > threshold if not rule.invert else 255 - values > threshold
            yield self._finish(mask_clip.orientation.show(bright))

    def _finish(self, missing: np.ndarray) -> np.ndarray:
        """Join a mask (as shown) with the marks, edit it, and turn it as frames are stored."""
        mask = self._masks.edits.edit(missing | self._marked)
        if mask.all():
            raise ImageError(
                f"{self._path or self._clip.path}: every pixel is marked as missing; known pixels are needed"
            )
        return np.ascontiguousarray(turn_mask(mask, self._clip))

    def _draw_marks(self) -> np.ndarray:
        """Return what rectangles mark, as shown."""
        marks = self._masks.marks
        if marks.colors or marks.annotations is not None:
            raise GlamaError("`color` and `annotations` are for pictures; give a video `mask` or `box`")
        if self._masks.rule.source != "auto" and self._path is not None and is_video(self._path):
            raise GlamaError("`mask_from` is for mask files; a mask video is read by its brightest channel")
        blank = Picture(np.zeros((*self._clip.shown_size, 3), np.uint8))
        return marks.find_missing(blank, self._clip.path)

    def _check_count(self, count: int) -> None:
        """Raise ImageError if the numbers of masks and of frames are known, and differ."""
        if self._clip.count and count and count != self._clip.count:
            raise ImageError(
                f"{self._path} has {count} masks, and {self._clip.path} has {self._clip.count} frames; give one mask "
                "for each frame, or one mask for all"
            )


def _split_numbers(name: str) -> list[tuple[int, str]]:
    """Return a key that sorts names by the numbers in them."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name)]
