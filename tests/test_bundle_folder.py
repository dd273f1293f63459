"""A bundle is the old one or the new one at every instant, whoever is killed, and whoever writes at once."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import glama_deploy
from glama_deploy import bundle_folder
from glama_deploy.bundle import DEFAULT_PROFILE, MANIFEST, NEXT, Bundle
from glama_deploy.engines.build import add_engine
from glama_deploy.errors import BundleError, GlamaError
from glama_deploy.export.pipeline import Request, export
from glama_deploy.io import locks
from glama_deploy.io.files import sha256

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="kills are tested in forked processes")

#: Runs an action again and again on a fresh copy of a folder; before call number k that changes a file system, the
#: process kills itself. After each kill the program says what it found, then runs the action to its end.
KILLS = """
import json, os, shutil, signal, sys
from pathlib import Path
from glama_deploy import bundle_folder
from glama_deploy.bundle import Bundle
from glama_deploy.engines import base, build
from glama_deploy.io.files import atomic_file

os.fsync = lambda descriptor: None  # a kill loses nothing that was written, and the test is some times faster
action, template, place, source = sys.argv[1:]
place, template = Path(place), Path(template)
path = place / "b"
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.link", "os.symlink"}

def act():
    if action == "export":
        with bundle_folder.create(path, overwrite=template.name != "nothing") as folder:
            for file in Path(source).iterdir():
                shutil.copy(file, folder)
    elif action == "build":
        bundle = Bundle.open(path)
        def make(work):
            shutil.copytree(source, work / "openvino")
            files = sorted((work / "openvino").iterdir())
            return base.describe_engine(work, "openvino", "fp32", bundle.sizes, files, {})
        build.install_engine(bundle, "openvino", make)
    else:
        with atomic_file(path / "picture.png") as temporary:
            temporary.write_bytes(b"new")

def run(kill_before=None):
    pid = os.fork()
    if pid:
        return os.waitpid(pid, 0)[1]
    count = 0
    def count_changes(event, arguments):
        nonlocal count
        writes = event == "open" and arguments[2] and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if event in CHANGES or (writes and str(place) in str(arguments[0])):
            if count == kill_before:
                os.kill(os.getpid(), signal.SIGKILL)
            count += 1
    sys.addaudithook(count_changes)
    try:
        act()
        os._exit(0)
    except BaseException as error:
        print(error, file=sys.stderr)
        os._exit(2)

def state():
    if action == "write":
        file = path / "picture.png"
        return file.read_text() if file.exists() else "nothing"
    if not path.exists():
        return "nothing"
    bundle = Bundle.open(path)
    bundle.verify()
    return bundle.manifest.model_dump_json()

found, k, status = [], 0, None
while status != 0:
    shutil.rmtree(place)
    place.mkdir()
    if template.name != "nothing":
        shutil.copytree(template, path)
    status = run(kill_before=k)
    after = state()
    if status == 0 or os.WIFSIGNALED(status):
        again = os.waitstatus_to_exitcode(run()) if status else 0
        names = sorted(str(p.relative_to(place)) for p in place.rglob("*"))
        found.append([after, again, state(), names])
    k += 1
    assert k < 200
print(json.dumps(found))
"""


EXISTS = "exists already; choose another folder or pass `overwrite=True`"


def kills(tmp_path: Path, action: str, template: Path | str, source: Path | str = "") -> list:
    """After a kill at each call: the state, the exit status of the next run, the state then, and all names."""
    (tmp_path / "place").mkdir()
    command = [sys.executable, "-c", KILLS, action, template, tmp_path / "place", source]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert set(done.stderr.splitlines()) <= {f"{tmp_path / 'place' / 'b'} {EXISTS}"}
    return json.loads(done.stdout)


@pytest.fixture
def old(tiny_bundle: Bundle, tmp_path: Path) -> Path:
    """A bundle with ONNX and OpenVINO, and a file that is not the bundle's own."""
    shutil.copytree(tiny_bundle.path, tmp_path / "old")
    (tmp_path / "old" / "build.sh").write_text("#!/bin/sh\n")
    (tmp_path / "old" / "notes.txt").write_text("mine")
    return tmp_path / "old"


@pytest.fixture
def another(tiny: Path, tmp_path: Path) -> Path:
    """A checkpoint whose weights are not those of `tiny`."""
    from glama_deploy.checkpoints import formats

    source = formats.read(tiny)
    weights = {name: values + 0.001 for name, values in source.weights.items()}
    formats.save(tmp_path / "another.safetensors", source.config, weights)
    return tmp_path / "another.safetensors"


@pytest.fixture
def new(another: Path, tmp_path: Path) -> Path:
    """A bundle of other weights, with ONNX alone."""
    export(Request(another, tmp_path / "new", parity=False))
    return tmp_path / "new"


def test_an_overwriting_export_leaves_the_old_or_the_new_bundle_at_every_kill(old, new, another, tmp_path):
    before = Bundle.open(old).manifest.model_dump_json()
    found = kills(tmp_path, "export", old, new)
    after = found[-1][0]
    assert json.loads(after)["checkpoint"]["sha256"] == sha256(another)
    assert {state for state, *_ in found} == {before, after}
    for _, status, then, names in found:
        assert (status, then) == (0, after)
        assert names == ["b", "b/manifest.json", "b/model.onnx", "b/notes.txt"]
    assert len(found) > 20


def test_a_first_export_leaves_nothing_or_the_bundle_at_every_kill(new, tmp_path):
    found = kills(tmp_path, "export", "nothing", new)
    whole = found[-1][0]
    assert {after for after, *_ in found} == {"nothing", whole}
    for after, status, then, names in found:
        assert then == whole
        if after == whole:  # the same command is refused, as after an export that came to its end
            assert status in (0, 2)
        else:
            assert status == 0
            assert names == ["b", "b/manifest.json", "b/model.onnx"]


def test_an_engine_is_the_old_or_the_new_one_at_every_kill(old, tmp_path):
    changed = tmp_path / "changed"
    shutil.copytree(old / "openvino", changed)
    (changed / "model.xml").write_text("<net/>")
    before = Bundle.open(old).manifest.model_dump_json()
    found = kills(tmp_path, "build", old, changed)
    new = found[-1][0]
    assert {after for after, *_ in found} == {before, new}
    kept = ["build.sh", "manifest.json", "model.onnx", "notes.txt", "openvino", "openvino/model.bin"]
    for _, status, then, names in found:
        assert (status, then) == (0, new)
        assert names == sorted(["b", *(f"b/{name}" for name in [*kept, "openvino/model.xml"])])


def test_the_next_write_removes_leftovers_of_a_killed_process(tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "picture.png").write_text("old")
    found = kills(tmp_path, "write", tmp_path / "old")
    assert {after for after, *_ in found} == {"old", "new"}
    for _, status, then, names in found:
        assert (status, then, names) == (0, "new", ["b", "b/picture.png"])


def interrupted(bundle: Path, new: Path) -> None:
    """Bring the bundle to the instant after the commit, with no file moved yet."""
    shutil.copytree(new, bundle / NEXT)
    os.replace(bundle / NEXT / MANIFEST, bundle / MANIFEST)


def test_a_bundle_that_was_committed_and_not_moved_runs_as_the_new_one(old, another, tmp_path, photo, hole):
    new = export(Request(another, tmp_path / "both", ("onnx", "openvino"), parity=False)).bundle
    expected = {backend: glama_deploy.load(new.path, backend)(photo, hole) for backend in ("openvino", "onnxruntime")}
    interrupted(old, new.path)
    for backend, out in expected.items():
        assert (glama_deploy.load(old, backend)(photo, hole) == out).all()
    add_engine(Bundle.open(old), "openvino", DEFAULT_PROFILE)
    assert not [path for path in old.iterdir() if path.name.startswith(".glama")]
    assert sha256(old / "model.onnx") == sha256(new.path / "model.onnx")


def test_a_reader_between_two_states_opens_again(old, new, monkeypatch):
    """The bundle is replaced after its manifest was read and before its files are."""
    opened = Bundle.open

    def late(path: Path) -> Bundle:
        bundle = opened(path)
        monkeypatch.setattr(Bundle, "open", opened)
        shutil.copytree(new, old, dirs_exist_ok=True)
        return bundle

    monkeypatch.setattr(Bundle, "open", late)
    glama_deploy.load(old, "onnxruntime")
    monkeypatch.setattr(Bundle, "open", opened)
    (old / "model.onnx").write_bytes(b"damaged")
    with pytest.raises(BundleError, match="was changed since the export"):
        glama_deploy.load(old, "onnxruntime")


#: Builds the engine of each bundle that is named on stdin, then says so.
BUILDER = """
import sys
from glama_deploy.cli.build import main
for line in sys.stdin:
    print(main.run([line.strip(), "--target", "openvino"]), file=sys.stderr, flush=True)
"""


def test_of_two_builds_of_one_bundle_at_once_both_succeed(tiny_bundle, tmp_path, photo, hole):
    builders = [
        subprocess.Popen(
            [sys.executable, "-c", BUILDER],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        for _ in range(2)
    ]
    paths = [Path(shutil.copytree(tiny_bundle.path, tmp_path / str(number))) for number in range(10)]
    for path in paths:
        for builder in builders:
            builder.stdin.write(f"{path}\n")
            builder.stdin.flush()
    said = [builder.communicate()[1].splitlines() for builder in builders]
    for lines in said:
        assert [line for line in lines if line in ("0", "2", "4")] == ["0"] * 10, lines
    for path in paths:
        Bundle.open(path).verify()
        assert {file.name for file in path.iterdir()} == {"manifest.json", "model.onnx", "openvino"}
    assert glama_deploy.load(paths[-1], "openvino")(photo, hole).shape == photo.shape


def test_of_two_overwriting_exports_at_once_one_bundle_remains(tiny, another, tmp_path):
    with bundle_folder.create(tmp_path / "b", overwrite=True) as folder:
        first = export(Request(tiny, tmp_path / "b", parity=False, overwrite=True)).bundle
        shutil.copytree(first.path, folder, dirs_exist_ok=True)
    Bundle.open(tmp_path / "b").verify()
    with pytest.raises(GlamaError, match="appeared while it was being made"), bundle_folder.create(tmp_path / "c"):
        export(Request(tiny, tmp_path / "c", parity=False))
    Bundle.open(tmp_path / "c").verify()
    assert {path.name for path in tmp_path.iterdir()} == {"b", "c", "another.safetensors"}


def test_an_engine_of_a_bundle_that_was_exported_anew_meanwhile_is_refused(old, another):
    stale = Bundle.open(old)
    export(Request(another, old, parity=False, overwrite=True))
    before = (old / MANIFEST).read_bytes()
    with pytest.raises(BundleError, match="was changed by another process since it was opened; open it again"):
        add_engine(stale, "openvino", DEFAULT_PROFILE)
    assert (old / MANIFEST).read_bytes() == before


def test_engines_of_other_kinds_that_came_meanwhile_stay(tiny, make_bundle, tmp_path):
    shutil.copytree(make_bundle(tiny, ("onnx",)).path, tmp_path / "b")
    stale = Bundle.open(tmp_path / "b")
    add_engine(Bundle.open(tmp_path / "b"), "openvino", DEFAULT_PROFILE)
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    add_engine(stale, "trt-rtx", DEFAULT_PROFILE.model_copy(update={"max": (512, 512)}))
    assert set(Bundle.open(tmp_path / "b").manifest.engines) == {"onnx", "openvino", "tensorrt-rtx"}


def test_a_waiting_process_logs_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "SECONDS_BEFORE_NOTE", 0.01)
    held, waited = threading.Event(), threading.Event()

    def hold() -> None:
        with locks.hold(tmp_path / "lock", "the bundle b"):
            held.set()
            waited.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(60)
    monkeypatch.setattr(locks.log, "warning", lambda *message: (said.append(message[0] % message[1:]), waited.set()))
    said: list[str] = []
    with locks.hold(tmp_path / "lock", "the bundle b"):
        holder.join(60)
    assert said == ["another process is writing the bundle b; waiting for it to end (Ctrl-C gives up)"]
    assert not list(tmp_path.iterdir())


def test_a_temporary_that_a_process_holds_is_not_removed(tmp_path):
    from glama_deploy.io.files import remove_leftovers, temporary_beside

    for name in (".glama-1.tmp", ".glama-2.old", ".glama-3.lock"):
        (tmp_path / name).write_bytes(b"left")
    (tmp_path / ".glama-4.tmp").mkdir()
    (tmp_path / ".glama-4.tmp" / "model.onnx").write_bytes(b"left")
    with temporary_beside(tmp_path / "x") as temporary:
        temporary.write_bytes(b"in use")
        remove_leftovers(tmp_path)
        assert {path.name for path in tmp_path.iterdir()} == {temporary.name, temporary.with_suffix(".lock").name}
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("link", ["openvino", NEXT])
def test_a_bundle_from_elsewhere_changes_nothing_outside_of_its_folder(old, tmp_path, link):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "model.xml").write_text("private")
    if link == NEXT:
        (old / NEXT).symlink_to(outside)
    else:
        shutil.rmtree(old / "openvino")
        (old / "openvino").symlink_to(outside)
        (old / NEXT / "openvino").mkdir(parents=True)
        (old / NEXT / "openvino" / "model.xml").write_text("evil")
        (old / NEXT / ".glama-obsolete").write_text("../outside/model.xml\nopenvino/model.xml\nmanifest.json\n")
        with pytest.raises(BundleError, match="leads out of the bundle by a link"):
            add_engine(Bundle.open(old), "openvino", DEFAULT_PROFILE)
        assert (old / MANIFEST).is_file()
    if link == NEXT:
        add_engine(Bundle.open(old), "openvino", DEFAULT_PROFILE)
    assert [path.read_text() for path in outside.iterdir()] == ["private"]


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o002])
def test_the_umask_is_honoured(tiny, tmp_path, mask):
    before = os.umask(mask)
    try:
        export(Request(tiny, tmp_path / "b", ("openvino", "trt"), parity=False))
        add_engine(Bundle.open(tmp_path / "b"), "openvino", DEFAULT_PROFILE)
    finally:
        os.umask(before)
    for path in [tmp_path / "b", *(tmp_path / "b").rglob("*")]:
        runs = path.is_dir() or path.name == "build.sh"
        assert stat.S_IMODE(path.stat().st_mode) == (0o777 if runs else 0o666) & ~mask, path
