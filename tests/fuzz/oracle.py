"""The judgement of one case: right, refused in the documented way, or a fault.

A fault is another exception than GlamaError, a message that is not one short printable line, a result that the subject
calls wrong, a file that is left behind, or memory above the subject's bound. Hangs and crashes are seen by the process
that watches (`campaign.py`).
"""

from __future__ import annotations

import shutil
import time
import traceback
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fuzz.case import Case, Subject, Wrong
from glama_deploy.errors import GlamaError

#: A message that a person reads in a terminal is shorter.
MESSAGE_CHARACTERS = 1_000

#: Writing 5 into this file resets the peak that the kernel reports (VmHWM).
_RESET_PEAK = Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Verdict:
    """What became of a case.

    Args:
        signature: a fault's kind and place; the same fault found by several seeds has one signature.
        detail: a fault's message and traceback.
        grown_bytes: resident memory at the case's peak, above the memory before the case.
    """

    seed: int
    label: str
    state: Literal["right", "refused", "fault"]
    signature: str = ""
    detail: str = ""
    seconds: float = 0.0
    grown_bytes: int = 0


def judge(subject: Subject, seed: int, base: Path, folder: Path, temporary: Path) -> Verdict:
    """Generate the case of a seed, write the case into the empty `folder`, and judge what the subject does with it.

    Args:
        base: the folder that the subject prepared.
        temporary: the empty folder for temporary files, in which nothing may stay.
    """
    case = subject.generate(seed, base)
    case.write(folder)
    watched = (folder, temporary)
    before = [_listing(path) for path in watched]
    resident = _reset_peak()
    start = time.perf_counter()
    state, fault, detail = _checked(subject, case, folder, base)
    seconds = time.perf_counter() - start
    grown = status_bytes("VmHWM") - resident
    if not fault and grown > subject.GROWTH_BYTES:
        # without the size of the growth, or equal faults would have different signatures
        fault, detail = "memory above the bound", f"{grown / 1e6:.0f} MB more than before the case"
    if not fault:
        # the folder in which PyTorch keeps what it compiles is PyTorch's own
        new = [sorted(_listing(path) - names) for path, names in zip(watched, before, strict=True)]
        left = [name for name in new[0] if not subject.may_remain(case, name, state == "refused")]
        left += [name for name in new[1] if not name.startswith("torchinductor_")]
        if left:
            fault, detail = f"files left behind ({case.label})", f"after a case that was {state}: {left[:5]}"
    if fault:
        return Verdict(seed, case.label, "fault", fault, detail, seconds, grown)
    return Verdict(seed, case.label, state, "", "", seconds, grown)


def message_fault(message: str) -> str:
    """Return what is wrong with an error's message; an empty string where nothing is."""
    if not message.strip():
        return "an empty message"
    if any(unicodedata.category(character) in ("Cc", "Zl", "Zp") for character in message):
        return "a message with control characters"
    if len(message) >= MESSAGE_CHARACTERS:
        return "a message that is too long"
    return ""


def _checked(subject: Subject, case: Case, folder: Path, base: Path) -> tuple[Literal["right", "refused"], str, str]:
    """Return the state, and the signature and the detail of a fault (both empty without one)."""
    try:
        subject.check(case, folder, base)
    except GlamaError as error:
        fault = message_fault(str(error))
        if fault:
            return "refused", f"{fault} ({_place(error)})", repr(str(error))[:2_000]
        if _ran_out_of_memory(error) and subject.GROWTH_BYTES < subject.ADDRESS_BYTES:
            return "refused", f"asked for more memory than there is ({_place(error)})", str(error)
        return "refused", "", ""
    except Wrong as error:
        return "right", f"wrong result: {str(error)[:200]}", traceback.format_exc()
    # The fuzzer exists to find every other exception, RecursionError, MemoryError and SystemExit among them.
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        return "right", f"{type(error).__name__} ({_place(error)})", traceback.format_exc()[-4_000:]
    return "right", "", ""


def _place(error: BaseException) -> str:
    """Return file and function of the innermost frame that belongs to the product."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "/tests/" not in frame.filename and "/site-packages/" not in frame.filename]
    frame = ours[-1] if ours else frames[-1]
    return f"{Path(frame.filename).name}: {frame.name}"


def _ran_out_of_memory(error: BaseException | None) -> bool:
    """Return whether an error was made of a MemoryError."""
    while error is not None:
        if isinstance(error, MemoryError):
            return True
        error = error.__cause__ or error.__context__
    return False


def _listing(folder: Path) -> set[str]:
    """Return the relative names of everything below a folder; links are not followed."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def _reset_peak() -> int:
    """Set the peak of the resident memory to its present value, and return that value in bytes."""
    _RESET_PEAK.write_text("5", encoding="ascii")
    return status_bytes("VmHWM")


def status_bytes(field: str) -> int:
    """Return a field of the process's status in bytes."""
    for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise LookupError(f"/proc/self/status has no {field}")


def empty(folder: Path) -> None:
    """Remove everything in a folder."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o700)
            shutil.rmtree(path)
        else:
            path.unlink()
