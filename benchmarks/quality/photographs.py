"""Photographs for training, from the Debian packages that a file of credits names.

    python benchmarks/quality/photographs.py --out FOLDER [--credits FILE] [--packages FOLDER]

The default credits list the photographs that all runs of the embedded network were trained on (413 MB of packages).
`glama_deploy/assets/CREDITS-MORE.md` lists those of its last runs alone (1.1 GB of packages).

For Debian 12 and what is made of it. Packages are downloaded by `apt-get download` into a temporary folder, or looked
for in `--packages` as unpacked by `dpkg-deb -x PACKAGE.deb FOLDER/PACKAGE`. `FOLDER/photos` is for training. The
photographs with a star go to `FOLDER/held-out`, to choose between checkpoints. Nothing is installed.
"""

from __future__ import annotations

import argparse
import io
import re
import struct
import subprocess
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from glama_deploy.io.files import atomic_file

CREDITS = Path(__file__).parents[2] / "glama_deploy" / "assets" / "CREDITS.md"

#: The credits of more photographs, which only the last runs of the embedded network were trained on.
MORE_CREDITS = CREDITS.with_name("CREDITS-MORE.md")

#: A file inside an archive has its path there. A file of a Qt resource collection has its bytes.
Content = bytes | Path | zipfile.Path

#: Shorter sides are brought to this, where they are longer.
SIDE = 768


@dataclass(frozen=True)
class Photograph:
    """A file of a package, by the end of its path there, and whether it was held out."""

    package: str
    path: str
    held_out: bool

    @property
    def name(self) -> str:
        """Return the name of the file that is written."""
        return f"{self.package}-{self.path.rpartition('.')[0].replace('/', '_')}.png"


def list_credited(text: str) -> Iterator[Photograph]:
    """List the photographs in the tables of the credits.

    Args:
        text: the credits, in Markdown. The photographs stand under the heading of their package.

    Yields:
        The photographs in their order.
    """
    package = ""
    for line in text.splitlines():
        if heading := re.match(r"### (\S+) \(", line):
            package = heading[1]
        elif package and (row := re.match(r"\| `([^`]+)`(\*?) \|", line)):
            yield Photograph(package, row[1], bool(row[2]))


def main() -> None:
    """Parse the options, and write the photographs of each package."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--credits", type=Path, default=CREDITS)
    parser.add_argument("--packages", type=Path)
    options = parser.parse_args()
    if not options.credits.is_file():
        parser.error(f"--credits {options.credits} is not a file")
    wanted = list(list_credited(options.credits.read_text(encoding="utf-8")))
    if not wanted:
        parser.error(f"--credits {options.credits} has no table of photographs under the heading of a package")
    with tempfile.TemporaryDirectory() as folder:
        packages = options.packages or Path(folder)
        for package in sorted({photograph.package for photograph in wanted}):
            if options.packages is None:
                unpack_package(package, packages)
            files = read_package(packages / package)
            theirs = [photograph for photograph in wanted if photograph.package == package]
            for photograph in theirs:
                save_photograph(photograph, files, options.out)
            print(f"{package}: {len(theirs)} photographs")


def unpack_package(package: str, folder: Path) -> None:
    """Download a Debian package and unpack it.

    Args:
        package: name of the package.
        folder: the folder that gets a folder of the package's name.
    """
    subprocess.run(["apt-get", "download", "-qq", package], cwd=folder, check=True)
    (archive,) = folder.glob(f"{package}_*.deb")
    subprocess.run(["dpkg-deb", "-x", archive, folder / package], check=True)
    archive.unlink()


def read_package(folder: Path) -> dict[str, Content]:
    """List the files of an unpacked package, and the files inside its Qt resources and its archives of game data.

    Args:
        folder: the unpacked package.

    Returns:
        The content of each file, by the path in the package, or in the resources or archive.
    """
    found: dict[str, Content] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix == ".rcc":
            found |= read_resources(path.read_bytes())
        elif path.suffix == ".pk3":
            archive = zipfile.ZipFile(path)
            found |= {f"/{name}": zipfile.Path(archive, name) for name in archive.namelist()}
        elif path.is_file():
            found[f"/{path.relative_to(folder).as_posix()}"] = path
    return found


def save_photograph(photograph: Photograph, files: Mapping[str, Content], out: Path) -> None:
    """Write a photograph as a PNG file, scaled down to :data:`SIDE`.

    Args:
        photograph: the photograph.
        files: the files of its package.
        out: the folder that gets `photos` and `held-out`.
    """
    found = [content for path, content in files.items() if path.endswith(f"/{photograph.path}")]
    if not found:
        raise SystemExit(f"{photograph.package} has no {photograph.path}; the credits are of Debian 12's packages")
    content = found[0] if isinstance(found[0], bytes) else found[0].read_bytes()
    with Image.open(io.BytesIO(content)) as image:
        rgb = image.convert("RGB")
    scale = SIDE / min(rgb.size)
    if scale < 1:
        rgb = rgb.resize((round(rgb.width * scale), round(rgb.height * scale)), Image.Resampling.LANCZOS)
    folder = out / ("held-out" if photograph.held_out else "photos")
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_file(folder / photograph.name) as temporary:
        rgb.save(temporary, format="PNG")


def read_resources(data: bytes) -> dict[str, bytes]:
    """Read a Qt resource collection (`rcc --binary`, versions 1 to 3).

    Files that are compressed by Zstandard are left out. No photograph is.

    Args:
        data: the bytes of the collection.

    Returns:
        The bytes of the files, by path.

    Raises:
        ValueError: The bytes are not a Qt resource collection.
    """
    magic, version, tree, start, names = struct.unpack_from(">4s4I", data)
    if magic != b"qres":
        raise ValueError("no Qt resource collection")
    size = 14 if version == 1 else 22  # of a node; later ones end with a time
    found: dict[str, bytes] = {}

    def walk(node: int, path: str) -> None:
        name, flags = struct.unpack_from(">IH", data, tree + node * size)
        if node:  # the root has no name
            (length,) = struct.unpack_from(">H", data, names + name)
            path += "/" + data[names + name + 6 : names + name + 6 + 2 * length].decode("utf-16-be")
        if flags & 2:  # a folder
            count, first = struct.unpack_from(">2I", data, tree + node * size + 6)
            for child in range(first, first + count):
                walk(child, path)
            return
        (offset,) = struct.unpack_from(">I", data, tree + node * size + 10)
        (length,) = struct.unpack_from(">I", data, start + offset)
        content = data[start + offset + 4 : start + offset + 4 + length]
        if flags & 1:  # after its length
            content = zlib.decompress(content[4:])
        if not flags & 4:
            found[path] = content

    walk(0, "")
    return found


if __name__ == "__main__":
    main()
