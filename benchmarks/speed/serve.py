"""What `glama-serve` costs around the network, and whether its memory stays flat.

python benchmarks/speed/serve.py [--model default] [--size 512] [--rounds 5] [--requests 2000] [--clients 16]

The server runs in a process of its own, on loopback. One client and many clients take turns. Each request is a crop of
the sample photo with a mask. `--region full` shows the network the whole crop.
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

from glama_deploy.export.samples import SAMPLE
from glama_deploy.masks import by_name

#: Bodies with random damage.
HOSTILE_BODIES = 200

#: Memory is compared from this share of the requests on, when every thread has run.
WARM_SHARE = 0.25


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

    def end(self) -> None:
        """End the process."""
        self._child.terminate()
        self._child.wait()


def make_body(size: int, encoder: str, seed: int) -> Body:
    """Make the body of a request.

    Args:
        size: side of the picture in pixels.
        encoder: Pillow's name of the picture's format.
        seed: selects the crop and the mask.

    Returns:
        A form with a crop of the sample photo, and a mask.
    """
    rng = np.random.default_rng(seed)
    image, mask = io.BytesIO(), io.BytesIO()
    with Image.open(SAMPLE) as photo:
        left, top = (int(rng.integers(0, side - size + 1)) for side in photo.size)
        options = {"quality": 95} if encoder == "JPEG" else {}
        photo.crop((left, top, left + size, top + size)).save(image, encoder, **options)
    Image.fromarray(by_name("MediumStrokes")(size, size, rng)).save(mask, "PNG")
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


def measure_overhead(url: str, body: Body, runs: int) -> tuple[float, float]:
    """Measure what the server adds to the network for one client.

    Args:
        url: the server.
        body: the request.
        runs: requests that count.

    Returns:
        The median of the client's seconds beside the network's, as a share of the network's; and the median of the
        network's seconds.
    """
    shares, networks = [], []
    with httpx.Client(base_url=url, timeout=600) as client:
        for _ in range(runs + 1):
            start = time.perf_counter()
            answer = post(client, body)
            whole, network = time.perf_counter() - start, float(answer.headers["x-glama-seconds"])
            shares.append((whole - network) / network)
            networks.append(network)
    return statistics.median(shares[1:]), statistics.median(networks[1:])


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


def main() -> None:
    """Parse the options, measure, and print the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="default", help="a bundle, a checkpoint or 'default'")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5, help="turns of one client and many clients")
    parser.add_argument("--requests", type=int, default=2000, help="requests of the memory test, of 64x64 pixels")
    parser.add_argument("--clients", type=int, default=16)
    options = parser.parse_args()
    one, several = ServerProcess(options.model, 1), ServerProcess(options.model, 2)
    try:
        print(f"{one.description}; ready after {one.ready_seconds:.1f} s and {several.ready_seconds:.1f} s")
        for encoder in ("PNG", "JPEG"):
            share, seconds = measure_overhead(one.url, make_body(options.size, encoder, 0), 2 * options.rounds + 1)
            print(f"one client, {options.size}x{options.size}, {encoder}: {seconds:.3f} s, and {share:.1%} around it")
        bodies = [make_body(options.size, "JPEG", seed) for seed in range(4)]
        ratios = []
        for _ in range(options.rounds):
            alone = measure_rate(one.url, bodies, 1, 8)
            many = [measure_rate(server.url, bodies, options.clients, 2 * options.clients) for server in (one, several)]
            ratios.append([rate / alone for rate in many])
            print(
                f"{alone:.2f} a second alone, {options.clients} clients: {many[0]:.2f}, with two streams {many[1]:.2f}"
            )
        medians = [statistics.median(column) for column in zip(*ratios, strict=True)]
        print(f"{options.clients} clients against one: {medians[0]:.2f}, with two streams {medians[1]:.2f}")
        small = [make_body(64, "PNG", seed) for seed in range(20)]
        chunk, memory = max(1, options.requests // 20), []
        for _ in range(20):
            measure_rate(several.url, small, options.clients, chunk)
            memory.append(several.count_bytes())
        warm = memory[int(WARM_SHARE * len(memory))]
        print(f"{20 * chunk} requests: {warm / 1e6:.0f} MB when warm, {memory[-1] / 1e6:.0f} MB at the end")
        counts = send_damaged(several.url, small[0])
        print(f"{HOSTILE_BODIES} damaged bodies: {dict(sorted(counts.items()))}; {several.count_bytes() / 1e6:.0f} MB")
    finally:
        one.end()
        several.end()


if __name__ == "__main__":
    main()
