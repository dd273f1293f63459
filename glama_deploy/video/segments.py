"""The segments of a video that is being filled: a folder beside the output, from which a killed run goes on.

The folder `.NAME.glama` beside the output NAME holds:

- `job.json`: hashes of all that the frames depend on, by their names. A run with other settings does not take the
  segments.
- `00000.segment`, …: the encoded frames of a segment, and `00000.json`: the times of its frames. A segment without the
  second file is not whole, and is made again.

Each segment has an encoder of its own, so its frames do not depend on where an earlier run ended. The container NUT
keeps all codecs and their headers.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glama_deploy.errors import GlamaError
from glama_deploy.io import locks
from glama_deploy.io.files import atomic_file, remove, remove_leftovers, write_error
from glama_deploy.video.clip import Clip
from glama_deploy.video.conversion import convert
from glama_deploy.video.encoders import Encoding
from glama_deploy.video.package import import_av
from glama_deploy.video.reading import Decoded

if TYPE_CHECKING:
    from av.container import OutputContainer
    from av.video.stream import VideoStream

log = logging.getLogger("glama_deploy")

#: The name of the file with the hash.
_JOB = "job.json"


@dataclass(frozen=True)
class Segment:
    """A whole segment.

    Attributes:
        path: the encoded frames.
        times: when each frame is shown, in ticks of the clip's time base.
    """

    path: Path
    times: list[int]


class WorkFolder:
    """The folder of the segments of one output.

    Args:
        out: the output.
    """

    def __init__(self, out: Path) -> None:
        self.path = out.with_name(f".{out.name}.glama")
        self._out = out

    def check(self, identity: Mapping[str, str]) -> None:
        """Check that whole segments, if there are any, are of this job, as far as it is known.

        Args:
            identity: parts of what the frames depend on, by their names.

        Raises:
            GlamaError: the folder has segments of another job.
        """
        found = _read_json(self.path / _JOB)
        if found is None or self._read_segment(0) is None:
            return
        wrong = [name for name, text in identity.items() if found.get(name) != _hash(text)]
        if wrong:
            raise GlamaError(
                f"{self.path} has the finished segments of another run to {self._out.name}, with another "
                f"{' and '.join(wrong)}; repeat that run to go on, or pass `overwrite=True` to begin anew"
            )

    @contextmanager
    def open(self, identity: Mapping[str, str], *, overwrite: bool) -> Iterator[list[Segment]]:
        """Make the folder, or find the segments of an earlier run in it, and keep other processes out meanwhile.

        Args:
            identity: all that the frames depend on, by the names of its parts.
            overwrite: whether segments of another job are removed.

        Yields:
            The whole segments, from the first one on.

        Raises:
            GlamaError: the folder cannot be written, another process works in it, or it has segments of another job.
        """
        try:
            self.path.parent.mkdir(exist_ok=True)  # of numbered pictures
            self.path.mkdir(exist_ok=True)
            with locks.try_hold(self.path / "lock") as is_ours:
                if not is_ours:
                    raise GlamaError(f"another process is filling {self._out}; wait for its end, or give another `out`")
                remove_leftovers(self.path)
                self._claim(identity, overwrite=overwrite)
                try:
                    yield self._find_segments()
                finally:
                    if not self._has_work():
                        self.clear()
        except OSError as error:
            raise write_error(self.path, error) from error
        if self.path.is_dir() and not any(self.path.iterdir()):
            self.path.rmdir()

    def _claim(self, identity: Mapping[str, str], *, overwrite: bool) -> None:
        """Check that the segments are of this job, and note the job."""
        file, job = self.path / _JOB, {name: _hash(text) for name, text in identity.items()}
        if _read_json(file) != job:
            if not overwrite:
                self.check(identity)
            self.clear()
        with atomic_file(file) as temporary:
            temporary.write_text(json.dumps(job), encoding="utf-8")

    def _has_work(self) -> bool:
        """Return whether the folder has a whole segment, or a file that can be played."""
        return self._read_segment(0) is not None or self.playable(self._out.suffix).is_file()

    def clear(self) -> None:
        """Remove the segments and the note of the job."""
        for file in self.path.iterdir():
            if file.name != "lock":
                remove(file)

    def _find_segments(self) -> list[Segment]:
        """Return the whole segments, from the first one on."""
        found: list[Segment] = []
        while (segment := self._read_segment(len(found))) is not None:
            found.append(segment)
        return found

    def _read_segment(self, number: int) -> Segment | None:
        """Return a segment if it is whole."""
        path = self._name(number)
        fields = _read_json(path.with_suffix(".json"))
        if fields is None or not path.is_file() or path.stat().st_size != fields["bytes"]:
            return None
        return Segment(path, fields["times"])

    def _name(self, number: int) -> Path:
        return self.path / f"{number:05}.segment"

    @property
    def tail(self) -> Path:
        """The file of a segment that an interruption cut short."""
        return self.path / "tail.segment"

    def playable(self, suffix: str) -> Path:
        """Return the file that can be played after an interruption.

        Args:
            suffix: the suffix of the output.

        Returns:
            The path.
        """
        return self.path / f"so-far{suffix}"

    def keep(self, number: int, writer: SegmentWriter) -> Segment:
        """Keep a segment whose frames are written.

        Args:
            number: the segment's number.
            writer: the writer, which was ended.

        Returns:
            The segment.
        """
        path = self._name(number)
        with atomic_file(path) as temporary:
            writer.path.replace(temporary)
        fields = {"times": writer.times, "bytes": path.stat().st_size}
        with atomic_file(path.with_suffix(".json")) as temporary:
            temporary.write_text(json.dumps(fields), encoding="utf-8")
        return Segment(path, writer.times)


class SegmentWriter:
    """Encodes the frames of a segment.

    Attributes:
        path: the file.
        times: when each frame is shown.

    Args:
        path: the file.
        clip: the source.
        encoding: how frames are encoded.
    """

    def __init__(self, path: Path, clip: Clip, encoding: Encoding) -> None:
        self.path = path
        self.times: list[int] = []
        self._clip, self._converted = clip, encoding.converted
        self._time_base = encoding.time_base(clip)
        self._counts = encoding.is_fixed_rate
        self._container: OutputContainer = import_av().open(str(path), "w", format=encoding.container)
        self._stream: VideoStream = encoding.add_stream(self._container, clip)

    def write(self, decoded: Decoded) -> None:
        """Encode a frame.

        Args:
            decoded: the frame, which is shown later than all before.
        """
        frame = decoded.frame if self._converted is None else convert(decoded.frame, self._clip, self._converted)
        frame.pts, frame.dts = len(self.times) if self._counts else decoded.pts, None
        frame.time_base = self._time_base
        frame.pict_type = 0  # the encoder chooses the kind, and not the source's
        self._container.mux(self._stream.encode(frame))
        self.times.append(decoded.pts)

    def end(self) -> None:
        """Encode the frames that the encoder still holds, and close the file."""
        self._container.mux(self._stream.encode())
        self._container.close()


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _read_json(path: Path) -> dict[str, Any] | None:
    """Return the fields of a file; None if it is missing or damaged."""
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return fields if isinstance(fields, dict) else None
