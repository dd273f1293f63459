"""Connect to a Ray cluster, or start one on this machine. Ray does not report its use, and logs nothing."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from glama_deploy.errors import GlamaError
from glama_deploy.runtime.base import require
from glama_deploy.system.privacy import opt_out_of_telemetry
from glama_deploy.system.processors import count_processors
from glama_deploy.text.excerpts import describe_error

log = logging.getLogger("glama_deploy")

#: The address that starts a cluster on this machine for one run.
LOCAL = "local"

#: Logical CPUs of such a cluster beside those of the workers. Ray Data's own actors need them.
_FURTHER_CPUS = 2

#: Seconds after which a cluster that does not answer is given up.
_CONNECT_SECONDS = 10.0

#: The longest path of a folder for temporary files below which Ray's sockets keep within a socket's 107 characters.
_MAX_TEMPORARY_CHARACTERS = 20

#: The variable that lets Ray print a message at once, in a thread of its own.
_MERGE_LOGS_VARIABLE = "RAY_DEDUP_LOGS"

#: The variable that says from which level on Ray's native code prints messages.
_LOG_LEVEL_VARIABLE = "RAY_BACKEND_LOG_LEVEL"

#: The variables that have a cluster's own password. Ray writes a password into the home folder where they are not set.
_MODE_VARIABLE, _PASSWORD_VARIABLE = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN"

#: The length of the password of a cluster for one run.
_PASSWORD_BYTES = 32

#: The variable that has the address of a cluster.
_ADDRESS_VARIABLE = "RAY_ADDRESS"


#: The number of the file of standard error.
_STANDARD_ERROR = 2

#: The first letters of the names of Ray's threads.
_RAY_THREADS = "ray_"


class _OwnOutput:
    """Standard output without the messages of Ray's threads, which would stand among lines of JSON. They are logged.

    Args:
        stream: standard output.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        if not threading.current_thread().name.startswith(_RAY_THREADS):
            return self._stream.write(text)
        if text.strip():
            log.info("%s", text.strip())
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def _keep_output() -> Iterator[None]:
    """Keep Ray's messages from standard output during the block."""
    stream = sys.stdout
    output: Any = _OwnOutput(stream)
    sys.stdout = output
    try:
        yield
    finally:
        sys.stdout = stream


@dataclass(frozen=True)
class Resources:
    """What a run takes of the cluster.

    Attributes:
        workers: number of workers; None: as many as there is room for.
        cpus: CPUs of a worker, and the threads of its engine.
        gpus: GPUs of a worker; a part of 1 lets several workers share a GPU.

    Raises:
        GlamaError: a value is out of its range.
    """

    workers: int | None = None
    cpus: int = 1
    gpus: float = 0.0

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise GlamaError(f"`workers` is {self.workers}; 1 or more is expected")
        if self.cpus < 1:
            raise GlamaError(f"`cpus_per_worker` is {self.cpus}; 1 or more is expected")
        if not 0 <= self.gpus <= 64 or (self.gpus > 1 and self.gpus != int(self.gpus)):
            raise GlamaError(f"`gpus_per_worker` is {self.gpus:g}; a share up to 1, or a whole number is expected")

    def count_workers(self, available: dict[str, float], other_cpus: int = 0) -> int:
        """Return the number of workers.

        Args:
            available: the resources of the cluster, as Ray names them.
            other_cpus: CPUs that other steps need.

        Returns:
            The number that was asked for, or as many as the cluster has room for.

        Raises:
            GlamaError: the cluster has no room for a worker.
        """
        room = int(max(0, available.get("CPU", 0) - other_cpus) // self.cpus)
        if self.gpus:
            room = min(room, int(available.get("GPU", 0) / self.gpus + 1e-6))
        if self.workers is None and room < 1:
            raise GlamaError(
                f"the cluster has {_describe(available)}, and a worker takes {self.cpus} CPU and {self.gpus:g} GPU"
                f"{f' beside {other_cpus} CPU for other steps' if other_cpus else ''}; "
                "give `cpus_per_worker` and `gpus_per_worker` that fit, or `workers` if the cluster grows by itself"
            )
        if self.workers is not None and room < self.workers:
            log.warning(
                "the cluster has %s: %d of %d workers have room now, and the others wait",
                _describe(available),
                room,
                self.workers,
            )
        return self.workers or room


def _describe(available: dict[str, float]) -> str:
    return f"{available.get('CPU', 0):g} CPU and {available.get('GPU', 0):g} GPU"


def find_address(address: str | None) -> str:
    """Return the address of the cluster of a run.

    Args:
        address: the address, as :func:`connect` takes it.

    Returns:
        The address; `local` for a cluster that starts on this machine.
    """
    return address or os.environ.get(_ADDRESS_VARIABLE) or LOCAL


@contextmanager
def connect(address: str | None, resources: Resources) -> Iterator[int]:
    """Connect to a cluster, and leave it at the end of the block. A cluster that was started here ends, too.

    A program that is connected already keeps its connection.

    Args:
        address: `HOST:PORT`, `ray://HOST:PORT`, `auto` for the cluster of this machine, or `local` to start one for
            the block. None: the cluster of the variable RAY_ADDRESS; without this variable `local`.
        resources: what the run takes of the cluster.

    Yields:
        The number of workers.

    Raises:
        GlamaError: Ray is not installed, the cluster cannot be reached, or has no room for a worker.
    """
    opt_out_of_telemetry()
    os.environ.setdefault(_LOG_LEVEL_VARIABLE, "fatal")  # Ray's import reads the variables
    os.environ.setdefault(_MERGE_LOGS_VARIABLE, "0")
    address = find_address(address)
    if address == LOCAL:
        _set_password()
    handlers = _read_handlers()
    with _drop_native_messages():
        require("ray", "Ray", "pip install 'glama-deploy[ray]'")
    import ray

    _keep_quiet()
    if ray.is_initialized():
        yield resources.count_workers(ray.cluster_resources())
        return
    with _make_temporary_folder(address) as folder, _keep_output():
        try:
            with _drop_native_messages():
                _open(ray, address, resources, folder)
            for number, handler in handlers.items():  # Ray replaces them
                signal.signal(number, handler)
            further = _FURTHER_CPUS if address == LOCAL else 0
            yield resources.count_workers(ray.cluster_resources(), further)
        finally:
            ray.shutdown()


def _open(ray: Any, address: str, resources: Resources, folder: str | None) -> None:
    settings: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    if address == LOCAL:
        workers = resources.workers or max(1, count_processors() // resources.cpus)
        cpus = workers * resources.cpus + _FURTHER_CPUS
        try:
            ray.init(address, num_cpus=cpus, include_dashboard=False, _temp_dir=folder, **settings)
        except Exception as error:
            raise GlamaError(
                f"Ray cannot start a cluster on this machine ({describe_error(error)}); give fewer `workers`, or the "
                "`ray_address` of a cluster"
            ) from error
        return
    _check_address(address)
    try:
        ray.init(address, **settings)
    except Exception as error:
        raise GlamaError(
            f"no Ray cluster at `ray_address` {address} ({describe_error(error)}); start one with "
            "`ray start --head`, or check the address"
        ) from error


def _check_address(address: str) -> None:
    """Try the port of an address, because Ray itself waits for minutes.

    Raises:
        GlamaError: the address has no port, or nothing answers.
    """
    if address == "auto":
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise GlamaError(
            f"`ray_address` is {address!r}; HOST:PORT such as 10.0.0.5:6379, ray://HOST:PORT, auto or local is expected"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS).close()
    except OSError as error:
        raise GlamaError(
            f"no Ray cluster answers at `ray_address` {address} ({error.strerror or error}); check the address, and "
            "that `ray start --head` runs there"
        ) from error


@contextmanager
def _make_temporary_folder(address: str) -> Iterator[str | None]:
    """Make a folder for the files of a cluster that starts here, and remove it at the end.

    None for other clusters, and where the path would be too long.
    """
    if address != LOCAL or len(tempfile.gettempdir()) > _MAX_TEMPORARY_CHARACTERS:
        yield None
        return
    folder = tempfile.mkdtemp(prefix="glama-")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _drop_native_messages() -> Iterator[None]:
    """Drop what native code writes to standard error during the block: Ray's log level, and each try to connect.

    Ray's exceptions say the same.
    """
    sys.stderr.flush()
    with open(os.devnull, "wb") as null:
        kept = os.dup(_STANDARD_ERROR)
        os.dup2(null.fileno(), _STANDARD_ERROR)
    try:
        yield
    finally:
        os.dup2(kept, _STANDARD_ERROR)
        os.close(kept)


def _set_password() -> None:
    """Give a password to the clusters that this process starts, unless the user has set one or no password.

    Ray reads the variables when it is imported. A program that has imported Ray keeps Ray's own rule.
    """
    names = (_MODE_VARIABLE, _PASSWORD_VARIABLE)
    if "ray" not in sys.modules and not any(name in os.environ for name in names):
        os.environ.update({_MODE_VARIABLE: "token", _PASSWORD_VARIABLE: secrets.token_hex(_PASSWORD_BYTES)})


def _read_handlers() -> dict[int, Any]:
    """Return the handlers of the signals that Ray replaces."""
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGINT") if hasattr(signal, name)]
    with suppress(ValueError):  # not the main thread
        return {number: signal.signal(number, signal.getsignal(number)) for number in numbers}
    return {}


def _keep_quiet() -> None:
    """Let Ray Data print no progress, and log errors alone. They also reach the program as exceptions."""
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    warnings.filterwarnings("ignore", category=UserWarning, module=r"ray\.data")
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
