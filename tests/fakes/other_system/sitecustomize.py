"""Let a Python process on Linux look like one on Windows or macOS, as far as glama_deploy's own code can see.

Python runs this file at its start, where its folder is in PYTHONPATH. `OTHER_SYSTEM` has the system in JSON: `platform`
(win32 or darwin), `missing` (modules), and `lacking` (names by module). Other packages see Linux, because on Linux they
use it. On "Windows" the file system also refuses what Windows refuses, where glama_deploy asks for it: to remove or
rename an open or mapped file, to replace a file by `os.rename`, to make a symbolic link, to open a folder, and names of
devices or with forbidden characters.
"""

from __future__ import annotations

import builtins
import errno
import json
import mimetypes
import os
import re
import signal
import socket
import stat
import sys
import threading
import types
import warnings

_SYSTEM = json.loads(os.environ["OTHER_SYSTEM"])
_IS_WINDOWS = _SYSTEM["platform"] == "win32"

#: What the system has and Linux lacks, or has otherwise. The numbers are free ones of Linux.
_OWN = {"sys": {"platform": _SYSTEM["platform"]}}
if _IS_WINDOWS:
    _OWN |= {
        "os": {"name": "nt"},
        "signal": {"SIGBREAK": signal.SIGTTIN},
        "socket": {"SO_EXCLUSIVEADDRUSE": socket.SO_KEEPALIVE},
    }

#: Names that Windows does not give to files.
_REFUSED_NAME = re.compile(r"""(?i)(con|prn|aux|nul|(com|lpt)[0-9])\s*(\..*)?|.*[<>:"|?*\\\x00-\x1f].*|.*[ .]""")

_PACKAGE = "glama_deploy"


class _Module(types.ModuleType):
    """A module of the standard library as it is on the other system."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__dict__.pop("__doc__")
        self.__dict__.update(_OWN.get(name, {}))

    def __getattr__(self, name: str) -> object:
        if name in _SYSTEM["lacking"].get(self.__name__, ()):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r} on {_SYSTEM['platform']}")
        return getattr(sys.modules[self.__name__], name)


_modules = {name: _Module(name) for name in {*_SYSTEM["lacking"], *_OWN}}
_import = builtins.__import__


def _is_own(module: dict[str, object] | None) -> bool:
    name = (module or {}).get("__package__") or (module or {}).get("__name__") or ""
    return str(name).partition(".")[0] == _PACKAGE


def _import_as_there(name, globals=None, locals=None, fromlist=(), level=0):
    if level == 0 and _is_own(globals):
        if name.partition(".")[0] in _SYSTEM["missing"]:
            raise ModuleNotFoundError(f"No module named {name!r} on {_SYSTEM['platform']}", name=name)
        found = _import(name, globals, locals, fromlist, level)
        return _modules.get(found.__name__, found)
    return _import(name, globals, locals, fromlist, level)


builtins.__import__ = _import_as_there
warnings.filterwarnings("error", category=EncodingWarning, module=_PACKAGE)


_asking = threading.local()


def _find_asker() -> types.FrameType | None:
    """The innermost frame of glama_deploy on the stack; none if a package that knows the system is asked first."""
    frame: types.FrameType | None = sys._getframe()
    while frame is not None:
        name = str(frame.f_globals.get("__name__", ""))
        if (
            name.partition(".")[0] in ("archspec", "psutil", "multiprocessing")
            or frame.f_code.co_name == "TemporaryFile"
        ):
            return None
        if _is_own(frame.f_globals):
            return frame
        frame = frame.f_back
    return None


def _list_open_files() -> set[str]:
    """The paths of the regular files that this process has open or mapped."""
    found = set()
    for number in os.listdir("/proc/self/fd"):
        try:
            if stat.S_ISREG(os.stat(f"/proc/self/fd/{number}").st_mode):
                found.add(os.readlink(f"/proc/self/fd/{number}"))
        except OSError:
            continue
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as lines:
        found |= {line.split(maxsplit=5)[5].rstrip("\n") for line in lines if "/" in line}
    return found


def _locate(path: object, folder: object) -> str:
    text = os.fsdecode(path)
    base = os.readlink(f"/proc/self/fd/{folder}") if isinstance(folder, int) and folder >= 0 else os.getcwd()
    return os.path.join(os.path.realpath(os.path.dirname(os.path.join(base, text))), os.path.basename(text))


def _refuse_if_open(*paths: str) -> None:
    for taken in _list_open_files():
        for path in paths:
            if taken == path or taken.startswith(f"{path}/"):
                error = PermissionError(errno.EACCES, "The process cannot access the file: it is open", taken)
                error.winerror = 32  # ERROR_SHARING_VIOLATION
                raise error


def _refuse_name(path: str) -> None:
    if _REFUSED_NAME.fullmatch(os.path.basename(path)):
        raise OSError(errno.EINVAL, "The filename, directory name, or volume label syntax is incorrect", path)


def _refuse(event: str, arguments: tuple) -> None:
    if event not in ("open", "os.listdir", "os.remove", "os.rename", "os.symlink", "os.mkdir"):
        return
    if getattr(_asking, "is_on", False) or (asker := _find_asker()) is None:
        return
    _asking.is_on = True
    try:
        path = arguments[0]
        if event in ("open", "os.listdir"):
            if not isinstance(path, str | bytes | os.PathLike):
                return
            if os.fsdecode(path).startswith(("/proc", "/sys/")):
                raise FileNotFoundError(errno.ENOENT, "there is no such file", os.fsdecode(path))
        if not _IS_WINDOWS:
            return
        if event == "open":
            if arguments[2] & os.O_CREAT:
                _refuse_name(os.fsdecode(path))
            if asker is sys._getframe(1) and os.path.isdir(path):
                raise PermissionError(errno.EACCES, "Permission denied", os.fsdecode(path))
        elif event == "os.remove":
            _refuse_if_open(_locate(path, arguments[1]))
        elif event == "os.rename":
            source, target = _locate(path, arguments[2]), _locate(arguments[1], arguments[3])
            _refuse_name(target)
            _refuse_if_open(source, target)
        elif event == "os.mkdir":
            _refuse_name(os.fsdecode(path))
        elif event == "os.symlink":
            raise OSError(errno.EPERM, "A required privilege is not held by the client", os.fsdecode(arguments[1]))
    finally:
        _asking.is_on = False


sys.addaudithook(_refuse)

if _IS_WINDOWS:
    mimetypes.add_type("text/plain", ".js")  # Windows keeps media types in its registry, where programs change them
    _rename = os.rename

    def _rename_to_free_name(source, target, **options):
        if os.path.lexists(target) and _find_asker() is not None:
            raise FileExistsError(errno.EEXIST, "Cannot create a file when that file already exists", target)
        _rename(source, target, **options)

    os.rename = _rename_to_free_name
