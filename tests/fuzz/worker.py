"""The child process that judges cases, with limits on what a case may take."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
import tempfile
from multiprocessing.connection import Connection
from pathlib import Path

from fuzz.case import load_subject
from fuzz.oracle import empty, judge, status_bytes

#: A core file of a crashed child helps nobody.
_NO_CORE = (0, 0)

#: prctl's option that sends a signal to this process once its parent has ended.
_PR_SET_PDEATHSIG = 1


def work(name: str, base: Path, folder: Path, connection: Connection) -> None:
    """Judge the seeds that come in over the connection; send a verdict for each; end at None.

    Everything that the child prints goes to `folder/output.txt`; temporary files go to `folder/temporary`.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    case_folder, temporary, output = folder / "case", folder / "temporary", folder / "output.txt"
    for path in (case_folder, temporary):
        path.mkdir()
    _redirect_output(output)
    os.environ |= {"TMPDIR": str(temporary), "HOME": str(folder), "GLAMA_CACHE": str(folder / "cache")}
    os.environ["GLAMA_OFFLINE"] = "1"  # an odd argument may be the name of a published model
    tempfile.tempdir = None  # so that TMPDIR is read again
    subject = load_subject(name)
    resource.setrlimit(resource.RLIMIT_CORE, _NO_CORE)
    os.chdir(case_folder)
    judge(subject, 0, base, case_folder, temporary)  # imports and first uses belong to no case
    limit = status_bytes("VmSize") + subject.ADDRESS_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    connection.send("ready")
    while (seed := connection.recv()) is not None:
        for path in (case_folder, temporary):
            empty(path)
        connection.send(judge(subject, seed, base, case_folder, temporary))


def _redirect_output(path: Path) -> None:
    """Send what Python and native libraries print to a file."""
    sys.stdout.flush()
    sys.stderr.flush()
    with path.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
