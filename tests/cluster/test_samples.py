"""WebDataset shards and Parquet files: which files an address names, and what a row needs. Without Ray."""

from __future__ import annotations

import io
import re
import tarfile
import tracemalloc
from pathlib import Path

import pytest

from glama_deploy.cli.inpaint import main
from glama_deploy.errors import GlamaError
from glama_deploy.ray.samples import read_tasks
from glama_deploy.ray.sources import list_sample_files
from glama_deploy.ray.tasks import Columns

#: Addresses are opened with fsspec, and their braces with braceexpand.
needs_storage = pytest.mark.usefixtures("storage_packages")


@pytest.fixture
def storage_packages() -> None:
    pytest.importorskip("fsspec")
    pytest.importorskip("braceexpand")


@needs_storage
def test_the_mask_and_the_quality_of_a_dataset_are_checked_before_a_cluster_is_asked(make_pictures, tmp_path, capsys):
    _, masks = make_pictures(1, suffixes=("png",))
    shard = ("--ray", "--image", tmp_path / "a.tar", "--out", tmp_path / "out")
    for options, says in (
        (("--mask", tmp_path / "absent.png"), f"no mask at {tmp_path / 'absent.png'}; give the file of one mask"),
        (("--mask", masks), f"no mask at {masks}; give the file of one mask"),
        (("--format", "png", "--quality", "50"), "--quality is 50, and .png has no quality"),
        ((), f"no file at {tmp_path / 'a.tar'}; check the address"),
    ):
        assert main.run(list(map(str, (*shard, *options)))) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert says in line
    assert not (tmp_path / "out").exists()


@needs_storage
def test_the_columns_of_a_parquet_file_are_checked_before_a_cluster_is_asked(tmp_path, capsys):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow.parquet import write_table

    write_table(pyarrow.table({"id": ["a"], "pixels": [b""]}), tmp_path / "rows.parquet")
    (tmp_path / "damaged.parquet").write_bytes(b"not rows" * 100)
    for name, options, says in (
        ("rows", (), "with the columns id, pixels has no column 'key'; set --key-column"),
        ("rows", ("--key-column", "id"), "has no column of pictures; set --image-column"),
        ("rows", ("--key-column", "id", "--image-column", "pixels", "--mask-column", "m"), "no column 'm'; set --mask"),
        ("damaged", (), "cannot be read (Parquet magic bytes not found"),
    ):
        file = tmp_path / f"{name}.parquet"
        arguments = ("--ray", "--image", file, "--out", tmp_path / "out", "--box", "0,0,9,9", *options)
        assert main.run(list(map(str, arguments))) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"glama-inpaint: {file} ")
        assert says in line
    assert not (tmp_path / "out").exists()


@needs_storage
@pytest.mark.parametrize(
    "damage", ["cut off", "cut before a header", "cut in a header", "wrong header", "empty", "noise", "absent"]
)
def test_a_damaged_shard_is_a_failure_and_the_rows_of_others_are_read(tmp_path, damage):
    with tarfile.open(tmp_path / "whole.tar", "w") as shard:
        for name in ("a.png", "a.mask.png", "b.png", ".hidden.png", "c", "b.mask.png"):
            shard.add(__file__, f"folder/{name}")
    data = (tmp_path / "whole.tar").read_bytes()
    half = len(data) // 2  # within the second picture
    with tarfile.open(tmp_path / "whole.tar") as shard:
        start = shard.getmember("folder/b.mask.png").offset
    contents = {
        "cut off": data[:half],
        "cut before a header": data[:start],
        "cut in a header": data[: start + 100],
        "wrong header": data[:start] + b"?" + data[start + 1 :],
        "empty": b"",
        "noise": b"noise" * 1000,
    }
    if damage != "absent":
        (tmp_path / "damaged.tar").write_bytes(contents[damage])
    files = [str(tmp_path / f"{name}.tar") for name in ("damaged", "whole")]
    *rows, a, b = read_tasks(files, Columns())
    source = Path(__file__).read_bytes()
    for task, key in ((a, "folder/a"), (b, "folder/b")):
        assert (task.key, task.image_data, task.mask_data, task.reason) == (key, source, source, "")
    (failed,) = (task for task in rows if task.reason)
    assert [task.key for task in rows if not task.reason] == (
        ["folder/a"] if "cut" in damage or "header" in damage else []
    )
    assert failed.image == files[0]
    assert re.fullmatch(
        rf"{re.escape(files[0])} cannot be read \(.+\); repair the file or the connection, .+", failed.reason
    )
    with pytest.raises(GlamaError, match="cannot be read"):
        failed.check()


@needs_storage
def test_a_second_picture_of_one_name_is_a_row_of_its_own(tmp_path):
    with tarfile.open(tmp_path / "shard.tar", "w") as shard:
        for name, data in (("a.png", b"1"), ("a.mask.png", b"2"), ("a.png", b"3"), ("a.mask.png", b"4")):
            add_member(shard, name, data)
    first, second = read_tasks([str(tmp_path / "shard.tar")], Columns())
    assert (first.key, first.image_data, first.mask_data) == ("a", b"1", b"2")
    assert (second.key, second.image_data, second.mask_data) == ("a", b"3", b"4")
    assert first.origin != second.origin  # so the second one fails


def add_member(shard: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    shard.addfile(member, io.BytesIO(data))


@needs_storage
@pytest.mark.parametrize("suffix", ["tar", "parquet"])
def test_the_memory_of_a_reader_does_not_grow_with_the_rows(tmp_path, suffix):
    """The limit is a quarter of the Parquet file, which is one group of rows, and of tarfile's list of all members."""
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow.parquet import write_table

    file = tmp_path / f"samples.{suffix}"
    if suffix == "tar":
        with tarfile.open(file, "w") as shard:
            for number in range(4000):
                add_member(shard, f"{number}.png", b"picture")
    else:
        rows = {"key": [str(number) for number in range(4000)], "image": [bytes([n % 256]) * 2000 for n in range(4000)]}
        write_table(pyarrow.table(rows), file, compression="none", use_dictionary=False, write_batch_size=16)
    peaks = []
    for _ in range(2):  # the first time also imports and fills caches
        tracemalloc.start()
        assert sum(1 for _ in read_tasks([str(file)], Columns())) == 4000
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < {"tar": 500_000, "parquet": file.stat().st_size // 4}[suffix]


@needs_storage
def test_a_damaged_parquet_file_is_a_failure_and_the_rows_of_others_are_read(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow.parquet import write_table

    rows = [{"key": name, "image": b"picture" * 200, "mask": None if name == "b" else b"mask"} for name in "abc"]
    write_table(pyarrow.Table.from_pylist(rows), tmp_path / "whole.parquet")
    write_table(pyarrow.Table.from_pylist([{"key": "d"}]), tmp_path / "other.parquet")
    data = (tmp_path / "whole.parquet").read_bytes()
    (tmp_path / "damaged.parquet").write_bytes(data[:100])
    files = [str(tmp_path / f"{name}.parquet") for name in ("damaged", "other", "whole")]
    damaged, other, a, b, c = read_tasks(files, Columns())
    assert damaged.reason.startswith(f"{files[0]} cannot be read (")
    assert other.reason == f"{files[1]} with the columns key has no column of pictures; set `image_column`"
    assert (a.reason, b.reason, c.reason) == ("", "b: the column 'mask' is empty; a mask is expected", "")
    assert (a.key, b.key, c.image_data, c.mask_data) == ("a", "b", b"picture" * 200, b"mask")


@needs_storage
def test_the_pictures_of_a_parquet_file_may_lie_in_columns_by_format(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow.parquet import write_table

    rows = [
        {"key": "a", "jpg": b"1", "png": None, "mask.png": b"2", "text": "left out"},
        {"key": "b", "jpg": None, "png": b"3", "mask.png": b"4", "text": "left out"},
    ]
    write_table(pyarrow.Table.from_pylist(rows), tmp_path / "rows.parquet")
    a, b = read_tasks([str(tmp_path / "rows.parquet")], Columns())
    assert (a.reason, a.image_data, a.mask_data) == ("", b"1", b"2")
    assert (b.reason, b.image_data, b.mask_data) == ("", b"3", b"4")


@needs_storage
@pytest.mark.parametrize(
    ("row", "columns", "name"),
    [
        ({"id": "a", "image": None}, Columns(key="id"), "a"),
        ({"key": "b", "image": 5}, Columns(), "b"),
        ({"key": None, "image": b"picture"}, Columns(), "rows.parquet"),
    ],
)
def test_a_row_that_cannot_be_read_has_a_name(tmp_path, row, columns, name):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow.parquet import write_table

    write_table(pyarrow.Table.from_pylist([row]), tmp_path / "rows.parquet")
    (task,) = read_tasks([str(tmp_path / "rows.parquet")], columns)
    assert task.reason
    assert Path(task.image).name == name


@needs_storage
def test_braces_and_stars_go_together(tmp_path):
    for name in ("a-0", "a-1", "b-0"):
        (tmp_path / f"{name}.tar").touch()
    found = list_sample_files(f"{tmp_path}/{{a,b}}-*.tar")
    assert [str(Path(each).relative_to(tmp_path)) for each in found] == ["a-0.tar", "a-1.tar", "b-0.tar"]
    with pytest.raises(GlamaError, match=r"no file at .*c-\*\.tar"):
        list_sample_files(f"{tmp_path}/{{a,c}}-*.tar")


def test_a_key_of_tar_with_a_point_before_it_names_an_output():
    """`tar -c .` writes such names."""
    task = Columns().read_row({"__key__": "./a/0", "png": b"picture", "mask.png": b"mask"})
    task.check()
    assert task.key == "a/0"
    with pytest.raises(GlamaError, match="does not name a file below"):
        Columns().read_row({"__key__": "./../0", "png": b"picture", "mask.png": b"mask"}).check()


@pytest.mark.parametrize(
    ("key", "says"), [(None, "'key' is empty"), (float("nan"), "'key' is empty"), (b"a", "keys of the type bytes")]
)
def test_a_row_without_a_name_is_refused(key, says):
    with pytest.raises(GlamaError, match=says):
        Columns().read_row({"key": key, "image": b"picture", "mask": b"mask"})
