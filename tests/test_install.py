"""What pip installs is whole: the top-level folders land inside the package, with the assets."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, distribution, requires, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

import glama_deploy

ROOT = Path(__file__).parents[1]

#: What a checkout may have beside its sources.
NOT_SOURCES = (".*", "build", "demo", "scratch", "tests", "photos", "*.egg-info", "__pycache__")


@pytest.mark.slow
def test_a_wheel_holds_every_package_and_the_assets(tmp_path):
    # A copy, because setuptools puts whatever a former build has left in the checkout's build/ into the wheel.
    sources = shutil.copytree(ROOT, tmp_path / "sources", ignore=shutil.ignore_patterns(*NOT_SOURCES))
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path, sources]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    code = """
import importlib, pkgutil, sys
sys.path.insert(0, sys.argv[1])
import glama_deploy
assert glama_deploy.__file__.startswith(sys.argv[1]), glama_deploy.__file__
for module in pkgutil.walk_packages(glama_deploy.__path__, "glama_deploy."):
    importlib.import_module(module.name)
from glama_deploy.export.samples import SAMPLE, parity_cases
from glama_deploy.bundle import ANY_SIZE
from glama_deploy.checkpoints import formats
assert str(SAMPLE).startswith(sys.argv[1])
assert parity_cases(ANY_SIZE) and formats.read("default").weights
"""
    subprocess.run([sys.executable, "-c", code, tmp_path / "site"], check=True, cwd=tmp_path)


@pytest.mark.slow
def test_a_source_distribution_holds_what_a_checkout_holds(tmp_path):
    """Also the tests and guides: a packager runs the tests from it."""
    left_out = shutil.ignore_patterns(*(name for name in NOT_SOURCES if name != "tests"))
    sources = shutil.copytree(ROOT, tmp_path / "sources", ignore=left_out)
    shutil.copytree(ROOT / ".ci", sources / ".ci")
    code = "from setuptools import build_meta; build_meta.build_sdist('../dist')"
    subprocess.run([sys.executable, "-c", code], cwd=sources, check=True, capture_output=True)
    (archive,) = (tmp_path / "dist").glob("*.tar.gz")
    with tarfile.open(archive) as files:
        found = {name.partition("/")[2] for name in files.getnames()}
        metadata = files.extractfile(f"{archive.name.removesuffix('.tar.gz')}/PKG-INFO")
        assert metadata is not None
        licenses = [line for line in metadata.read().decode().splitlines() if line.startswith("License-File: ")]
    folders = (".ci", "benchmarks", "docs", "engines", "examples", "export", "glama_deploy", "overrides", "tests")
    expected = {path for folder in folders for path in (sources / folder).rglob("*") if path.is_file()}
    expected |= {sources / name for name in ("CONTRIBUTING.md", "CITATION.cff", "Makefile", "constraints.txt")}
    assert sorted({path.relative_to(sources).as_posix() for path in expected} - found) == []
    assert licenses == [
        "License-File: LICENSE",
        "License-File: glama_deploy/assets/CREDITS.md",
        "License-File: glama_deploy/assets/CREDITS-MORE.md",
    ]


def test_every_file_that_the_readme_links_to_is_there():
    links = re.findall(r"\]\(([^)#:]+)\)", (ROOT / "README.md").read_text())
    assert links
    assert [link for link in links if not (ROOT / link).is_file()] == []


def test_the_version_is_one():
    assert version("glama-deploy") == glama_deploy.__version__


def test_no_extra_but_its_own_names_an_onnxruntime():
    """Extras add up, and onnxruntime and onnxruntime-gpu overwrite each other's files: `[export,gpu]` has one.

    A plugin (onnxruntime-ep-…) stands beside either.
    """
    named: dict[str, set[str]] = {}
    for requirement in requires("glama-deploy") or ():
        found = re.match(r"(onnxruntime(?!-ep-)[\w-]*)", requirement)
        extra = re.search(r"""extra == ['"]([\w-]+)['"]""", requirement)
        if found and extra:
            named.setdefault(found[1], set()).add(extra[1])
    assert named == {"onnxruntime": {"onnxruntime"}, "onnxruntime-gpu": {"gpu"}}
    assert "onnxruntime" in re.search(r"glama-deploy\[(.*?)\]", " ".join(requires("glama-deploy") or ()))[1].split(",")


def read_pins(name: str) -> dict[str, Version]:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return {canonicalize_name(package): Version(pin) for package, pin in (line.split("==") for line in lines)}


def test_python_3_10_has_pins_for_every_requirement_and_none_that_needs_a_later_python():
    """JetPack 6 has Python 3.10. What is installed here and says that it needs 3.11 is not pinned for 3.10."""
    pins = read_pins("constraints-python3.10.txt")
    extras = [{"python_version": "3.10", "extra": extra} for extra in ("", "test", "export", "serve", "train", "eval")]
    for requirement in map(Requirement, requires("glama-deploy") or ()):
        if requirement.name == "glama-deploy" or not any(
            requirement.marker is None or requirement.marker.evaluate(each) for each in extras
        ):
            continue
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), requirement
    for package, pin in pins.items():
        with suppress(PackageNotFoundError):
            found = distribution(package)
            if Version(found.version) == pin:
                assert SpecifierSet(found.metadata.get("Requires-Python") or "").contains("3.10.12"), package
