"""The static site in a real browser: the network runs there, fills as Python fills, and needs no host after a visit."""

from __future__ import annotations

import base64
import io
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

import glama_deploy
from fakes.static_host import StaticHost
from glama_deploy.bundle import ANY_SIZE
from glama_deploy.export.pipeline import Request
from glama_deploy.export.web import ort_web
from glama_deploy.export.web.ort_web import compute_sha256
from glama_deploy.export.web.site import SiteRequest, make_site
from glama_deploy.inpainting.boxes import Rule, Span, find_holes
from glama_deploy.inpainting.transparency import fill_picture
from glama_deploy.io.images import decode_image, read_image

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

#: Milliseconds after which a wait counts as a hang. A machine under load may be a hundred times as slow as a quiet one.
HANG_MILLISECONDS = 300_000

#: WebGPU in software, for machines without a graphics card.
SOFTWARE_GPU = [
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--enable-unsafe-webgpu",
    "--use-webgpu-adapter=swiftshader",
    "--enable-features=Vulkan",
]

#: The bound of fp32 in glama_deploy/catalogue.py: sums are rounded in another order.
FP32_TOLERANCE = 2e-5


@pytest.fixture(scope="module")
def host(site, tmp_path_factory) -> Iterator[StaticHost]:
    """A host of the site below a path, as GitHub Pages has it."""
    root = tmp_path_factory.mktemp("host")
    (root / "some").mkdir()
    (root / "some" / "path").symlink_to(site)
    host = StaticHost(root)
    host.url += "some/path/"
    yield host
    host.stop()


@pytest.fixture(scope="module")
def visit(browser, host, show):
    """A page of the site, whose engine is opened once for all tests."""
    context = browser.new_context(viewport={"width": 1200, "height": 800}, accept_downloads=True)
    context.set_default_timeout(HANG_MILLISECONDS)
    yield show(context.new_page(), host.url, "ONNX Runtime Web")
    context.close()


@pytest.fixture
def static(visit, host):
    """The page of the site. Errors of the page and requests to other hosts fail the test."""
    yield visit
    assert visit.errors == []
    assert visit.hosts <= {host.url.split("/")[2], ""}  # "" stands for blob: and data:


@pytest.fixture(scope="module")
def native() -> glama_deploy.Inpainter:
    return glama_deploy.load("default", backend="onnxruntime:cpu", precision="fp32")


def read(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


def fill(native: glama_deploy.Inpainter, image: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """Return the image with each hole filled from the box that the page shows the network. The boxes are apart."""
    result = image.copy()
    boxes, _ = Rule(ANY_SIZE).find_boxes(missing)
    for box in boxes:
        here = missing[box.span.slices]
        filled = native(np.ascontiguousarray(image[box.span.slices]), here, region="full")
        result[box.span.slices][here] = filled[here]
    return result


def assert_same_bytes(found: np.ndarray, expected: np.ndarray, missing: np.ndarray) -> None:
    """Known pixels are equal. A missing pixel's byte is one off where a value lies at the middle between two bytes,

    because fp32 sums are rounded in another order in the browser: at most 2 · 2e-5 · 255 = 1 % of the bytes.
    """
    np.testing.assert_array_equal(found[~missing], expected[~missing])
    distance = np.abs(found[missing].astype(int) - expected[missing].astype(int))
    assert distance.max() <= 1
    assert distance.mean() < 0.01


def test_a_hole_is_filled_as_python_fills_it_undone_and_downloaded(static, picture, noise, native):
    static.open(picture)
    static.collect((140, 100), (180, 120), (170, 150))
    missing = static.mask()
    static.run("fill")
    static.status("Filled in")
    name, data = static.download()
    assert name == "photo-filled.png"
    expected = fill(native, noise, missing)
    assert (expected[missing] != noise[missing]).any()
    assert_same_bytes(read(data), expected, missing)
    static.press("Control+Z")
    np.testing.assert_array_equal(read(static.download()[1]), noise)
    np.testing.assert_array_equal(static.mask(), missing)


def test_letting_go_fills_two_holes_of_a_picture_with_odd_sides(static, tmp_path, native):
    rng = np.random.default_rng(4)
    image = rng.integers(0, 256, (201, 333, 3), np.uint8)
    path = tmp_path / "odd.png"
    Image.fromarray(image).save(path)
    static.open(path)
    static.collect((5, 5), (15, 8))  # at the corner, so that the box is padded
    static.collect((320, 190), (331, 199))
    missing = static.mask()
    assert len(find_holes(missing)) == 2
    static.press("f")
    static.status("Filled in")
    assert_same_bytes(read(static.download()[1]), fill(native, image, missing), missing)


def test_a_picture_that_is_smaller_than_a_box_is_padded(static, tmp_path, native):
    image = np.random.default_rng(5).integers(0, 256, (45, 61, 3), np.uint8)
    path = tmp_path / "small.png"
    Image.fromarray(image).save(path)
    static.open(path)
    static.collect((30, 20), (36, 24))
    missing = static.mask()
    static.press("f")
    static.status("Filled in")
    expected = native(image, missing, region="full")
    assert_same_bytes(read(static.download()[1]), expected, missing)


def test_the_page_is_isolated_and_says_what_runs_where(static):
    page = static.page
    assert page.evaluate("crossOriginIsolated")
    threads = min(8, page.evaluate("navigator.hardwareConcurrency"))
    assert f"WebAssembly, {threads} thread" in page.locator("#engine").text_content()
    expect(page.locator("#alert")).to_be_hidden()
    expect(page.locator("#privacy")).to_have_text("Pictures stay in this browser.")


def test_a_person_chooses_fp16_whose_result_is_near_fp32(static, picture, noise, native):
    static.page.locator("#precision").select_option("fp16")
    static.status("fp16")
    static.open(picture)
    static.collect((140, 100), (180, 120))
    missing = static.mask()
    static.run("fill")
    static.status("Filled in")
    found = read(static.download()[1]).astype(int)
    expected = fill(native, noise, missing).astype(int)
    # weights of 11 bits: the bound of fp16 in glama_deploy/catalogue.py is 2e-2, five steps of a byte
    assert np.abs(found - expected).max() <= 5
    static.page.locator("#precision").select_option("fp32")
    static.status("fp32")


def _make_pictures(noise: np.ndarray) -> dict[str, Image.Image]:
    """Make a gray picture, and pictures with transparency: none, soft shadows and hard edges."""
    height, width = noise.shape[:2]
    y, x = np.mgrid[0:height, 0:width]
    far = np.hypot(y - 120, x - 160)
    gray = Image.fromarray(noise[..., 0])
    soft = np.clip(255 - 2 * far, 0, 255).astype(np.uint8)
    hard = np.where((x + y) % 80 < 40, 255, 0).astype(np.uint8)
    logo = noise.copy()
    logo[hard == 0] = 0  # hidden colours are black, as editors write them
    return {
        "gray": gray,
        "gray and alpha": Image.merge("LA", (gray, Image.fromarray(hard))),
        "opaque": Image.fromarray(np.dstack([noise, np.full_like(hard, 255)])),
        "shadow": Image.fromarray(np.dstack([noise, soft])),
        "logo": Image.fromarray(np.dstack([logo, hard])),
    }


@pytest.mark.parametrize("kind", ["gray", "gray and alpha", "opaque", "shadow", "logo"])
def test_gray_and_transparent_pictures_are_filled_as_python_fills_them(static, noise, native, tmp_path, kind):
    path = tmp_path / "picture.png"
    _make_pictures(noise)[kind].save(path)
    static.open(path)
    static.collect((140, 100), (180, 140))
    missing = static.mask()
    static.press("f")
    static.status("Filled in")
    found = decode_image(static.download()[1], "found")
    (box,) = (each.span for each in Rule(ANY_SIZE).find_boxes(missing)[0])
    picture = read_image(path)
    alpha = None if picture.alpha is None else picture.alpha[box.slices]
    part = replace(picture, rgb=np.ascontiguousarray(picture.rgb[box.slices]), alpha=alpha)
    expected = fill_picture(lambda *given: native(*given, region="full"), part, missing[box.slices])
    assert (found.gray, found.alpha is None) == (picture.gray, picture.alpha is None)
    here = missing[box.slices]
    colours = found.rgb[box.slices][here].astype(int)
    wanted = expected.rgb[here].astype(int)
    if picture.gray:
        wanted = np.asarray(Image.fromarray(expected.rgb).convert("L"))[here][:, None].astype(int)
    # Pillow rounds hidden colours to bytes twice when it spreads them, and the network sees some of these.
    assert np.abs(colours - wanted).max() <= 2
    np.testing.assert_array_equal(found.rgb[~missing], picture.rgb[~missing])
    if alpha is not None:
        # a step of rounding in the network's alpha is divided by the slope of a hard edge
        distance = np.abs(found.alpha[box.slices][here].astype(int) - expected.alpha[here].astype(int))
        assert np.mean(distance > 2) < 0.01
        np.testing.assert_array_equal(found.alpha[~missing], picture.alpha[~missing])


def test_a_cancelled_fill_leaves_the_mask_and_the_next_fill_works(static, tmp_path):
    image = np.random.default_rng(6).integers(0, 256, (900, 1400, 3), np.uint8)
    path = tmp_path / "large.png"
    Image.fromarray(image).save(path)
    static.open(path)
    static.collect((300, 200), (1100, 700))  # a box of a megapixel: no machine fills it before the key is read
    missing = static.mask()
    static.press("f")
    static.press("Escape")
    static.status("Cancelled")
    np.testing.assert_array_equal(static.mask(), missing)
    static.press("Delete")
    static.drag((100, 100), (120, 110))
    static.status("Filled in")


def test_after_a_visit_the_site_works_without_its_host(browser, site, show, picture):
    """Every file is there: of the page, the engine and the network."""
    host = StaticHost(site)
    context = browser.new_context(viewport={"width": 1200, "height": 800})
    context.set_default_timeout(HANG_MILLISECONDS)
    try:
        screen = show(context.new_page(), host.url, "ONNX Runtime Web")
        host.stop()
        page = context.new_page()
        again = show(page, host.url, "ONNX Runtime Web")
        again.open(picture)
        again.drag((140, 100), (180, 120))
        again.status("Filled in")
        page.reload()
        page.locator("#engine", has_text="ONNX Runtime Web").wait_for(state="attached")
        assert screen.errors == again.errors == []
    finally:
        context.close()
        host.stop()


#: Reads a part of the network as the page does; returns how often the progress is told.
COUNT_PROGRESS = """async () => {
    const base = document.baseURI;
    const {downloadJoined} = await import(new URL("page/browser/download.js", base));
    const site = await (await fetch(new URL("site.json", base))).json();
    let count = 0;
    await downloadJoined([site.precisions.fp32.weights], base, () => (count += 1));
    return count;
}"""


def test_the_footer_tells_a_download_only_while_the_network_is_downloaded(browser, site, wait_until):
    host = StaticHost(site)
    host.hold.clear()
    context = browser.new_context()
    context.set_default_timeout(HANG_MILLISECONDS)
    try:
        page = context.new_page()
        page.goto(host.url)
        engine = page.locator("#engine")
        expect(engine).to_have_text("embedded network · Opening the network …")  # the engine's own file is awaited
        host.hold.set()
        expect(engine).to_contain_text("ONNX Runtime Web")
        wait_until(lambda: page.evaluate(COUNT_PROGRESS) == 0)  # the file is kept a moment after it was read
    finally:
        host.hold.set()
        context.close()
        host.stop()


def test_a_page_of_an_insecure_address_says_why_it_has_one_thread(browser, site, show, picture):
    """A name that leads to this machine stands for an address of the local network."""
    options = ["--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP site.test 127.0.0.1"]
    launched = browser.browser_type.launch(executable_path=CHROMIUM, args=options)
    host = StaticHost(site)
    try:
        page = launched.new_page()
        screen = show(page, host.url.replace("127.0.0.1", "site.test"), "ONNX Runtime Web")
        expect(page.locator("#alert p")).to_have_text(
            "This address is not secure, so the browser runs the network in one thread and keeps nothing for offline "
            "use. Open the page as https or on localhost."
        )
        expect(page.locator("#engine")).to_contain_text("1 thread,")
        screen.open(picture)
        expect(page.locator("#alert")).to_be_hidden()
        screen.drag((140, 100), (180, 120))
        screen.status("Filled in")
        assert screen.errors == []
    finally:
        launched.close()
        host.stop()


#: Counts the versions of a file that the browser keeps.
COUNT_KEPT = """async () => {
    const [name] = await caches.keys();
    const keys = await (await caches.open(name)).keys();
    return keys.filter(({url}) => url.includes("page/texts.js")).length;
}"""


def test_a_new_version_replaces_the_old_one_when_no_page_shows_it(browser, site, show, tmp_path, wait_until):
    shutil.copytree(site, tmp_path / "site")
    host = StaticHost(tmp_path / "site")
    context = browser.new_context()
    context.set_default_timeout(HANG_MILLISECONDS)
    try:
        show(context.new_page(), host.url, "ONNX Runtime Web").page.close()
        texts = tmp_path / "site" / "page" / "texts.js"
        texts.write_text(texts.read_text().replace("Remove something from a picture", "A new headline"))
        worker = tmp_path / "site" / "service_worker.js"
        listed = worker.read_text()
        old = next(line for line in listed.splitlines() if '"page/texts.js": ' in line).split('"')[3]
        worker.write_text(listed.replace(old, compute_sha256(texts)))
        page = context.new_page()
        page.goto(host.url)
        page.wait_for_function("navigator.serviceWorker.getRegistration().then(each => each?.waiting)")
        # the old version is whole as long as a page shows it
        expect(page.locator("h2").first).to_have_text("Remove something from a picture")
        page.close()

        def shows_new_version() -> bool:  # a browser takes the new version a moment after the last page is gone
            page = context.new_page()
            page.goto(host.url)
            page.locator("#engine", has_text="ONNX Runtime Web").wait_for(state="attached")
            headline, kept = page.locator("h2").first.text_content(), page.evaluate(COUNT_KEPT)
            page.close()
            return (headline, kept) == ("A new headline", 1)

        wait_until(shows_new_version)
    finally:
        context.close()
        host.stop()


def test_a_site_runs_verified_scripts_of_another_host(browser, show, picture, ort_web_folder, tmp_path, monkeypatch):
    """A local host stands for the public CDN: a page of another origin reads its files, and nothing else is there."""
    cdn = StaticHost(ort_web_folder, is_cdn=True)
    monkeypatch.setattr(ort_web, "CDN", cdn.url)
    out = tmp_path / "site"
    make_site(SiteRequest(Request("default", out, parity=False, predicted=False), ("fp32",), "cdn"))
    host = StaticHost(out)
    context = browser.new_context(viewport={"width": 1200, "height": 800})
    context.set_default_timeout(HANG_MILLISECONDS)
    try:
        screen = show(context.new_page(), host.url, "ONNX Runtime Web")
        assert screen.page.evaluate("crossOriginIsolated")
        cdn.stop()
        screen.page.reload()
        screen.page.locator("#engine", has_text="ONNX Runtime Web").wait_for(state="attached")
        screen.open(picture)
        screen.drag((140, 100), (180, 120))
        screen.status("Filled in")
        assert screen.errors == []
    finally:
        context.close()
        host.stop()
        cdn.stop()


def test_a_page_that_was_opened_as_a_file_says_what_to_do(browser, site):
    page = browser.new_page()
    page.goto((site / "index.html").as_uri())
    page.locator("#alert", has_text="This page needs a web server").wait_for()
    page.close()


def test_a_browser_without_simd_is_told(browser, host):
    page = browser.new_page()
    page.add_init_script("WebAssembly.validate = () => false")
    page.goto(host.url)
    page.locator("#alert", has_text="does not run WebAssembly with SIMD").wait_for(timeout=HANG_MILLISECONDS)
    page.close()


def test_an_engine_that_computes_wrongly_is_refused(browser, site, show, tmp_path):
    shutil.copytree(site, tmp_path / "site")
    description = json.loads((tmp_path / "site" / "site.json").read_text())
    check = description["precisions"]["fp32"]["check"]
    check["expected"] = base64.b64encode(bytes(len(base64.b64decode(check["expected"])))).decode()
    (tmp_path / "site" / "site.json").write_text(json.dumps(description))
    host = StaticHost(tmp_path / "site")
    page = browser.new_page()
    page.goto(host.url)
    page.locator("#alert", has_text="computes wrongly").wait_for(timeout=HANG_MILLISECONDS)
    page.close()
    host.stop()


#: Runs the page's own modules: values of the missing pixels as the network gives them, before they become bytes.
RUN = """async ([pixels, missing, width, height, provider, precision]) => {
    const base = document.baseURI;
    const {openNetwork} = await import(new URL("page/browser/network.js", base));
    const {findBounds} = await import(new URL("page/browser/pixels.js", base));
    const site = await (await fetch(new URL("site.json", base))).json();
    const network = await openNetwork(site, {base, provider, precision, threads: 1});
    const mask = Uint8Array.from(missing);
    const rgba = Uint8ClampedArray.from(pixels);
    const bounds = findBounds(mask, width, height);
    const {values, window} = await network.run(rgba, width, height, mask, bounds);
    return {values: [...values], window};
}"""


def run_in_page(page, image: np.ndarray, missing: np.ndarray, provider: str, precision: str = "fp32") -> np.ndarray:
    """Return the values of the missing pixels [N, 3] that a browser computes."""
    height, width = missing.shape
    rgba = np.dstack([image, np.full((height, width), 255, np.uint8)])
    given = [rgba.ravel().tolist(), missing.ravel().astype(int).tolist(), width, height, provider, precision]
    found = page.evaluate(RUN, given)
    window = Span(*(found["window"][side] for side in ("top", "left", "bottom", "right")))
    values = np.array(found["values"], np.float32).reshape(3, *window.size)
    rows, columns = np.nonzero(missing)
    return values[:, rows - window.top, columns - window.left].T


def test_wasm_gives_the_values_of_python(static, noise, native):
    image = np.ascontiguousarray(noise[:121, :147])
    missing = np.zeros(image.shape[:2], bool)
    missing[40:70, 50:90] = True
    found = run_in_page(static.page, image, missing, "wasm")
    np.testing.assert_allclose(found, native.predict(image, missing)[missing], rtol=0, atol=FP32_TOLERANCE)


@pytest.mark.slow
def test_webgpu_gives_the_values_of_python(host, browser, noise, native):
    """Through SwiftShader, which is software: 64×64 pixels take seconds."""
    launched = browser.browser_type.launch(executable_path=CHROMIUM, args=SOFTWARE_GPU)
    try:
        page = launched.new_page()
        page.set_default_timeout(HANG_MILLISECONDS)
        page.goto(host.url)
        page.locator("#engine", has_text="ONNX Runtime Web").wait_for(state="attached")
        if not page.evaluate("navigator.gpu?.requestAdapter().then(Boolean)"):
            pytest.skip("this Chromium has no WebGPU in software (SwiftShader)")
        image = np.ascontiguousarray(noise[:64, :64])
        missing = np.zeros((64, 64), bool)
        missing[20:40, 24:44] = True
        found = run_in_page(page, image, missing, "webgpu")
    finally:
        launched.close()
    # 2.04e-5 was seen: WebGPU allows less exact functions than a CPU. 1e-4 is a fortieth of a step of 8 bits
    np.testing.assert_allclose(found, native.predict(image, missing)[missing], rtol=0, atol=1e-4)
