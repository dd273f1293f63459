"""Windows and macOS lack what Linux has. The package is read, and run, as if it were there.

The lists of what each system lacks are typeshed's. `make lint` has mypy read the package for each system, too.
"""

from __future__ import annotations

import ast
import base64
import io
import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import glama_deploy
from fakes import typeshed
from glama_deploy.export.samples import SAMPLE
from glama_deploy.server.run import open_socket

ROOT = Path(__file__).parents[1]

#: The folders of the package's modules.
ROOMS = ("glama_deploy", "export", "engines", "benchmarks")

#: The scripts of measurements, which run on Linux.
SCRIPTS_FOR_LINUX = ("benchmarks/quality/", "benchmarks/speed/")

SYSTEMS = ("win32", "darwin")

#: Functions of subprocess that read and write text if an argument asks for text.
STARTERS = {"run", "Popen", "check_output", "check_call", "call"}

#: Arguments that ask for text.
TEXT_ARGUMENTS = {"text", "universal_newlines", "errors"}

#: Files that only Linux has, or only systems like it, and what each module that names one does without it.
LINUX_FILES = re.compile(r"/(proc|sys|dev)/\w|\blib\w+\.so\b")
READERS_OF_LINUX_FILES = {
    "benchmarks/bench/contenders.py": "test_a_command_runs",
    "benchmarks/bench/machine.py": "test_a_command_runs",
    "benchmarks/jobs/worker.py": "measures on Linux",
    "glama_deploy/checkpoints/archives.py": "unpacks into a folder elsewhere",
    "glama_deploy/runtime/cuda/driver.py": "has the library's name on Windows",
    "glama_deploy/runtime/onnxruntime/libraries.py": "explains failures of Linux's linker",
    "glama_deploy/runtime/tensorrt/plugins/cufft.py": "its plugin is for Linux",
    "glama_deploy/system/cpu_identity.py": "asks archspec elsewhere",
    "glama_deploy/system/gpus.py": "has the library's name on Windows",
    "glama_deploy/system/power.py": "names no power mode elsewhere",
}


@cache
def list_sources() -> tuple[tuple[str, ast.Module], ...]:
    paths = [path.relative_to(ROOT).as_posix() for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]
    return tuple(
        (path, ast.parse((ROOT / path).read_text(encoding="utf-8")))
        for path in paths
        if not path.startswith(SCRIPTS_FOR_LINUX)
    )


def find_imports(tree: ast.AST, *, guarded: bool = False) -> Iterator[tuple[str, bool]]:
    """The first part of each imported module's name, and whether the import depends on the system, or may fail."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name.partition(".")[0], guarded) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0], guarded
        may_fail = isinstance(node, ast.Try) and any("ImportError" in ast.unparse(each) for each in node.handlers)
        depends = isinstance(node, ast.If) and "sys.platform" in ast.unparse(node.test)
        yield from find_imports(node, guarded=guarded or may_fail or depends)


def test_typeshed_knows_what_each_system_lacks():
    """Facts of Python's documentation: "Availability" of each module and function."""
    assert typeshed.is_missing("fcntl", "win32")
    assert typeshed.is_missing("resource", "win32")
    assert not typeshed.is_missing("fcntl", "darwin")
    assert not typeshed.is_missing("selectors", "win32")
    assert {"fork", "geteuid", "sched_getaffinity", "O_NOFOLLOW"} <= typeshed.find_lacking("os", "win32")
    assert {"SIGKILL", "SIGHUP", "pthread_sigmask"} <= typeshed.find_lacking("signal", "win32")
    assert "sched_getaffinity" in typeshed.find_lacking("os", "darwin")
    assert not {"fork", "geteuid", "O_NOFOLLOW"} & typeshed.find_lacking("os", "darwin")
    assert not {"replace", "link", "getpid", "name"} & typeshed.find_lacking("os", "win32")


def test_no_module_is_imported_that_a_system_lacks():
    found = [(path, name) for path, tree in list_sources() for name, guarded in find_imports(tree) if not guarded]
    assert ("glama_deploy/io/files.py", "os") in found
    assert [each for each in found for system in SYSTEMS if typeshed.is_missing(each[1], system)] == []


def test_every_child_process_is_read_in_a_named_encoding():
    """Windows and some containers have others than UTF-8. Ruff's PLW1514 demands the encoding of files."""
    calls = [
        (path, node.lineno, {keyword.arg for keyword in node.keywords})
        for path, tree in list_sources()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in STARTERS
        if ast.unparse(node.func.value) == "subprocess"
    ]
    assert calls
    assert [call for call in calls if call[2] & TEXT_ARGUMENTS and "encoding" not in call[2]] == []


def test_files_of_linux_are_read_by_modules_that_live_without_them():
    """`typing.Literal` has no such text, and docstrings are no paths."""
    found = {
        path
        for path, tree in list_sources()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and LINUX_FILES.search(node.value)
        if "\n" not in node.value and " " not in node.value
    }
    assert found <= READERS_OF_LINUX_FILES.keys()


@cache
def describe_system(platform: str) -> str:
    """What a system is, for `fakes/other_system/sitecustomize.py`."""
    used = {name for _, tree in list_sources() for name, _ in find_imports(tree)} & sys.stdlib_module_names
    missing = [name for name in sys.stdlib_module_names if typeshed.is_missing(name, platform)]
    lacking = {name: sorted(typeshed.find_lacking(name, platform)) for name in used - set(missing)}
    return json.dumps({"platform": platform, "missing": missing, "lacking": lacking})


def make_environment(platform: str) -> dict[str, str]:
    """The variables of a process that sees another system. Its console has the encoding of western Windows."""
    return {
        **os.environ,
        "OTHER_SYSTEM": describe_system(platform),
        "PYTHONPATH": os.pathsep.join((str(ROOT / "tests/fakes/other_system"), os.environ.get("PYTHONPATH", ""))),
        "PYTHONWARNDEFAULTENCODING": "1",
        "PYTHONIOENCODING": "cp1252",
    }


def run(platform: str, *command: str | Path, input: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    child = subprocess.run(
        [sys.executable, *map(str, command)],
        input=input,
        capture_output=True,
        env=make_environment(platform),
        check=False,
    )
    assert child.returncode == 0, child.stderr.decode("cp1252")
    return child


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A folder with a picture and its mask, of a name with an accent and a space."""
    folder = tmp_path / "Fotos été"
    folder.mkdir()
    with Image.open(SAMPLE) as photo:
        photo.crop((0, 0, 96, 80)).save(folder / "picture.png")
    mask = np.zeros((80, 96), np.uint8)
    mask[20:40, 30:60] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    return folder


def are_known_pixels_kept(folder: Path, filled: np.ndarray) -> bool:
    picture, mask = (np.asarray(Image.open(folder / name)) for name in ("picture.png", "mask.png"))
    return bool((filled[mask == 0] == picture[mask == 0]).all() and (filled[mask > 0] != picture[mask > 0]).any())


#: The package's code is asked by another package's, and by its own.
PRETENCE = """
import os, sys
from glama_deploy.io import files
own = {"__name__": "glama_deploy.own"}
exec("import os, signal, sys", own)
assert own["sys"].platform == sys.argv[1] != sys.platform
assert hasattr(os, "sched_getaffinity") and not hasattr(own["os"], "sched_getaffinity")
if sys.argv[1] == "win32":
    for code in ("import fcntl", "os.fork", "signal.SIGKILL", "from os import geteuid", "os.symlink('a', 'b')",
                 "open('x:y', 'w', encoding='utf-8')", "open('nul.png', 'wb')", "open('encoding.txt', 'a')",
                 "with open('open.txt', 'wb'): os.remove('open.txt')", "os.open('.', os.O_RDONLY)",
                 "open('a', 'wb').close(); open('b', 'wb').close(); os.rename('a', 'b')"):
        try:
            exec(code, own)
        except (AttributeError, ImportError, OSError, EncodingWarning) as error:
            continue
        raise AssertionError(code)
"""


@pytest.mark.parametrize("platform", SYSTEMS)
def test_the_other_system_refuses_what_it_lacks(platform, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(platform, "-c", PRETENCE, platform)


@pytest.mark.slow
@pytest.mark.parametrize("platform", SYSTEMS)
def test_every_module_is_imported(platform):
    run(
        platform,
        "-c",
        "import importlib, pkgutil, glama_deploy\n"
        "for module in pkgutil.walk_packages(glama_deploy.__path__, 'glama_deploy.'):\n"
        "    importlib.import_module(module.name)",
    )


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("platform", SYSTEMS)
def test_the_embedded_network_fills_a_picture(platform, backend, picture):
    command = ["-m", "glama_deploy", "inpaint", picture / "picture.png", picture / "mask.png", picture / "out.png"]
    child = run(platform, *command, "--backend", backend)
    assert "fp32" in child.stderr.decode("cp1252")
    assert are_known_pixels_kept(picture, np.asarray(Image.open(picture / "out.png")))
    assert sorted(path.name for path in picture.iterdir()) == ["mask.png", "out.png", "picture.png"]


@pytest.mark.parametrize("platform", SYSTEMS)
def test_pictures_are_replaced_and_their_originals_kept(platform, picture):
    """On Windows a backup gets its name by a rename, because a read-only file with two names loses none of them."""
    before = (picture / "picture.png").read_bytes()
    (picture / "picture.png").chmod(0o444)
    (picture / "masks").mkdir()
    (picture / "mask.png").rename(picture / "masks" / "picture.png")
    command = ["-m", "glama_deploy", "inpaint", picture, picture / "masks", "--in-place", "--backend", "onnxruntime"]
    run(platform, *command)
    assert (picture / "picture.orig.png").read_bytes() == before != (picture / "picture.png").read_bytes()
    assert sorted(path.name for path in picture.iterdir()) == ["masks", "picture.orig.png", "picture.png"]


@pytest.mark.slow
@pytest.mark.parametrize("platform", SYSTEMS)
def test_a_command_runs(platform, picture):
    """Their output has characters that the console lacks."""
    masked = ["--mask", picture / "mask.png"]
    run(platform, "-m", "glama_deploy", "mask", picture / "picture.png", picture / "mask.png", picture / "made.png")
    run(platform, "-m", "glama_deploy", "masks", "--out", picture / "sheet.png", "--count", "1")
    assert "big-lama" in run(platform, "-m", "glama_deploy", "models", "list").stdout.decode("cp1252")
    frames = np.asarray(Image.open(picture / "picture.png")).tobytes()
    child = run(platform, "-m", "glama_deploy", "frames", "96", "80", *masked, input=frames)
    assert are_known_pixels_kept(picture, np.frombuffer(child.stdout, np.uint8).reshape(80, 96, 3))
    report = json.loads(run(platform, "-m", "glama_deploy", "doctor", "--json").stdout.decode("cp1252"))
    runs = {engine["name"]: engine["runs"] for engine in report["engines"]}
    assert runs["onnxruntime:cpu"]
    assert runs["openvino"]
    assert report["machine"]["free_memory_bytes"] > 0
    assert report["machine"]["cpu"]


@pytest.mark.slow
@pytest.mark.parametrize("platform", SYSTEMS)
def test_an_engine_is_built_into_a_bundle(platform, tiny, make_bundle, tmp_path):
    """Windows makes no link to the graph, and replaces no file that is open."""
    import shutil

    bundle = shutil.copytree(make_bundle(tiny, ("onnx",)).path, tmp_path / "bundle")
    for _ in range(2):
        run(platform, "-m", "glama_deploy", "build", bundle, "--target", "openvino")
    manifest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    paths = [file["path"] for file in manifest["engines"]["openvino"]["files"]]
    assert paths == ["openvino/model.xml", "openvino/model.bin"]
    assert not [path for path in bundle.rglob("*") if path.name.startswith(".glama")]
    assert glama_deploy.load(bundle, "openvino").backend == "openvino"


#: A file is replaced while another program has the file open, for a moment and for long.
BUSY = """
import threading
from pathlib import Path
from glama_deploy.errors import GlamaError
from glama_deploy.io.files import atomic_file
file = Path("file.txt").open("w", encoding="utf-8")
threading.Timer(0.2, file.close).start()
with atomic_file(Path("file.txt")) as temporary:
    temporary.write_text("new", encoding="utf-8")
assert Path("file.txt").read_text(encoding="utf-8") == "new"
with Path("file.txt").open(encoding="utf-8") as file:
    try:
        with atomic_file(Path("file.txt")) as temporary:
            temporary.write_text("newer", encoding="utf-8")
    except GlamaError as error:
        print(error)
assert [path.name for path in Path().iterdir()] == ["file.txt"]
"""


def test_a_file_that_is_open_is_replaced_when_its_program_closes_the_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = run("win32", "-c", BUSY).stdout.decode("cp1252").strip()
    assert said == (
        "cannot write file.txt: another program has a file open that is replaced; end that program and run again"
    )


@pytest.mark.parametrize("platform", SYSTEMS)
def test_outputs_whose_names_differ_by_case_are_kept_apart(platform, picture):
    """The file systems of both systems ignore case; a folder may come from another one."""
    for name in ("a.jpg", "A.jpeg"):
        Image.open(picture / "picture.png").save(picture / name)
    (picture / "picture.png").unlink()
    masks = (picture / "mask.png").rename(picture.parent / "mask.png")
    out = picture.parent / "out"
    command = ["-m", "glama_deploy", "inpaint", picture, masks, out, "--format", "png", "--backend", "onnxruntime"]
    run(platform, *command)
    assert sorted(path.name for path in out.iterdir()) == ["A.jpeg.png", "a.jpg.png"]


#: The signal that asks a server to end. The other system has SIGTTIN as Ctrl-Break.
END = {"win32": signal.SIGTTIN, "darwin": signal.SIGTERM}


@pytest.mark.parametrize("platform", SYSTEMS)
def test_a_server_serves_its_page_fills_a_picture_and_ends(platform, picture):
    server = subprocess.Popen(
        [sys.executable, "-m", "glama_deploy", "serve", "--no-open", "--port", "0"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        encoding="cp1252",
        env=make_environment(platform),
    )
    assert server.stderr is not None
    try:
        said = ""
        for line in server.stderr:
            said += line
            if line.startswith("page: "):
                break
        address = re.search(r"listening at (\S+)", said)
        assert address, said
        with urllib.request.urlopen(f"{address[1]}/page/main.js") as answer:
            assert answer.headers.get_content_type() == "text/javascript"
        image, mask = (base64.b64encode((picture / f"{name}.png").read_bytes()) for name in ("picture", "mask"))
        body = json.dumps({"image": image.decode(), "mask": mask.decode()}).encode()
        request = urllib.request.Request(
            f"{address[1]}/api/v1/inpaint", body, {"Content-Type": "application/json"}, method="POST"
        )
        with urllib.request.urlopen(request) as answer:
            filled = np.asarray(Image.open(io.BytesIO(answer.read())))
        assert are_known_pixels_kept(picture, filled)
    finally:
        server.send_signal(END[platform])
        rest = server.stderr.read()
    assert server.wait() == 0
    assert rest == "ended; all requests were answered\n"


def test_a_second_server_cannot_listen_at_the_same_address():
    with open_socket("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(glama_deploy.GlamaError, match="choose another `port`"):
            open_socket("127.0.0.1", port)
