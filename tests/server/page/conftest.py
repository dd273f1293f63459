"""A browser, the page, and the server behind the page."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

import glama_deploy
from fakes.recording_server import RecordingServer
from glama_deploy.errors import GlamaError
from glama_deploy.export.pipeline import Request
from glama_deploy.export.web import ort_web
from glama_deploy.export.web.site import SiteRequest, make_site

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

#: Milliseconds after which a wait counts as a hang. A machine under load may be a hundred times as slow as a quiet one.
HANG_MILLISECONDS = 300_000
expect.set_options(timeout=HANG_MILLISECONDS)

#: A browser that asks nobody anything.
ALONE = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]


@pytest.fixture(scope="session")
def inpainter() -> glama_deploy.Inpainter:
    return glama_deploy.load("default", backend="openvino", precision="fp32")


@pytest.fixture(scope="session")
def one_server() -> Iterator[RecordingServer]:
    server = RecordingServer()
    yield server
    server.stop()


@pytest.fixture
def server(one_server) -> RecordingServer:
    """The server of all tests, as if nobody had asked it yet."""
    one_server.forget()
    return one_server


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no Chromium here (Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ALONE)
        yield browser
        browser.close()


PAGE = Path(glama_deploy.__file__).parent / "server" / "page"

HOLD_ENCODER = """() => {
    window.encodedCount = 0;
    window.encoderIsHeld = true;
    if (window.letEncoderGo) return;
    const send = Worker.prototype.postMessage, held = [], known = new WeakSet();
    Worker.prototype.postMessage = function (...values) {
        if (!known.has(this)) this.addEventListener("message", () => (encodedCount += 1));
        known.add(this);
        const copy = structuredClone(values);  // as `postMessage` does
        if (encoderIsHeld) held.push(() => send.apply(this, copy));
        else send.apply(this, values);
    };
    window.letEncoderGo = () => {
        encoderIsHeld = false;
        for (const go of held.splice(0)) go();
    };
}"""


class Screen:
    """The page as a person uses it. Positions are pixels of the picture."""

    def __init__(self, page: Page, url: str, engine: str = "OpenVINO") -> None:
        self.page, self.url = page, url
        self.size = (0, 0)  # width and height of the picture
        self.errors: list[str] = []
        self.hosts: set[str] = set()
        page.set_default_timeout(HANG_MILLISECONDS)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        page.on("request", lambda request: self.hosts.add(request.url.partition("://")[2].partition("/")[0]))
        page.goto(url)
        page.locator("#engine", has_text=engine).wait_for(state="attached")

    def replace(self, name: str, old: str, new: str) -> None:
        """Load the page again with another text in one of its files, such as a limit that a test can reach."""
        text = (PAGE / name).read_text(encoding="utf-8")
        assert old in text
        self.page.route(
            f"**/page/{name}",
            lambda route: route.fulfill(body=text.replace(old, new), content_type="text/javascript"),
        )
        self.page.reload()
        self.page.locator("#engine", has_text="OpenVINO").wait_for(state="attached")

    def hold_encoder(self) -> None:
        """Keep what the page gives its encoder of PNG files, until `let_encoder_go`."""
        self.page.evaluate(HOLD_ENCODER)

    def let_encoder_go(self) -> None:
        self.page.evaluate("letEncoderGo()")

    def count_encoded(self) -> int:
        """Return how many files the encoder has finished since `hold_encoder`."""
        return int(self.page.evaluate("encodedCount"))

    def warns_at_the_end(self) -> bool:
        """Return whether the page asks before it is closed."""
        return bool(self.page.evaluate("!dispatchEvent(new Event('beforeunload', {cancelable: true}))"))

    def open(self, *files: Path) -> None:
        with Image.open(files[0]) as image:
            orientation = image.getexif().get(0x0112, 1)
            self.size = image.size if orientation < 5 else image.size[::-1]
        self.page.locator("body:not([inert])").wait_for(state="attached")  # the script listens
        self.page.locator("#files").set_input_files(files)
        self.status(f"{files[0].name} ·")

    def status(self, text: str) -> None:
        """Wait until the status line contains a text."""
        self.page.locator("#status", has_text=text).wait_for()

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Return where a pixel of the picture is on the screen, as long as the picture is fitted."""
        canvas = self.page.locator("#canvas").bounding_box()
        assert canvas is not None
        width, height = self.size
        scale = min(2, (canvas["width"] - 48) / width, (canvas["height"] - 48) / height)
        left, top = canvas["x"] + canvas["width"] / 2, canvas["y"] + canvas["height"] / 2
        return left + (x - width / 2) * scale, top + (y - height / 2) * scale

    def press(self, key: str) -> None:
        self.page.keyboard.press(key)

    def run(self, command: str) -> None:
        """Click the first visible button of a command."""
        self.page.locator(f"[data-command={command}]:visible").first.click()

    def drag(self, *points: tuple[float, float]) -> None:
        self.page.mouse.move(*self.at(*points[0]))
        self.page.mouse.down()
        for point in points[1:]:
            self.page.mouse.move(*self.at(*point), steps=4)
        self.page.mouse.up()

    def collect(self, *points: tuple[float, float]) -> None:
        """Paint without filling."""
        self.page.keyboard.down("Shift")
        self.drag(*points)
        self.page.keyboard.up("Shift")

    def download(self, command: str = "save") -> tuple[str, bytes]:
        """Return the name and the bytes of what a command downloads."""
        with self.page.expect_download() as waiting:
            if command.startswith("mask"):
                self.page.locator(".menu summary").click()
            if command == "savePng":
                self.press("Control+Shift+S")
            else:
                self.run(command)
        return waiting.value.suggested_filename, Path(waiting.value.path()).read_bytes()

    def mask(self) -> np.ndarray:
        """Return the mask, bool H×W."""
        return np.asarray(Image.open(io.BytesIO(self.download("maskSave")[1]))) > 127

    def seen(self) -> np.ndarray:
        """Return what is drawn, uint8 H×W×3."""
        self.page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        shot = self.page.locator("#canvas").screenshot()
        return np.asarray(Image.open(io.BytesIO(shot)).convert("RGB")).astype(int)


@pytest.fixture(scope="session")
def show() -> type[Screen]:
    """What opens a page: `show(page, url, engine)`."""
    return Screen


@pytest.fixture
def screen(browser, server) -> Iterator[Screen]:
    """The page on a desktop. Errors of the page and requests to other hosts fail the test."""
    context = browser.new_context(viewport={"width": 1200, "height": 800}, accept_downloads=True)
    screen = Screen(context.new_page(), server.url)
    yield screen
    context.close()
    assert screen.errors == []
    assert screen.hosts == {server.url.partition("://")[2].rstrip("/")}


@pytest.fixture
def phone(browser, server) -> Iterator[Page]:
    """A page on a phone."""
    context = browser.new_context(
        viewport={"width": 390, "height": 780}, has_touch=True, is_mobile=True, device_scale_factor=2
    )
    context.set_default_timeout(HANG_MILLISECONDS)
    yield context.new_page()
    context.close()


#: Where ONNX Runtime Web is kept between sessions; its files are verified each time.
ORT_WEB = Path(__file__).parents[3] / "build" / "ort-web" / ort_web.VERSION


@pytest.fixture(scope="session")
def ort_web_folder() -> Path:
    """The files of ONNX Runtime Web, which npm downloads once."""
    try:
        ort_web.check_source(str(ORT_WEB))
    except GlamaError:
        shutil.rmtree(ORT_WEB, ignore_errors=True)
        try:
            ort_web.check_source(ort_web.NPM_SOURCE)
            ort_web.write(ort_web.NPM_SOURCE, ORT_WEB)
        except GlamaError as error:
            shutil.rmtree(ORT_WEB, ignore_errors=True)
            pytest.skip(f"no ONNX Runtime Web here: {error}")
    return ORT_WEB


@pytest.fixture(scope="session")
def site(ort_web_folder, tmp_path_factory) -> Path:
    """The static site of the embedded network, in fp32 and fp16."""
    out = tmp_path_factory.mktemp("site") / "site"
    made = Request("default", out, parity=False, predicted=False)
    make_site(SiteRequest(made, ("fp32", "fp16"), str(ort_web_folder)))
    return out


@pytest.fixture(scope="session")
def noise() -> np.ndarray:
    """uint8 240×320×3: waves with noise, different everywhere."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:240, 0:320]
    waves = np.stack([90 + 60 * np.sin(x / 17), 120 + 60 * np.cos(y / 23), (x + y) / 3], axis=2)
    return (waves + rng.normal(0, 12, (240, 320, 3))).clip(0, 255).astype(np.uint8)


@pytest.fixture
def picture(noise, tmp_path) -> Path:
    """A PNG of 320×240 pixels."""
    path = tmp_path / "photo.png"
    Image.fromarray(noise).save(path)
    return path
