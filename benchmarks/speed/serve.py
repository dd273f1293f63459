"""What `glama-serve` costs around the network, and whether its memory stays flat.

python benchmarks/speed/serve.py PART … [--model default] [--size 512] [--rounds 5] [--requests 2000] [--clients 16]

The parts are `overhead`, `rate`, `memory` and `damage`. The server runs in a process of its own, on loopback. Each
request is a crop of the sample photo with a mask, and the network is shown the whole crop. CPU seconds are compared
beside seconds, because other programs change them less.
"""

from __future__ import annotations

import argparse
import io
import re
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import httpx
import numpy as np
import psutil
from PIL import Image

import glama_deploy
from glama_deploy.export.samples import SAMPLE
from glama_deploy.masks import by_name

#: Bodies with random damage.
HOSTILE_BODIES = 200

#: Looks at the memory.
_MEMORY_SAMPLES = 20


@dataclass(frozen=True)
class Body:
    """A request's body, and its media type."""

    data: bytes
    media_type: str


class ServerProcess:
    """A `glama-serve` in a process of its own.

    Args:
        model: the model.
        streams: pictures that are filled at once.
    """

    def __init__(self, model: str, streams: int) -> None:
        command = [sys.executable, "-c", "from glama_deploy.cli.start import serve; serve()", "--model", model]
        options = ["--no-open", "--port", "0", "--streams", str(streams), "--queue", "64"]
        start = time.perf_counter()
        self._child = subprocess.Popen(
            [*command, *options], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, encoding="utf-8"
        )
        assert self._child.stderr is not None
        said = ""
        while "ready: " not in said:
            line = self._child.stderr.readline()
            if not line:
                raise SystemExit(f"the server ended: {said}")
            said += line
        self.ready_seconds = time.perf_counter() - start
        self.url = re.findall(r"listening at (\S+)", said)[0]
        self.description = re.findall(r"ready: (.+)", said)[0]

    def count_bytes(self) -> int:
        """Return the resident memory of the process in bytes.

        Returns:
            The bytes.
        """
        return int(psutil.Process(self._child.pid).memory_info().rss)

    def count_cpu_seconds(self) -> float:
        """Return the CPU seconds of the process.

        Returns:
            The seconds of all threads.
        """
        times = psutil.Process(self._child.pid).cpu_times()
        return float(times.user + times.system)

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(self, *error: object) -> None:
        self._child.terminate()
        self._child.wait()


def make_picture(size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Make a picture and its mask.

    Args:
        size: side of the picture in pixels.
        seed: selects the crop and the mask.

    Returns:
        A crop of the sample photo (uint8 [size, size, 3]), and the missing pixels (bool [size, size]).
    """
    rng = np.random.default_rng(seed)
    with Image.open(SAMPLE) as photo:
        left, top = (int(rng.integers(0, side - size + 1)) for side in photo.size)
        picture = np.asarray(photo.convert("RGB").crop((left, top, left + size, top + size)))
    return picture, by_name("MediumStrokes")(size, size, rng)


def make_body(size: int, encoder: str, seed: int) -> Body:
    """Make the body of a request.

    Args:
        size: side of the picture in pixels.
        encoder: Pillow's name of the picture's format.
        seed: selects the crop and the mask.

    Returns:
        A form with a crop of the sample photo, and a mask.
    """
    picture, missing = make_picture(size, seed)
    image, mask = io.BytesIO(), io.BytesIO()
    Image.fromarray(picture).save(image, encoder, **({"quality": 95} if encoder == "JPEG" else {}))
    Image.fromarray(missing).save(mask, "PNG")
    files = {"image": ("image", image.getvalue()), "mask": ("mask", mask.getvalue())}
    request = httpx.Request("POST", "http://localhost/", files=files, data={"region": "full"})
    return Body(request.read(), request.headers["content-type"])


def post(client: httpx.Client, body: Body) -> httpx.Response:
    """Send a request.

    Args:
        client: the connection.
        body: the body.

    Returns:
        The answer.
    """
    return client.post("/v1/inpaint", content=body.data, headers={"content-type": body.media_type})


def measure_overhead(server: ServerProcess, model: str, size: int, encoder: str, rounds: int) -> None:
    """Print what the server adds to the network for one client. The server and plain calls take turns.

    Args:
        server: the server.
        model: the model of the server.
        size: side of the picture in pixels.
        encoder: Pillow's name of the picture's format.
        rounds: turns that count.
    """
    picture, missing = make_picture(size, 0)
    body = make_body(size, encoder, 0)
    inpainter = glama_deploy.load(model)
    shares, cpu_shares, networks = [], [], []
    with httpx.Client(base_url=server.url, timeout=600) as client:
        for _ in range(rounds + 1):
            cpu = time.process_time()
            inpainter(picture, missing, region="full")
            plain_cpu, cpu = time.process_time() - cpu, server.count_cpu_seconds()
            start = time.perf_counter()
            answer = post(client, body)
            whole, network = time.perf_counter() - start, float(answer.headers["x-glama-seconds"])
            shares.append((whole - network) / network)
            cpu_shares.append((server.count_cpu_seconds() - cpu) / plain_cpu - 1)
            networks.append(network)
    around, around_cpu, seconds = (statistics.median(values[1:]) for values in (shares, cpu_shares, networks))
    print(
        f"one client, {size}x{size}, {encoder}: network {seconds:.3f} s, {around:.1%} around it; CPU seconds "
        f"{around_cpu:+.1%} against a plain call"
    )


def measure_rate(url: str, bodies: list[Body], clients: int, requests: int) -> float:
    """Measure the rate of several clients.

    Args:
        url: the server.
        bodies: the requests, which the clients take in turn.
        clients: number of clients, each with a connection.
        requests: number of requests of all clients.

    Returns:
        Requests a second. Every answer had status 200.
    """

    def run(number: int) -> None:
        with httpx.Client(base_url=url, timeout=600) as client:
            for index in range(number, requests, clients):
                post(client, bodies[index % len(bodies)]).raise_for_status()

    start = time.perf_counter()
    with ThreadPoolExecutor(clients) as threads:
        list(threads.map(run, range(clients)))
    return requests / (time.perf_counter() - start)


def send_damaged(url: str, body: Body) -> dict[int, int]:
    """Send bodies with random damage.

    Args:
        url: the server.
        body: the whole body.

    Returns:
        The number of answers by status.
    """
    rng, counts = np.random.default_rng(0), dict[int, int]()
    with httpx.Client(base_url=url, timeout=600) as client:
        for number in range(HOSTILE_BODIES):
            data = bytearray(body.data)
            for position in rng.integers(0, len(data), int(rng.integers(1, 40))):
                data[position] = int(rng.integers(0, 256))
            if number % 4 == 0:
                data = data[: int(rng.integers(0, len(data)))]
            status = post(client, Body(bytes(data), body.media_type)).status_code
            counts[status] = counts.get(status, 0) + 1
    return counts


def compare_rates(model: str, size: int, rounds: int, clients: int) -> None:
    """Print the rates of many clients against one, in turns, with one stream and with two.

    Args:
        model: the model.
        size: side of the pictures in pixels.
        rounds: turns.
        clients: number of clients.
    """
    bodies = [make_body(size, "JPEG", seed) for seed in range(4)]
    with ServerProcess(model, 1) as one, ServerProcess(model, 2) as several:
        ratios = []
        for _ in range(rounds):
            alone = measure_rate(one.url, bodies, 1, 6)
            many = [measure_rate(server.url, bodies, clients, clients) for server in (one, several)]
            ratios.append([rate / alone for rate in many])
            print(f"{alone:.2f} a second alone, {clients} clients: {many[0]:.2f}, with two streams {many[1]:.2f}")
    medians = [statistics.median(column) for column in zip(*ratios, strict=True)]
    print(f"{clients} clients against one: {medians[0]:.2f}, with two streams {medians[1]:.2f}")


def watch_memory(server: ServerProcess, requests: int, clients: int) -> None:
    """Print the memory of the server while many requests are answered.

    Args:
        server: the server.
        requests: number of requests, of 64x64 pixels.
        clients: number of clients.
    """
    bodies, memory = [make_body(64, "PNG", seed) for seed in range(20)], []
    for _ in range(_MEMORY_SAMPLES):
        measure_rate(server.url, bodies, clients, requests // _MEMORY_SAMPLES)
        memory.append(server.count_bytes())
    shown = ", ".join(f"{value / 1e6:.0f}" for value in memory)
    print(f"{requests} requests of {clients} clients, MB after each {_MEMORY_SAMPLES}th: {shown}")


#: The parts that can be asked for.
PARTS = ("overhead", "rate", "memory", "damage")


def main() -> None:
    """Parse the options, measure, and print the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", choices=PARTS)
    parser.add_argument("--model", default="default", help="a bundle, a checkpoint or 'default'")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5, help="turns that count")
    parser.add_argument("--requests", type=int, default=2000, help="requests of the part `memory`")
    parser.add_argument("--clients", type=int, default=16)
    options = parser.parse_args()
    with ServerProcess(options.model, 1) as server:
        print(f"{server.description}; ready after {server.ready_seconds:.1f} s")
        if "overhead" in options.parts:
            for encoder in ("PNG", "JPEG"):
                measure_overhead(server, options.model, options.size, encoder, options.rounds)
        if "memory" in options.parts:
            watch_memory(server, options.requests, options.clients)
        if "damage" in options.parts:
            before = server.count_bytes()
            counts = send_damaged(server.url, make_body(64, "PNG", 0))
            print(
                f"{HOSTILE_BODIES} damaged bodies, answers by status: {dict(sorted(counts.items()))}; memory "
                f"{before / 1e6:.0f} MB before, {server.count_bytes() / 1e6:.0f} MB after"
            )
    if "rate" in options.parts:
        compare_rates(options.model, options.size, options.rounds, options.clients)


if __name__ == "__main__":
    main()
