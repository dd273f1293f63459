"""Read the rows of WebDataset shards and Parquet files as tasks.

Ray's own readers end a run at a damaged file, and wait for a free CPU, which the workers may have taken. The tasks of
this reader take no CPU of the cluster's count. A damaged file becomes a task of the run that says why it failed.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any

from glama_deploy.errors import GlamaError
from glama_deploy.ray.sources import find_sample_kind
from glama_deploy.ray.storage import open_file
from glama_deploy.ray.tasks import SHARD_KEY, Columns, Task
from glama_deploy.runtime.base import require

#: Rows that are read at once, and that are in memory at once.
_ROWS_AT_ONCE = 16

#: Bytes of a column that are read at once. Without a limit PyArrow reads all rows of a group, perhaps the whole file.
_BUFFER_BYTES = 1 << 20

#: The name of a member of a shard: the key reaches up to the first point behind the last slash.
_MEMBER = re.compile(r"(?P<key>(?:.*/)?[^./]+)\.(?P<column>[^/]+)")


def check_columns(files: Sequence[str], columns: Columns) -> None:
    """Check that the first Parquet file that can be read has the columns.

    Args:
        files: the addresses of the files.
        columns: the columns.

    Raises:
        GlamaError: a column is missing, or no file can be read.
    """
    refusals: list[GlamaError] = []
    for file in files:
        try:
            names = read_column_names(file)
        except GlamaError as error:
            refusals.append(error)
            continue
        columns.check_file(file, names)
        return
    raise refusals[0]


def read_column_names(file: str) -> list[str]:
    """Read the names of the columns of a Parquet file.

    Args:
        file: the address of the file.

    Returns:
        The names, in the order of the file.

    Raises:
        GlamaError: the file is damaged, or cannot be read.
    """
    require("pyarrow", "PyArrow", "pip install 'glama-deploy[ray]'")
    from pyarrow.parquet import read_schema

    with open_file(file) as opened:
        return list(read_schema(opened).names)


def read_tasks(files: Iterable[str], columns: Columns) -> Iterator[Task]:
    """Read the rows of files. A file or a row that cannot be read becomes a task with the reason.

    Args:
        files: the addresses of WebDataset shards or Parquet files.
        columns: the columns of keys, pictures and masks.

    Yields:
        The tasks. The rows before the damage of a file come first.
    """
    for file in files:
        read = _read_parquet if find_sample_kind(file) == "parquet" else _read_shard
        try:
            for row in read(file, columns):
                yield _make_task(row, columns, file)
        except GlamaError as error:
            yield Task(file, file, reason=str(error))


def _make_task(row: Mapping[str, Any], columns: Columns, file: str) -> Task:
    """Make the task of a row. A row that cannot be read is named by its key, or by its file if the key is missing."""
    try:
        return columns.read_row(row)
    except GlamaError as error:
        name = str(row.get(columns.key) or row.get(SHARD_KEY) or row.get("key") or file)
        return Task(name, name, reason=str(error))


def _read_parquet(file: str, columns: Columns) -> Iterator[dict[str, Any]]:
    from pyarrow.parquet import ParquetFile

    with open_file(file) as opened:
        table = ParquetFile(opened, buffer_size=_BUFFER_BYTES, pre_buffer=False)
        names = columns.check_file(file, table.schema_arrow.names)
        for batch in table.iter_batches(_ROWS_AT_ONCE, columns=names):
            yield from batch.to_pylist()


class _Header(tarfile.TarInfo):
    """The header of a member of a shard. `tarfile` takes a damaged header for the end of the shard."""

    @classmethod
    def fromtarfile(cls, shard: tarfile.TarFile) -> Any:
        """Read the next header.

        Args:
            shard: the shard.

        Returns:
            The header.

        Raises:
            EOFHeaderError: the shard ends here.
            ReadError: the header is damaged, or the shard was cut off.
        """
        try:
            return super().fromtarfile(shard)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"no whole header at byte {shard.offset}: {error}") from error


def _read_shard(file: str, columns: Columns) -> Iterator[dict[str, Any]]:
    """Read the rows of a shard: neighbours whose names are the same up to the first point."""
    row: dict[str, Any] = {}
    with open_file(file) as opened, tarfile.open(fileobj=opened, mode="r|*", tarinfo=_Header) as shard:
        for member in iter(shard.next, None):
            shard.members = []  # type: ignore[attr-defined]  # tarfile keeps all, which grows
            name = _MEMBER.fullmatch(member.name)
            content = shard.extractfile(member) if name else None
            if name is None or content is None:  # a hidden file, one without a suffix, or a folder
                continue
            if row and (row[SHARD_KEY] != name["key"] or name["column"] in row):
                yield row
                row = {}
            row[SHARD_KEY] = name["key"]
            row[name["column"]] = content.read()
    if row:
        yield row


def open_samples(files: Sequence[str], columns: Columns, blocks: int, block_bytes: int, readers: int) -> Any:
    """Open the rows of WebDataset shards or Parquet files, which the machines of the cluster read.

    Args:
        files: the addresses of the files.
        columns: the columns of keys, pictures and masks.
        blocks: the least number of parts that the rows are read in.
        block_bytes: bytes of a part at most, about.
        readers: the most files that are read at once. Tasks without CPUs would otherwise all run at once.

    Returns:
        A dataset of Ray, whose rows have the fields of a task.
    """
    import ray.data
    from ray.data.block import BlockMetadata
    from ray.data.datasource import Datasource, ReadTask

    class Samples(Datasource):
        """The files, in as many reading tasks as Ray asks for."""

        def get_name(self) -> str:
            return "Samples"

        def estimate_inmemory_data_size(self) -> None:
            return None

        def get_read_tasks(self, parallelism: int, *_: Any, **__: Any) -> list[Any]:
            unknown = BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None)
            count = min(parallelism, len(files))
            return [ReadTask(partial(_read_tables, files[first::count], columns), unknown) for first in range(count)]

    ray.data.DataContext.get_current().target_max_block_size = block_bytes
    return ray.data.read_datasource(
        Samples(), num_cpus=0, concurrency=min(readers, len(files)), override_num_blocks=blocks
    )


def _read_tables(files: Sequence[str], columns: Columns) -> Iterator[Any]:
    """Read the rows of files as tables of pyarrow."""
    import pyarrow

    text, data = pyarrow.string(), pyarrow.large_binary()
    schema = pyarrow.schema(
        {name: data if name.endswith("_data") else text for name in vars(Task("", ""))}  # the fields, in their order
    )
    tasks = read_tasks(files, columns)
    while rows := [vars(task) for task in islice(tasks, _ROWS_AT_ONCE)]:
        yield pyarrow.Table.from_pylist(rows, schema)
