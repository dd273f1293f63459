"""PyAV, which reads and writes videos, and which only videos need."""

from __future__ import annotations

from types import ModuleType

from glama_deploy.runtime.base import require


def import_av() -> ModuleType:
    """Import PyAV.

    Returns:
        The module `av`.

    Raises:
        EngineError: PyAV is not installed, or cannot be imported.
    """
    return require("av", "PyAV, which reads and writes videos,", "pip install 'av>=17.1', or the extra 'video'")


def describe_error(error: Exception) -> str:
    """Return what FFmpeg says about an error, without the number and the path.

    Args:
        error: an error of PyAV.

    Returns:
        The text, in lower case at its start.
    """
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text[:1].lower() + text[1:])


def show_time(seconds: float) -> str:
    """Return a time of a video, for people.

    Args:
        seconds: seconds from the start.

    Returns:
        The time, such as 1:02:03.040.
    """
    milliseconds = round(abs(seconds) * 1000)
    minutes, rest = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    sign = "-" if seconds < 0 else ""
    return f"{sign}{hours}:{minutes:02}:{rest // 1000:02}.{rest % 1000:03}"
