"""How fast a static site fills in Chromium, against the native engines on the same machine.

python benchmarks/speed/web.py --site SITE --model BUNDLE [--sizes 256 512] [--threads 1 2] [--rounds 5] [--job]

`--site` is what `glama-export --target web` wrote, `--model` a bundle of the same checkpoint. Each round runs all
contenders once, and a ratio is the median over the rounds of the time of native ONNX Runtime by the contender's time:
below 1 the contender is slower. The picture is square, and a square hole in its middle has 5 % of the pixels.

    wasm        the site as it is: Winograd's method, and the window around the hole
    wasm plain  the graph without Winograd's method
    wasm whole  the graph without Winograd's method and without a window, as pages run the public ONNX file of LaMa
    wasm fp16   the site with weights in fp16, if the site has them

CPU seconds are those of all processes of the browser. Where other programs run, the ratio of CPU seconds is the better
one. `--job` measures what a person waits for instead: a photograph of 1024×1024 pixels is opened in the page, a
rectangle of 5 % is drawn, and the time from the release of the mouse to the filled picture is taken.
"""

from __future__ import annotations

import argparse
import base64
import functools
import io
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

import glama_deploy
from glama_deploy.export.samples import SAMPLE

#: The share of the pixels that are missing.
HOLE_SHARE = 0.05

#: The side of the photograph of `--job`, in pixels.
JOB_SIDE_PIXELS = 1024

#: Milliseconds after which a wait counts as a hang.
HANG_MILLISECONDS = 900_000

#: A run of one picture: seconds, and CPU seconds.
Run = Callable[[np.ndarray, np.ndarray], tuple[float, float]]

#: Opens the network in a worker of the page: `name` says where the worker is kept, `change` edits the description.
OPEN = """async ([name, structure, precision, threads]) => {
    const base = document.baseURI;
    const site = await (await fetch("site.json")).json();
    const {structures} = site.precisions[precision];
    structures.wasm = structures[structure];
    const worker = new Worker(new URL("page/browser/worker.js", base), {type: "module"});
    let number = 0;
    const ask = (job, ...values) => new Promise((resolve, reject) => {
        const wanted = ++number;
        worker.addEventListener("message", ({data}) => {
            if (data.number === wanted) data.error === undefined ? resolve(data.result) : reject(new Error(data.error));
        });
        worker.postMessage({number: wanted, name: job, values});
    });
    (window.bench ??= {})[name] = ask;
    return ask("open", site, {base, precision, provider: "wasm", threads});
}"""

FILL = """async ([name, width, height, pixels, mask]) => {
    const toBytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const picture = {rgba: new Uint8ClampedArray(toBytes(pixels)), width, height, channels: 3};
    return (await window.bench[name]("fill", picture, toBytes(mask))).seconds;
}"""

#: Tells the milliseconds from the release of the mouse to the message that the picture is filled and drawn.
WATCH = """() => {
    window.waited = new Promise((resolve) => {
        let released;
        addEventListener("pointerup", () => (released = performance.now()), {capture: true});
        new MutationObserver(() => {
            if (!document.getElementById("status").textContent.startsWith("Filled in")) return;
            requestAnimationFrame(() => setTimeout(() => resolve(performance.now() - released)));
        }).observe(document.getElementById("status"), {childList: true, characterData: true, subtree: true});
    });
}"""


class _QuietHandler(SimpleHTTPRequestHandler):
    """Serves files without writing about them."""

    def log_message(self, format: str, *arguments: object) -> None:
        """Write no line for each request.

        Args:
            format: not used.
            *arguments: not used.
        """


@contextmanager
def serve(folder: Path) -> Iterator[str]:
    """Serve a folder as a static host does.

    Args:
        folder: the folder.

    Yields:
        The address.
    """
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_QuietHandler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def open_browser() -> Iterator[Browser]:
    """Start Chromium.

    Yields:
        The browser.
    """
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


def open_page(browser: Browser, url: str) -> Page:
    """Open the site, and wait until it is isolated and its engine runs.

    Args:
        browser: the browser.
        url: the site's address.

    Returns:
        The page.
    """
    page = browser.new_page(viewport={"width": 1300, "height": 1300})
    page.set_default_timeout(HANG_MILLISECONDS)
    page.goto(url)
    page.locator("#engine", has_text="ONNX Runtime Web").wait_for(state="attached")
    return page


def count_cpu_seconds() -> float:
    """Return the CPU seconds of all processes that this one started and that run.

    Returns:
        Seconds.
    """
    times = [process.cpu_times() for process in psutil.Process().children(recursive=True)]
    return sum(each.user + each.system for each in times)


def make_job(side: int) -> tuple[np.ndarray, np.ndarray]:
    """Make a picture with a hole.

    Args:
        side: the side of the picture in pixels.

    Returns:
        uint8 [side, side, 3] and bool [side, side].
    """
    with Image.open(SAMPLE) as photo:
        image = np.asarray(photo.convert("RGB").resize((side, side), Image.Resampling.LANCZOS))
    hole = round(side * HOLE_SHARE**0.5)
    missing = np.zeros((side, side), bool)
    first = (side - hole) // 2
    missing[first : first + hole, first : first + hole] = True
    return image, missing


def make_browser_run(page: Page, structure: str, precision: str, threads: int, *, is_whole: bool = False) -> Run:
    """Open a contender in a worker of the page.

    Args:
        page: the page.
        structure: `wasm` with Winograd's method, `webgpu` without.
        precision: the type of the weights.
        threads: number of threads.
        is_whole: whether the network computes the whole picture behind its last block, too.

    Returns:
        The run.
    """
    name = f"{structure} {precision} {threads} {is_whole}"
    page.evaluate(OPEN, [name, structure, precision, threads])

    def run(image: np.ndarray, missing: np.ndarray) -> tuple[float, float]:
        height, width = missing.shape
        rgba = np.dstack([image, np.full((height, width), 255, np.uint8)])
        shown = missing.copy()
        if is_whole:
            shown[0, 0] = shown[-1, -1] = True
        texts = [base64.b64encode(np.ascontiguousarray(each).tobytes()).decode() for each in (rgba, shown)]
        before = count_cpu_seconds()
        seconds = page.evaluate(FILL, [name, width, height, *texts])
        return seconds, count_cpu_seconds() - before

    return run


def make_native_run(model: str, backend: str, threads: int) -> Run:
    """Open a native engine.

    Args:
        model: the bundle.
        backend: the name that `glama_deploy.load` takes.
        threads: number of threads.

    Returns:
        The run.
    """
    inpainter = glama_deploy.load(model, backend, "fp32", threads=threads)

    def run(image: np.ndarray, missing: np.ndarray) -> tuple[float, float]:
        start, cpu = time.perf_counter(), time.process_time()
        inpainter(image, missing, region="full")
        return time.perf_counter() - start, time.process_time() - cpu

    return run


def compare(page: Page, model: str, sizes: list[int], threads: int, rounds: int, forms: list[str]) -> None:
    """Run all contenders in turns, and print a table.

    Args:
        page: the page.
        model: the bundle.
        sizes: sides of the pictures in pixels.
        threads: number of threads.
        rounds: number of rounds after the warm-up.
        forms: the forms in the browser, by the names of the module's docstring.
    """
    made: dict[str, Callable[[], Run]] = {
        "wasm": lambda: make_browser_run(page, "wasm", "fp32", threads),
        "wasm plain": lambda: make_browser_run(page, "webgpu", "fp32", threads),
        "wasm whole": lambda: make_browser_run(page, "webgpu", "fp32", threads, is_whole=True),
        "wasm fp16": lambda: make_browser_run(page, "wasm", "fp16", threads),
    }
    runs = {
        "ONNX Runtime": make_native_run(model, "onnxruntime:cpu", threads),
        "OpenVINO": make_native_run(model, "openvino", threads),
        **{form: made[form]() for form in forms},
    }
    for side in sizes:
        image, missing = make_job(side)
        for run in runs.values():  # sizes are compiled, functions are optimized
            run(image, missing)
            run(image, missing)
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
        for _ in range(rounds):
            for name, run in runs.items():
                times[name].append(run(image, missing))
        print(f"\n{side}×{side}, {threads} threads, load {psutil.getloadavg()[0]:.1f}\n")
        print("| engine | seconds | ratio | CPU seconds | ratio |\n|---|---:|---:|---:|---:|")
        first = times["ONNX Runtime"]
        for name, found in times.items():
            ratios = [
                statistics.median(one[n] / other[n] for one, other in zip(first, found, strict=True)) for n in (0, 1)
            ]
            wall, cpu = (statistics.median(each[n] for each in found) for n in (0, 1))
            print(f"| {name} | {wall:.2f} | {ratios[0]:.2f}× | {cpu:.2f} | {ratios[1]:.2f}× |", flush=True)


def measure_job(browser: Browser, url: str, rounds: int) -> None:
    """Measure what a person waits for, and print the times.

    Args:
        browser: the browser.
        url: the site's address.
        rounds: number of fills.
    """
    page = open_page(browser, url)
    image, missing = make_job(JOB_SIDE_PIXELS)
    rows = np.flatnonzero(missing.any(axis=1))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "photo.png"
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "PNG")
        path.write_bytes(buffer.getvalue())
        page.locator("#files").set_input_files(path)
        page.locator("#status", has_text="photo.png ·").wait_for()
    page.keyboard.press("r")
    page.keyboard.press("9")  # actual size, with the picture in the middle
    canvas = page.locator("#canvas").bounding_box()
    assert canvas is not None
    middle = canvas["x"] + canvas["width"] / 2, canvas["y"] + canvas["height"] / 2
    half = (rows[-1] + 1 - rows[0]) / 2
    waited = []
    for _ in range(rounds):
        page.evaluate(WATCH)
        page.mouse.move(middle[0] - half, middle[1] - half)
        page.mouse.down()
        page.mouse.move(middle[0] + half, middle[1] + half, steps=3)
        page.mouse.up()
        waited.append(page.evaluate("window.waited") / 1000)
        status = page.locator("#status").text_content()
        page.keyboard.press("Control+Z")
        page.keyboard.press("Control+Z")
    print(f"{JOB_SIDE_PIXELS}×{JOB_SIDE_PIXELS}, hole of {HOLE_SHARE:.0%}; last: {status}")
    print(f"seconds from release to picture: {' '.join(f'{each:.2f}' for each in waited)}")
    print(f"first {waited[0]:.2f}, median of the others {statistics.median(waited[1:] or waited):.2f}", flush=True)


def main(arguments: list[str] | None = None) -> None:
    """Measure.

    Args:
        arguments: the command line; None: `sys.argv`.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--site", type=Path, required=True)
    parser.add_argument("--model", default="default")
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--forms", nargs="+", default=["wasm", "wasm plain", "wasm whole"])
    parser.add_argument("--job", action="store_true")
    options: Any = parser.parse_args(arguments)
    with serve(options.site) as url, open_browser() as browser:
        if options.job:
            for threads in options.threads:
                measure_job(browser, f"{url}#threads={threads}", options.rounds)
            return
        page = open_page(browser, url)
        for threads in options.threads:
            compare(page, options.model, options.sizes, threads, options.rounds, options.forms)


if __name__ == "__main__":
    main()
