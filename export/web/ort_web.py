"""Get ONNX Runtime Web, the engine of a site: from npm, from a folder, or from a public CDN.

The version and the SHA-256 of each file are pinned here, so that a site never runs other code. The project contains no
file of ONNX Runtime Web.
"""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from glama_deploy.errors import GlamaError
from glama_deploy.text.excerpts import MAX_ENGINE_LINE, first_line

#: The npm package, its version, and the SHA-512 of its tarball as npm writes it.
PACKAGE = "onnxruntime-web"
VERSION = "1.30.0"
_TARBALL_SHA512 = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="

#: The folder of the files on a public CDN of npm packages.
CDN = f"https://cdn.jsdelivr.net/npm/{PACKAGE}@{VERSION}/dist/"

#: Seconds for npm to download the package of 33 MB.
_NPM_TIMEOUT_SECONDS = 900


@dataclass(frozen=True)
class Build:
    """One build of ONNX Runtime Web.

    Attributes:
        library: The name of the file with the interface.
        factory: The name of the file that loads the binary and starts threads.
        binary: The name of the WebAssembly file.
    """

    library: str
    factory: str
    binary: str


#: The builds by the name of the provider that a site opens: WebAssembly alone, and WebGPU with WebAssembly.
BUILDS: Mapping[str, Build] = MappingProxyType(
    {
        "wasm": Build("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"),
        "webgpu": Build(
            "ort.webgpu.min.mjs", "ort-wasm-simd-threaded.asyncify.mjs", "ort-wasm-simd-threaded.asyncify.wasm"
        ),
    }
)

#: The SHA-256 of each file, as base64.
FILES: Mapping[str, str] = MappingProxyType(
    {
        "ort.wasm.min.mjs": "IZ5qH8ipk4Jo0Y78o8kdMQvS9KWbvRN0TfWyt/xs7js=",
        "ort-wasm-simd-threaded.mjs": "4T9/lPxRtMpysS+use6V9Kzm37yJObxxiqvcCifEKZs=",
        "ort-wasm-simd-threaded.wasm": "M5jBDQfSKb2Rs2RUjhMODlGo5XBLiMfAg+u+t4hC3uI=",
        "ort.webgpu.min.mjs": "Pf//cYEbwTo6PZWRxXyl7lc1uPXz6veJUQsCuwQK46A=",
        "ort-wasm-simd-threaded.asyncify.mjs": "PRyFmVNku2QzAvxv2Hegw7pa5yQBgV4PJIKKU9kZHig=",
        "ort-wasm-simd-threaded.asyncify.wasm": "OfnwiU1HiABIftn32+kmGEmNsyDPVcjj2Jrf+NzmWNo=",
    }
)

#: Sources that are not folders.
NPM_SOURCE = "npm"
CDN_SOURCE = "cdn"


def check_source(source: str) -> None:
    """Check where ONNX Runtime Web is to come from, before any work.

    Args:
        source: `npm`, `cdn`, or the path of a folder with the files.

    Raises:
        GlamaError: npm is not installed, or the folder lacks a file or has another version.
    """
    if source == NPM_SOURCE and shutil.which("npm") is None:
        raise GlamaError(
            f"npm, which downloads {PACKAGE} {VERSION}, is not installed; install npm, or give `ort_web=FOLDER` with "
            "the package's files, or `ort_web=cdn`"
        )
    if source not in (NPM_SOURCE, CDN_SOURCE):
        _find_folder(Path(source))


def write(source: str, folder: Path) -> None:
    """Write the files of ONNX Runtime Web into a folder. Nothing is written for `cdn`.

    Args:
        source: `npm`, `cdn`, or the path of a folder with the files.
        folder: The folder, which is made.

    Raises:
        GlamaError: A file is missing or is not of the pinned version, or npm fails.
    """
    if source == CDN_SOURCE:
        return
    folder.mkdir(parents=True)
    if source == NPM_SOURCE:
        _download(folder)
        return
    found = _find_folder(Path(source))
    for name in FILES:
        shutil.copyfile(found / name, folder / name)


def compute_sha256(path: Path) -> str:
    """Compute the SHA-256 of a file as browsers write it.

    Args:
        path: The file.

    Returns:
        Base64 text.
    """
    return base64.b64encode(hashlib.sha256(path.read_bytes()).digest()).decode()


def _find_folder(folder: Path) -> Path:
    """Return the folder with the files: the given one, or `dist` in it. Raise GlamaError for a wrong file."""
    if not folder.is_dir():
        raise GlamaError(f"`ort_web={folder}` is not a folder; expected npm, cdn or a folder of {PACKAGE} {VERSION}")
    if (folder / "dist").is_dir():
        folder = folder / "dist"
    for name, expected in FILES.items():
        path = folder / name
        if not path.is_file():
            raise GlamaError(f"{path} is missing; give the folder dist of {PACKAGE} {VERSION}, or `ort_web=npm`")
        if compute_sha256(path) != expected:
            raise GlamaError(
                f"{path} is not the file of {PACKAGE} {VERSION} (its SHA-256 differs); give the folder dist of that "
                "version, or `ort_web=npm`"
            )
    return folder


def _download(folder: Path) -> None:
    """Have npm download the package, and unpack the files that a site needs."""
    with tempfile.TemporaryDirectory() as scratch:
        tarball = _pack(Path(scratch))
        if base64.b64encode(hashlib.sha512(tarball.read_bytes()).digest()).decode() != _TARBALL_SHA512:
            raise GlamaError(
                f"npm gave another {PACKAGE} {VERSION} than the pinned one (its SHA-512 differs); check npm's "
                "registry, or give `ort_web=FOLDER`"
            )
        with tarfile.open(tarball) as archive:
            for name in FILES:
                member = archive.extractfile(f"package/dist/{name}")
                if member is None:
                    raise GlamaError(f"{PACKAGE} {VERSION} has no file {name}; report this")
                (folder / name).write_bytes(member.read())
    _find_folder(folder)


def _pack(folder: Path) -> Path:
    """Run `npm pack`; return the tarball."""
    command = [shutil.which("npm") or "npm", "pack", "--silent", f"{PACKAGE}@{VERSION}"]
    try:
        ran = subprocess.run(
            command,
            cwd=folder,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_NPM_TIMEOUT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise GlamaError(f"npm cannot download {PACKAGE} {VERSION}: {error}; give `ort_web=FOLDER` or cdn") from error
    packed = list(folder.glob("*.tgz"))
    if ran.returncode or len(packed) != 1:
        reason = first_line(Exception(ran.stderr.strip() or "no message"), MAX_ENGINE_LINE)
        raise GlamaError(
            f"npm cannot download {PACKAGE} {VERSION} ({reason}); check the network and npm's registry, or give "
            "`ort_web=FOLDER` or cdn"
        )
    return packed[0]
