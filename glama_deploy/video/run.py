"""Fill a video: frames are read, filled and encoded beside each other, segment by segment.

    reader thread → frames and masks → fills (threads) → encoder thread → segments → the output

Queues between the threads are short, so the memory holds few frames. Segments that a killed run finished are kept
(:mod:`glama_deploy.video.segments`); their frames are decoded again, and not filled.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np

import glama_deploy
from glama_deploy import memory
from glama_deploy.errors import GlamaError, ImageError
from glama_deploy.inpainting.folder import Masks
from glama_deploy.inpainting.in_order import map_in_order
from glama_deploy.io.files import check_overwrite, check_writable
from glama_deploy.video.clip import Clip, read_clip
from glama_deploy.video.encoders import Encoding, check_encoding, choose_encoding, choose_pictures
from glama_deploy.video.filling import FillFrames, FrameFiller, Task
from glama_deploy.video.joining import check_streams, join_segments, list_pictures
from glama_deploy.video.missing import FrameMasks
from glama_deploy.video.options import CONTAINERS, VideoOptions
from glama_deploy.video.package import describe_error, import_av, show_time
from glama_deploy.video.reading import Decoded, FrameReader
from glama_deploy.video.segments import Segment, SegmentWriter, WorkFolder
from glama_deploy.video.sequences import is_pattern
from glama_deploy.video.temporal import Shown, count_bytes, with_neighbours

log = logging.getLogger("glama_deploy")

_Item = TypeVar("_Item")

#: Frames that wait between two threads.
_WAITING_FRAMES = 8

#: Seconds after which a wait for a queue begins again.
_WAIT_SECONDS = 0.5

#: The share of the free memory that the frames around a frame may take.
_MOST_MEMORY = 0.5

#: Damaged places that a message lists.
_LISTED_TIMES = 5


@dataclass(frozen=True)
class VideoJob:
    """A video that is filled.

    Attributes:
        clip: the source.
        masks: the missing pixels of each frame.
        out: the output.
        encoding: how frames are encoded.
        copied: numbers of the source's streams that are copied.
        made: how masks are made.
        options: further options.
    """

    clip: Clip
    masks: FrameMasks
    out: Path
    encoding: Encoding
    copied: list[int]
    made: Masks
    options: VideoOptions


@dataclass
class Outcome:
    """What came of a run.

    Attributes:
        frames: frames of the output.
        reused: frames that an earlier run had finished.
        kept: frames in whole segments, from which the same command goes on if the run ended early.
        damaged: times in seconds at which the source is damaged.
        is_cut: whether the run ended early.
        playable: the file with the frames so far, if the run ended early and has any.
    """

    frames: int = 0
    reused: int = 0
    kept: int = 0
    damaged: list[float] = field(default_factory=list)
    is_cut: bool = False
    playable: Path | None = None


def open_job(
    image: Path, mask: Path | None, out: Path, made: Masks, options: VideoOptions, *, overwrite: bool
) -> VideoJob:
    """Read the headers of a video and its masks, and check all that can be checked before the work.

    Args:
        image: the video, or the pattern of a numbered sequence of pictures.
        mask: a mask for all frames, a video of masks, or a folder of masks; None if rectangles mark the pixels.
        out: the output.
        made: how masks are made.
        options: how the video is encoded.
        overwrite: whether an output that exists is replaced.

    Returns:
        The job.

    Raises:
        GlamaError: an input cannot be read or is not supported, or the output cannot be written.
    """
    suffix = out.suffix.lower()
    if is_pattern(out) and suffix != ".png":
        raise ImageError(f"{out}: numbered pictures are written as .png; give such a pattern, or a video")
    if not is_pattern(out) and suffix not in CONTAINERS:
        raise ImageError(
            f"{out} has the suffix {suffix or 'of no format'}; a video is written as {', '.join(sorted(CONTAINERS))}"
        )
    if not (out.parent.parent if is_pattern(out) else out.parent).is_dir():  # the folder of pictures is made
        raise GlamaError(f"cannot write {out}: its folder does not exist; create the folder first")
    for path, name in ((image, "video"), (mask, "mask")):
        if path is not None and out.exists() and path.exists() and out.samefile(path):
            raise GlamaError(f"`out` {out} is the {name} itself; give another file")
    check_overwrite(out, is_there=out.exists(), overwrite=overwrite, place="file")
    check_writable(out)
    clip = read_clip(image)
    _check_memory(clip, options.reach)
    masks = FrameMasks(clip, mask, made)
    if masks.fixed is not None and not masks.fixed.any():
        raise ImageError(
            f"{mask or image}: no pixel is marked as missing, so no frame changes; white is missing: draw the mask, or "
            "set `invert` if black is"
        )
    if is_pattern(out):
        if clip.has_other_streams:
            log.warning("numbered pictures have no sound and no subtitles: those of %s are left out", image)
        _check_pictures(list(list_pictures(out, clip, max(1, clip.count))), masks, clip, overwrite=overwrite)
        encoding = choose_pictures(clip, out, options.codec, options.quality)
        copied = []
    else:
        encoding = choose_encoding(clip, out, options.codec, options.quality)
        copied = check_streams(clip, out)
    check_encoding(encoding, clip)
    job = VideoJob(clip, masks, out, encoding, copied, made, options)
    if not overwrite:
        WorkFolder(out).check(_identify(job))
    return job


def _check_pictures(pictures: list[Path], masks: FrameMasks, clip: Clip, *, overwrite: bool) -> None:
    """Raise GlamaError if a picture of the output is an input, or exists and is not to be replaced."""
    there = [path for path in pictures if path.exists()]
    if not there:
        return
    inputs = {path.resolve() for path in (*clip.files, *masks.files)}
    own = next((path for path in there if path.resolve() in inputs), None)
    if own is not None:
        raise GlamaError(f"`out` would replace {own}, which is an input; give another folder or name")
    check_overwrite(there[0], is_there=True, overwrite=overwrite, place="folder")


def _check_memory(clip: Clip, reach: int) -> None:
    """Raise ImageError if the frames around a frame would take most of the memory."""
    needed, free = count_bytes(clip.size, np.dtype(clip.format.shown_dtype), reach), memory.available()
    if reach and free is not None and needed > _MOST_MEMORY * free:
        raise ImageError(
            f"`temporal_frames` is {reach}, which takes {needed / 1e9:.1f} GB for {clip.size[1]}x{clip.size[0]}, and "
            f"{free / 1e9:.1f} GB are free; give fewer frames"
        )


def fill_video(
    job: VideoJob,
    fill_frames: FillFrames,
    identity: str,
    *,
    batch: int = 1,
    at_once: int = 1,
    is_whole: bool = False,
    overwrite: bool = False,
    is_over: Callable[[], bool] = lambda: False,
    on_frames: Callable[[int], None] = lambda frames: None,
) -> Outcome:
    """Fill a video.

    Args:
        job: the job.
        fill_frames: the inpainter, for frames with one mask.
        identity: the model, the engine and the options that the filled pixels depend on.
        batch: frames that are filled together where they share a mask.
        at_once: fills at once, each in a thread.
        is_whole: whether the network is shown whole frames.
        overwrite: whether segments of another job are removed.
        is_over: tells whether to end early. The frames so far are then written to a file that can be played.
        on_frames: is called with the number of frames that are finished.

    Returns:
        What came of the run. The output is written, unless the run ended early.

    Raises:
        GlamaError: a frame cannot be read, filled or written. Finished segments are kept.
    """
    folder = WorkFolder(job.out)
    with folder.open({**_identify(job), "model, engine or region": identity}, overwrite=overwrite) as finished:
        if finished:
            log.warning("%d frames of an earlier run are taken", sum(len(segment.times) for segment in finished))
        run = _Run(job, folder, finished, is_over, on_frames)
        outcome = run.fill(FrameFiller(job.clip, fill_frames, job.made.edits, is_whole=is_whole), batch, at_once)
        if not outcome.is_cut:
            folder.clear()
    return outcome


def _identify(job: VideoJob) -> dict[str, str]:
    """Return what the frames depend on before a model is opened, by the names that a message has."""
    return {
        "version of glama-deploy or PyAV": repr((glama_deploy.__version__, import_av().__version__)),
        "source": _describe(job.clip),
        "mask": repr((job.masks.describe(), job.made.edits)),
        "codec, quality or other option": repr((job.encoding, job.options)),
    }


def _describe(clip: Clip) -> str:
    """Return a text that is another one for another source."""
    return repr([(str(path.absolute()), path.stat().st_size, path.stat().st_mtime_ns) for path in clip.files])


class _Run:
    """A run over a video.

    Args:
        job: the job.
        folder: the folder of the segments.
        finished: the segments of an earlier run.
        is_over: tells whether to end early.
        on_frames: is called with the number of finished frames.
    """

    def __init__(
        self,
        job: VideoJob,
        folder: WorkFolder,
        finished: list[Segment],
        is_over: Callable[[], bool],
        on_frames: Callable[[int], None],
    ) -> None:
        self._job, self._folder, self._is_over, self._on_frames = job, folder, is_over, on_frames
        self._segments, self._format = finished, job.encoding.name_format(job.clip)
        self._done = sum(len(segment.times) for segment in finished)
        self._reader = FrameReader(job.clip)
        self._stopped = threading.Event()
        self._is_at_end = False
        self._outcome = Outcome(reused=self._done)

    def fill(self, filler: FrameFiller, batch: int, at_once: int) -> Outcome:
        """Fill all frames, and join the segments.

        Args:
            filler: fills frames.
            batch: frames that are filled together.
            at_once: fills at once.

        Returns:
            What came of the run.
        """
        error: ImageError | None = None
        encoder = _Encoder(self)
        try:
            try:
                self._fill_frames(filler, encoder, batch, at_once)
            except ImageError as found:  # a frame cannot be read or filled; those before are kept
                error = found
            is_cut = error is not None or not self._is_at_end
            tail = encoder.end(is_cut=is_cut)
        except import_av().FFmpegError as found:
            raise GlamaError(
                f"{self._job.out}: a frame cannot be encoded or written ({describe_error(found)}); finished segments "
                "are kept: the same command goes on"
            ) from found
        finally:
            encoder.abandon()
        if not is_cut:
            self._outcome.damaged = self._reader.damaged
            self._outcome.frames = sum(len(segment.times) for segment in self._segments)
            clip, last = self._job.clip, self._reader.last_duration
            join_segments(self._segments, clip, self._job.out, self._job.copied, self._format, last_duration=last)
            return self._outcome
        self._outcome.is_cut = True
        self._outcome.kept = sum(len(segment.times) for segment in self._segments)
        self._write_playable(tail)
        if error is not None:
            playable = self._outcome.playable
            place = f"; the frames before can be played: {playable}" if playable is not None else ""
            raise ImageError(f"{error}{place}") from error
        return self._outcome

    def _fill_frames(self, filler: FrameFiller, encoder: _Encoder, batch: int, at_once: int) -> None:
        """Fill the frames that are left, and hand them to the encoder in order."""
        if self._done:
            self._on_frames(self._done)
        tasks = _run_beside(self._make_tasks(filler), _WAITING_FRAMES, self._stopped)
        groups = self._until_over(_group(tasks, 1 if self._job.options.reach else batch))
        try:
            for filled in map_in_order(filler.fill, groups, at_once):
                for decoded in filled:
                    encoder.put(decoded)
        finally:
            self._stopped.set()

    def _write_playable(self, tail: Segment | None) -> None:
        """Write the frames so far to a file that can be played, if there are any."""
        segments = [*self._segments, *([tail] if tail is not None else [])]
        if not segments or is_pattern(self._job.out):
            self._outcome.frames = self._outcome.kept
            return
        playable = self._folder.playable(self._job.out.suffix)
        join_segments(segments, self._job.clip, playable, self._job.copied, self._format, is_cut=True)
        self._outcome.playable = playable
        self._outcome.frames = sum(len(segment.times) for segment in segments)

    def _make_tasks(self, filler: FrameFiller) -> Iterator[Task]:
        """Read frames with their masks, and leave out those that an earlier run finished."""
        reach = self._job.options.reach
        if not reach:
            for decoded, missing in self._read():
                if decoded.number >= self._done:
                    yield Task(decoded, missing)
            return
        waiting: deque[tuple[Decoded, np.ndarray]] = deque()

        def look() -> Iterator[Shown]:
            for decoded, missing in self._read():
                if decoded.number >= self._done - reach:
                    waiting.append((decoded, missing))
                    yield filler.look_at(decoded, missing)

        for shown, others in with_neighbours(look(), reach):
            decoded, missing = waiting.popleft()
            if decoded.number >= self._done:
                yield Task(decoded, missing, shown, others)

    def _read(self) -> Iterator[tuple[Decoded, np.ndarray]]:
        """Read frames with their masks. Raises ImageError where one of them ends first."""
        masks, clip = iter(self._job.masks), self._job.clip
        number = place = 0
        for decoded in self._reader:
            while clip.sequence is not None and place < clip.find_place(decoded.pts):
                next(masks, None)  # the mask of a picture that is damaged
                place += 1
            missing, place = next(masks, None), place + 1
            if missing is None:
                raise self._job.masks.refuse_end(decoded.number)
            number = decoded.number + 1
            yield decoded, missing
        if self._job.masks.fixed is None and clip.sequence is None and next(masks, None) is not None:
            if self._reader.damaged:
                raise ImageError(
                    f"{clip.path} is damaged at {show_time(self._reader.damaged[0])} and gives {number} frames, so the "
                    "masks behind this place belong to other frames; repair the video, or give one mask for all"
                )
            raise self._job.masks.refuse_end(number)

    def _until_over(self, groups: Iterator[_Item]) -> Iterator[_Item]:
        """Give groups until the run is over."""
        for group in groups:
            if self._is_over():
                return
            yield group
        self._is_at_end = True

    def open_writer(self) -> SegmentWriter:
        """Begin the next segment.

        Returns:
            The writer.
        """
        return SegmentWriter(self._folder.path / "now.segment", self._job.clip, self._job.encoding)

    def is_full(self, writer: SegmentWriter) -> bool:
        """Return whether a segment has all its frames.

        Args:
            writer: the writer of the segment.

        Returns:
            True if the next frame begins another segment.
        """
        return len(writer.times) >= self._job.options.segment_frames

    def keep(self, writer: SegmentWriter) -> None:
        """Keep a segment.

        Args:
            writer: the writer, which was ended.
        """
        self._segments.append(self._folder.keep(len(self._segments), writer))

    def keep_tail(self, writer: SegmentWriter) -> Segment:
        """Keep a segment that was cut short, for the file that can be played.

        Args:
            writer: the writer, which was ended.

        Returns:
            The segment.
        """
        writer.path.replace(self._folder.tail)
        return Segment(self._folder.tail, writer.times)

    def note_frame(self) -> None:
        """Count a frame that was encoded."""
        self._done += 1
        self._on_frames(self._done)


class _Encoder:
    """Encodes frames in a thread, one after the other.

    Args:
        run: the run.
    """

    def __init__(self, run: _Run) -> None:
        self._run = run
        self._frames: queue.Queue[Decoded | None] = queue.Queue(_WAITING_FRAMES)
        self._error: BaseException | None = None
        self._is_abandoned = False
        self._writer: SegmentWriter | None = None
        self._thread = threading.Thread(target=self._work, name="glama-encode", daemon=True)
        self._thread.start()

    def put(self, decoded: Decoded) -> None:
        """Hand over a frame. Raises the error of an earlier frame.

        Args:
            decoded: the frame.
        """
        self._put(decoded)

    def end(self, *, is_cut: bool) -> Segment | None:
        """Wait for all frames, and end the last segment.

        Args:
            is_cut: whether frames are missing at the end. The last segment is then not kept as a whole one.

        Returns:
            The last segment if it is cut short and has frames.
        """
        self._put(None)
        while self._thread.is_alive():
            self._thread.join(_WAIT_SECONDS)
        if self._error is not None:
            raise self._error
        writer = self._writer
        if writer is None:
            return None
        writer.end()
        if is_cut and not self._run.is_full(writer):
            return self._run.keep_tail(writer)
        self._run.keep(writer)
        return None

    def abandon(self) -> None:
        """End without the frames that wait. Finished segments are kept, and the thread writes nothing more."""
        self._is_abandoned = True
        while self._thread.is_alive():
            self._thread.join(_WAIT_SECONDS)

    def _put(self, decoded: Decoded | None) -> None:
        while True:
            if self._error is not None:
                raise self._error
            try:
                self._frames.put(decoded, timeout=_WAIT_SECONDS)
                return
            except queue.Full:
                continue

    def _work(self) -> None:
        """Encode what is handed over."""
        try:
            while not self._is_abandoned:
                try:
                    decoded = self._frames.get(timeout=_WAIT_SECONDS)
                except queue.Empty:
                    continue
                if decoded is None:
                    return
                if self._writer is not None and self._run.is_full(self._writer):
                    self._writer.end()
                    self._run.keep(self._writer)
                    self._writer = None
                self._writer = self._writer or self._run.open_writer()
                self._writer.write(decoded)
                self._run.note_frame()
        except BaseException as error:  # noqa: BLE001  # raised where frames are handed over
            self._error = error


def _group(tasks: Iterator[Task], most: int) -> Iterator[list[Task]]:
    """Give tasks in groups that share a mask."""
    group: list[Task] = []
    for task in tasks:
        if group and (len(group) >= most or task.missing is not group[0].missing):
            yield group
            group = []
        group.append(task)
        if len(group) >= most:
            yield group
            group = []
    if group:
        yield group


def _run_beside(items: Iterator[_Item], most: int, stopped: threading.Event) -> Iterator[_Item]:
    """Run an iterator in a thread, and give its items. At most so many items wait.

    Args:
        items: the iterator.
        most: items that wait.
        stopped: ends the thread.

    Yields:
        The items. An exception of the iterator is raised after the items before it.
    """
    waiting: queue.Queue[tuple[_Item | None, BaseException | None]] = queue.Queue(most)

    def hand_over(item: _Item | None, error: BaseException | None) -> None:
        while not stopped.is_set():
            try:
                waiting.put((item, error), timeout=_WAIT_SECONDS)
                return
            except queue.Full:
                continue

    def work() -> None:
        try:
            for item in items:
                hand_over(item, None)
                if stopped.is_set():
                    return
        except BaseException as error:  # noqa: BLE001  # raised where items are taken
            hand_over(None, error)
        else:
            hand_over(None, StopIteration())

    thread = threading.Thread(target=work, name="glama-read", daemon=True)
    thread.start()
    while True:
        try:
            item, error = waiting.get(timeout=_WAIT_SECONDS)
        except queue.Empty:
            continue
        if isinstance(error, StopIteration):
            thread.join()
            return
        if error is not None:
            raise error
        assert item is not None
        yield item


def describe_damage(path: Path, times: list[float]) -> str:
    """Return one line about the damaged places of a video.

    Args:
        path: the video.
        times: seconds of the places.

    Returns:
        The line.
    """
    listed = ", ".join(show_time(time) for time in times[:_LISTED_TIMES])
    more = f" and {len(times) - _LISTED_TIMES} more" if len(times) > _LISTED_TIMES else ""
    return (
        f"{path} is damaged at {listed}{more}; the output has what the decoder made of these frames, and lacks frames "
        "that it did not give: look at these places, or repair the file first"
    )
