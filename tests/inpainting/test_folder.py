from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

import glama_deploy
from glama_deploy import memory
from glama_deploy.errors import GlamaError, ImageError
from glama_deploy.inpainting.folder import (
    Job,
    Masks,
    count_streams,
    fill_job,
    read_job,
    run_jobs,
    write_job,
)
from glama_deploy.inpainting.mask_edits import MaskEdits, grow_holes
from glama_deploy.inpainting.pairing import describe_left_out, pair_jobs
from glama_deploy.io import decoding, files
from glama_deploy.io.images import FileRule
from glama_deploy.io.mask_files import MaskRule
from glama_deploy.marking import Marks, Rectangle


@pytest.fixture
def folders(tmp_path: Path, photo, hole) -> tuple[Path, Path, Path]:
    """Images a (JPEG), b, broken, c (without a mask), small; their masks; a folder for the outputs."""
    images, masks, out = (tmp_path / name for name in ("images", "masks", "out"))
    images.mkdir()
    masks.mkdir()
    Image.fromarray(photo).save(images / "a.jpg", quality=95)
    Image.fromarray(photo[::-1]).save(images / "b.png")
    (images / "broken.png").write_bytes(b"no image")
    Image.fromarray(photo).save(images / "c.png")
    Image.fromarray(photo[:8, :8]).save(images / "small.png")
    (images / "notes.txt").write_text("not an image")
    for stem in ("a", "b", "broken"):
        Image.fromarray(hole).save(masks / f"{stem}.png")
    Image.fromarray(hole[:8, :8]).save(masks / "small.png")
    return images, masks, out


@pytest.fixture(scope="module")
def inpainter(tiny_bundle):
    return glama_deploy.load(tiny_bundle.path, "openvino")


def test_a_folder_goes_on_after_bad_files_and_says_what_failed(folders, inpainter, photo, hole):
    images, masks, out = folders
    results = list(run_jobs(inpainter, pair_jobs(images, masks, out)))
    assert [(r.job.image.name, r.state) for r in results] == [
        ("a.jpg", "written"),
        ("b.png", "written"),
        ("broken.png", "failed"),
        ("c.png", "failed"),
        ("small.png", "failed"),
    ]
    reasons = {r.job.image.stem: r.reason for r in results}
    assert "not a supported image, or is damaged" in reasons["broken"]
    assert "has no mask: the folder of masks has no c.png" in reasons["c"]
    assert "8x8" in reasons["small"]
    assert sorted(path.name for path in out.iterdir()) == ["a.jpg", "b.png"]
    done = np.asarray(Image.open(out / "b.png"))
    np.testing.assert_array_equal(done[~hole], photo[::-1][~hole])
    np.testing.assert_array_equal(done, inpainter(np.ascontiguousarray(photo[::-1]), hole))


def test_a_second_run_fills_only_the_images_without_a_result(folders, inpainter):
    images, masks, out = folders
    list(run_jobs(inpainter, pair_jobs(images, masks, out)))
    (out / "a.jpg").unlink()
    before = (out / "b.png").stat().st_mtime_ns
    states = {r.job.image.stem: r.state for r in run_jobs(inpainter, pair_jobs(images, masks, out))}
    assert (states["a"], states["b"]) == ("written", "skipped")
    assert (out / "b.png").stat().st_mtime_ns == before
    states = {r.job.image.stem: r.state for r in run_jobs(inpainter, pair_jobs(images, masks, out), overwrite=True)}
    assert (states["a"], states["b"]) == ("written", "written")
    assert (out / "b.png").stat().st_mtime_ns > before


def test_a_run_that_finds_all_images_written_removes_what_a_killed_run_left(folders, inpainter, monkeypatch):
    images, masks, out = folders
    jobs = [job for job in pair_jobs(images, masks, out) if job.image.stem in "ab"]
    list(run_jobs(inpainter, jobs))
    (out / ".glama-1.lock").write_bytes(b"")
    monkeypatch.setattr(files, "_cleaned", set())  # as in the next process
    assert [result.state for result in run_jobs(inpainter, jobs)] == ["skipped", "skipped"]
    assert sorted(path.name for path in out.iterdir()) == ["a.jpg", "b.png"]


def test_paths_that_do_not_go_together_are_refused(folders):
    images, masks, out = folders
    (images.parent / "link").symlink_to(images)
    for arguments, says in (
        ((images / "nothing.png", masks, out), "no image at"),
        ((images, masks / "nothing", out), "no mask at"),
        ((images / "b.png", masks, out), "is a file, and `mask` .* a folder"),
        ((images, masks, images / "b.png"), "is a file; a folder is needed"),
        ((images, masks, masks), "a folder of the inputs"),
        ((images, images, out), "are the same folder"),
        ((images, images.parent / "masks" / ".." / "images", out), "are the same folder"),
        ((images, images.parent / "link", out), "are the same folder"),
        ((images / "b.png", images / "b.png", out), "are the same file"),
        ((images / "b.png", images.parent / "link" / "b.png", out), "are the same file"),
        ((images / "b.png", masks / "b.png", masks / "b.png"), "is an input itself"),
        ((images, masks, images), "a folder of the inputs"),
        ((images / "b.png", masks / "b.png", images / "b.png"), "is an input itself"),
        ((images / "b.png", masks / "b.png", images / "c.png"), "exists already"),
        ((images.parent / "empty", masks, out), "has no images"),
    ):
        (images.parent / "empty").mkdir(exist_ok=True)
        with pytest.raises(GlamaError, match=says):
            pair_jobs(*arguments)


def test_a_single_image_may_go_into_a_folder(folders):
    images, masks, out = folders
    out.mkdir()
    (job,) = pair_jobs(images / "a.jpg", masks / "a.png", out)
    assert job.out == out / "a.jpg"


def test_the_next_images_are_read_and_the_last_written_while_one_is_filled(
    folders, photo, hole, monkeypatch, wait_until
):
    """Where they were not, `fill` would wait in vain."""
    images, masks, out = folders
    (images / "broken.png").unlink()
    for stem in ("d", "e"):
        Image.fromarray(photo).save(images / f"{stem}.png")
        Image.fromarray(hole).save(masks / f"{stem}.png")
    read = {stem: threading.Event() for stem in "abcde"}
    plain = read_job

    def noted(job: Job, masks: Masks):
        read[job.image.stem].set() if job.image.stem in read else None
        return plain(job, masks)

    monkeypatch.setattr("glama_deploy.inpainting.folder.read_job", noted)
    monkeypatch.setattr("glama_deploy.inpainting.folder.count_processors", lambda: 2)
    filled = []

    def fill(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
        filled.append(threading.current_thread())
        if len(filled) == 1:
            assert read["b"].wait(600)
        if len(filled) == 2:
            wait_until((out / "a.jpg").exists)
        return image

    results = list(run_jobs(fill, pair_jobs(images, masks, out)))
    assert [(r.job.image.stem, r.state) for r in results if r.state == "written"] == [(s, "written") for s in "abde"]
    assert len(set(filled)) == 1


def test_several_images_are_filled_at_once_and_come_in_order(folders, photo):
    images, masks, out = folders
    met, seen = threading.Barrier(2, timeout=600), []

    def fill(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
        met.wait()  # for another one, which alone would be in vain
        seen.append(threading.current_thread())
        return image

    (images / "c.png").unlink(missing_ok=True)
    jobs = [job for job in pair_jobs(images, masks, out) if job.image.stem in "ab"]
    results = list(run_jobs(fill, jobs, at_once=2))
    assert [(r.job.image.stem, r.state) for r in results] == [("a", "written"), ("b", "written")]
    assert len(set(seen)) == 2


@pytest.mark.parametrize(
    ("side", "threads", "free", "expected"),
    [(512, None, 24e9, 2), (512, 1, 24e9, 1), (4096, None, 24e9, 1), (512, None, 1e9, 1), (512, None, None, 2)],
)
def test_two_images_at_once_where_there_are_threads_and_memory_for_it(
    tmp_path, monkeypatch, side, threads, free, expected
):
    monkeypatch.setattr("glama_deploy.inpainting.folder.count_processors", lambda: 2)
    monkeypatch.setattr(memory, "available", lambda: free)
    for name in "ab":
        Image.fromarray(np.zeros((side, side), np.uint8)).save(tmp_path / f"{name}.png")
    jobs = [Job(tmp_path / f"{name}.png", None, tmp_path) for name in ("a", "b", "missing")]
    assert count_streams(jobs, threads) == expected
    assert count_streams(jobs[:1], threads) == 1


def test_a_run_that_is_given_up_leaves_whole_files_alone(folders, inpainter, photo):
    images, masks, out = folders
    results = run_jobs(inpainter, pair_jobs(images, masks, out))
    next(results)
    results.close()
    written = sorted(path.name for path in out.iterdir())
    assert written[0] == "a.jpg"
    assert set(written) <= {"a.jpg", "b.png"}  # and no temporary names
    for path in out.iterdir():
        assert np.asarray(Image.open(path)).shape == photo.shape


def test_filled_images_are_written_even_if_the_run_is_interrupted(folders, photo, hole, monkeypatch):
    images, masks, out = folders
    for stem in "abcdef":
        Image.fromarray(photo).save(images / f"{stem}.png")
        Image.fromarray(hole).save(masks / f"{stem}.png")
    for name in ("a.jpg", "broken.png", "small.png"):
        (images / name).unlink()
    plain, filled = write_job, []

    def slow(*arguments) -> None:
        time.sleep(0.2)
        plain(*arguments)

    def fill(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
        if len(filled) == 3:
            raise KeyboardInterrupt
        filled.append(image)
        return image

    monkeypatch.setattr("glama_deploy.inpainting.folder.write_job", slow)
    with pytest.raises(KeyboardInterrupt):
        list(run_jobs(fill, pair_jobs(images, masks, out)))
    assert sorted(path.name for path in out.iterdir()) == ["a.png", "b.png", "c.png"]


def test_an_error_that_is_no_files_stops_the_run(folders):
    images, masks, out = folders

    def fill(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(run_jobs(fill, pair_jobs(images, masks, out)))
    assert not out.exists()


@pytest.mark.parametrize("name", ["out", "out/a.png"])
def test_a_place_that_cannot_be_written_is_said_before_the_work_and_nothing_is_made(tmp_path, name):
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
        Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(tmp_path / folder / "a.png")
    single = name.endswith(".png")
    given = [tmp_path / folder / ("a.png" if single else "") for folder in ("images", "masks")]
    with pytest.raises(GlamaError, match=r"cannot write /proc/out"):
        pair_jobs(*given, Path("/proc") / name)
    pair_jobs(*given, tmp_path / "new" / name)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("place", range(3))
def test_a_path_that_no_file_can_have_is_one_line(folders, place):
    path, says = "x" * 5000, "File name too long"
    paths = [folders[0] / "b.png", folders[1] / "b.png", folders[2]]
    paths[place] = Path(path)
    with pytest.raises(GlamaError, match=says) as error:
        pair_jobs(*paths)
    assert len(str(error.value)) < 400
    paths = list(folders)
    paths[place] = Path(path)
    with pytest.raises(GlamaError, match=says):
        pair_jobs(*paths)


def test_skipped_files_of_a_folder_are_counted_and_named(folders):
    images, masks, out = folders
    assert describe_left_out(images, masks, out) == ["1 file that is not a supported image (notes.txt)"]
    for name in ("d.exr", "e.psd", "f.jxl", "g.hdr", "h.svg", ".DS_Store", "._b.png"):
        (images / name).write_bytes(b"")
    for name in ("old", "x.png"):  # a folder may be called like an image
        (images / name).mkdir()
    Image.new("L", (9, 9)).save(masks / "g.png")
    (masks / "Thumbs.db").write_bytes(b"")
    Image.new("RGB", (9, 9)).save(images / "phone.jfif")
    assert [job.image.name for job in pair_jobs(images, masks, images / "out")] == [
        "a.jpg", "b.png", "broken.png", "c.png", "phone.jfif", "small.png"
    ]  # fmt: skip
    (images / "out").mkdir()
    assert describe_left_out(images, masks, images / "out") == [
        "6 files that are not supported images (d.exr, e.psd, f.jxl, g.hdr, h.svg, …)",
        "2 subfolders (old, x.png)",
        "1 mask without an image (g.png)",
        "1 file that is not a supported mask (Thumbs.db)",
        "2 hidden files",
    ]


def test_a_folder_on_the_way_to_the_outputs_is_not_left_out(folders):
    images, masks, _ = folders
    (images / "out" / "deep").mkdir(parents=True)
    (images / "sub").mkdir()
    assert describe_left_out(images, masks, images / "out" / "deep")[1:] == ["1 subfolder (sub)"]


def test_a_process_on_one_processor_reads_and_fills_one_image_at_a_time(folders, monkeypatch):
    """The machine may have more of them than the process may use."""
    images, masks, out = folders
    monkeypatch.setattr("glama_deploy.inpainting.folder.count_processors", lambda: 1)
    jobs = [job for job in pair_jobs(images, masks, out) if job.image.stem in "ab"]
    assert count_streams(jobs, None) == 1
    pools = []
    pool = ThreadPoolExecutor
    monkeypatch.setattr(
        "glama_deploy.inpainting.folder.ThreadPoolExecutor", lambda *given: pools.append(given) or pool(*given)
    )
    assert [result.state for result in run_jobs(lambda image, mask: image, jobs)] == ["written"] * 2
    assert pools == [(1, "glama-fill"), (1, "glama-files")]


def test_a_folder_without_supported_images_says_what_it_has(folders):
    _, masks, out = folders
    other = masks.parent / "other"
    (other / "sub").mkdir(parents=True)
    (other / "a.psd").write_bytes(b"8BPS")
    with pytest.raises(GlamaError, match=r"has no images \(.*it has 1 file .* \(a\.psd\); it has 1 subfolder \(sub\)"):
        pair_jobs(other, masks, out)


def test_a_mask_of_an_unsupported_kind_is_named(folders, hole):
    images, masks, out = folders
    Image.fromarray(hole).save(masks / "c.gif")
    job = next(job for job in pair_jobs(images, masks, out) if job.image.stem == "c")
    with pytest.raises(ImageError, match=r"c\.gif: format not supported: GIF"):
        read_job(job)


def test_a_mask_that_marks_everything_fails_and_nearly_everything_is_a_note(folders, inpainter, photo, caplog):
    images, masks, out = folders
    Image.fromarray(np.full(photo.shape[:2], 255, np.uint8)).save(masks / "a.png")
    nearly = np.full(photo.shape[:2], 255, np.uint8)
    nearly[:, :5] = 0
    Image.fromarray(nearly).save(masks / "b.png")
    results = {r.job.image.stem: r for r in run_jobs(inpainter, pair_jobs(images, masks, out))}
    assert results["a"].state == "failed"
    assert "a.png marks every pixel as missing" in results["a"].reason
    assert results["b"].state == "written"
    assert not (out / "a.jpg").exists()
    assert "b.png marks 95.8 % of the pixels as missing; if black is missing, set `invert`" in caplog.text


def pair(folder: Path, image: Image.Image, mask: Image.Image, image_exif: int = 1, mask_exif: int = 1) -> Job:
    for name, made, orientation in (("image", image, image_exif), ("mask", mask, mask_exif)):
        exif = Image.Exif()
        exif[0x0112] = orientation
        made.save(folder / f"{name}.png", exif=exif)
    return Job(folder / "image.png", folder / "mask.png", folder / "out.png")


def test_a_mask_of_the_unrotated_picture_is_refused_with_the_reason(tmp_path, photo, hole):
    image, mask = Image.fromarray(photo), Image.fromarray(hole)
    read_job(pair(tmp_path, image, mask.transpose(Image.Transpose.ROTATE_270), 6))
    read_job(pair(tmp_path, image, mask, 6, 6))
    with pytest.raises(
        ImageError,
        match=r"the mask is 96x120, the image 120x96 \(turned upright by its EXIF orientation\); they must have "
        "the same proportions: make the mask of the upright image",
    ):
        read_job(pair(tmp_path, image, mask, 6))
    with pytest.raises(ImageError, match=r"the mask is 120x96 \(turned .* EXIF orientation\), the image 96x120;"):
        read_job(pair(tmp_path, image, mask, 1, 8))
    with pytest.raises(ImageError, match=r"the mask is 120x96, the image 96x120; they must have the same proportions$"):
        read_job(pair(tmp_path, image, mask.transpose(Image.Transpose.ROTATE_270)))


@pytest.mark.parametrize(("height", "width"), [(192, 240), (48, 60), (40, 50), (289, 361)])
def test_a_mask_of_the_same_proportions_is_scaled_and_named(tmp_path, photo, hole, caplog, height, width):
    scaled = Image.fromarray(hole).resize((width, height), Image.Resampling.NEAREST)
    _, mask = read_job(pair(tmp_path, Image.fromarray(photo), scaled))
    # Pillow takes the nearest pixel, too
    expected = np.asarray(scaled.resize(hole.shape[::-1], Image.Resampling.NEAREST))
    np.testing.assert_array_equal(mask, expected)
    assert f"mask.png is {height}x{width}, and is scaled to the image's 96x120" in caplog.text


@pytest.mark.parametrize(("height", "width"), [(192, 244), (96, 122), (94, 120), (192, 120)])
def test_a_mask_of_other_proportions_is_refused(tmp_path, photo, height, width):
    with pytest.raises(ImageError, match=f"the mask is {height}x{width}, the image 96x120; they must have the same"):
        read_job(pair(tmp_path, Image.fromarray(photo), Image.new("1", (width, height))))


def test_a_folder_reads_and_edits_its_masks_as_it_is_told(folders, inpainter, photo, hole):
    images, masks, out = folders
    Image.fromarray(~hole).save(masks / "b.png")
    told = Masks(MaskRule(invert=True), MaskEdits(grow=3))
    list(run_jobs(inpainter, [job for job in pair_jobs(images, masks, out) if job.image.stem == "b"], masks=told))
    expected = inpainter(np.ascontiguousarray(photo[::-1]), grow_holes(hole, 3))
    np.testing.assert_array_equal(np.asarray(Image.open(out / "b.png")), expected)


def test_the_mask_belongs_to_the_frame_that_is_chosen(tmp_path, photo, hole):
    small = Image.fromarray(photo[:40, :60])
    small.save(tmp_path / "image.tif", save_all=True, append_images=[Image.fromarray(photo)])
    Image.fromarray(hole).save(tmp_path / "mask.png")
    for frame, size in ((1, photo.shape[:2]), (0, (40, 60))):
        Image.fromarray(hole[: size[0], : size[1]]).save(tmp_path / "mask.png")
        job = Job(tmp_path / "image.tif", tmp_path / "mask.png", tmp_path / "out.tif", files=FileRule(frame))
        picture, mask = read_job(job)
        assert picture.rgb.shape[:2] == mask.shape == size
    with pytest.raises(ImageError, match=r"`frame` is 2, and .* has 2 frames"):
        read_job(Job(job.image, job.mask, job.out, files=FileRule(2)))


def test_sizes_are_compared_before_anything_is_decoded(tmp_path, photo, monkeypatch):
    job = pair(tmp_path, Image.fromarray(photo), Image.new("1", (3000, 3000)))
    monkeypatch.setattr(PngImageFile, "load", lambda self: pytest.fail("it was decoded"))
    with pytest.raises(ImageError, match="the mask is 3000x3000, the image 96x120"):
        read_job(job)


def test_a_run_that_is_over_fills_no_other_image(folders, photo, hole):
    images, masks, out = folders
    for stem in "defgh":
        Image.fromarray(photo).save(images / f"{stem}.png")
        Image.fromarray(hole).save(masks / f"{stem}.png")
    filled = []

    def fill(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
        filled.append(image)
        return image

    results = list(run_jobs(fill, pair_jobs(images, masks, out), is_over=lambda: len(filled) == 2))
    assert [(r.job.image.name, r.state) for r in results if r.state == "written"] == [
        ("a.jpg", "written"),
        ("b.png", "written"),
    ]
    assert sorted(path.name for path in out.iterdir()) == ["a.jpg", "b.png"]


def test_large_images_are_read_one_at_a_time(folders, photo, monkeypatch):
    """What is read ahead is at most half of the free memory."""
    images, masks, out = folders
    jobs = [job for job in pair_jobs(images, masks, out) if job.image.stem in "ab"]
    read, filled = [], []
    plain = read_job
    monkeypatch.setattr(
        "glama_deploy.inpainting.folder.read_job", lambda job, masks: read.append(job.image.stem) or plain(job, masks)
    )
    monkeypatch.setattr("glama_deploy.inpainting.folder.count_processors", lambda: 4)
    monkeypatch.setattr(memory, "available", lambda: 3 * decoding.DECODED_BYTES * photo.shape[0] * photo.shape[1])

    def fill(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
        filled.append(list(read))
        return image

    assert [result.state for result in run_jobs(fill, jobs)] == ["written", "written"]
    assert filled == [["a"], ["a", "b"]]


def test_a_folder_of_jpegs_becomes_jpegs_of_their_size(tmp_path, inpainter, photo, hole):
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    large = np.tile(photo, (3, 3, 1))
    for number, quality in enumerate((40, 75, 90)):
        Image.fromarray(large).save(tmp_path / "images" / f"{number}.jpg", quality=quality)
    small_hole = np.zeros(large.shape[:2], bool)
    small_hole[20:60, 30:70] = True
    Image.fromarray(small_hole).save(tmp_path / "mask.png")
    jobs = pair_jobs(tmp_path / "images", tmp_path / "mask.png", tmp_path / "out")
    assert [result.state for result in run_jobs(inpainter, jobs)] == ["written"] * 3
    for job in jobs:
        # the holes are a tenth of the pixels, and are smoother than what was there
        assert job.out.stat().st_size == pytest.approx(job.image.stat().st_size, rel=0.12)


def test_a_folder_fills_deep_pictures_and_gifs_which_become_pngs(tmp_path, inpainter, photo, hole, caplog, monkeypatch):
    monkeypatch.setattr("glama_deploy.io.images._noted", set())
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    Image.fromarray(photo[..., 0]).save(tmp_path / "images" / "a.gif")
    deep = photo[..., 1] * np.uint16(257) ^ np.uint16(5)
    Image.fromarray(deep).save(tmp_path / "images" / "b.png")
    Image.fromarray(hole).save(tmp_path / "mask.png")
    inputs = tmp_path / "images", tmp_path / "mask.png"
    jobs = pair_jobs(*inputs, tmp_path / "out")
    assert [result.state for result in run_jobs(inpainter, jobs)] == ["written"] * 2
    assert [job.out.name for job in jobs] == ["a.png", "b.png"]
    with Image.open(tmp_path / "out" / "a.png") as out:
        np.testing.assert_array_equal(np.asarray(out.convert("RGB"))[~hole], photo[..., :1].repeat(3, 2)[~hole])
    with Image.open(tmp_path / "out" / "b.png") as out:
        assert out.mode == "I;16"
        np.testing.assert_array_equal(np.asarray(out)[~hole], deep[~hole])
    assert caplog.text.count("a.gif becomes a PNG, because images with its suffix are not written") == 1


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_known_pixels_of_every_mode_stay_as_they_are(tmp_path, inpainter, photo, hole, mode):
    deep = photo[..., 0] * np.uint16(257) ^ np.uint16(3)
    alpha = np.where(np.arange(photo.shape[1]) < 60, 255, 128).astype(np.uint8)
    source = Image.fromarray(np.dstack([photo, np.broadcast_to(alpha, hole.shape)]), "RGBA")
    source = Image.fromarray(deep) if mode == "I;16" else source.convert("RGB" if mode == "P" else "RGBA").convert(mode)
    job = pair(tmp_path, source, Image.fromarray(hole))
    fill_job(inpainter, job, *read_job(job))
    with Image.open(job.out) as out:
        assert out.mode == {"1": "L", "P": "RGB"}.get(mode, mode)
        before = np.asarray(source.convert(out.mode) if mode != out.mode else source)
        np.testing.assert_array_equal(np.asarray(out)[~hole], before[~hole])


def test_marks_join_the_mask_file_and_edits_come_after(tmp_path, photo, hole):
    job = pair(tmp_path, Image.fromarray(photo), Image.fromarray(hole))
    marks = Marks(rectangles=(Rectangle(90, 60, 10, 5),), colors=[tuple(photo[3, 3].tolist())])
    expected = hole.copy()
    expected[60:65, 90:100] = True
    expected |= (photo == photo[3, 3]).all(axis=2)
    _, mask = read_job(job, Masks(edits=MaskEdits(grow=2), marks=marks))
    np.testing.assert_array_equal(mask, grow_holes(expected, 2))
    _, mask = read_job(Job(job.image, None, job.out), Masks(marks=Marks(rectangles=(Rectangle(90, 60, 10, 5),))))
    assert mask.sum() == 50


def test_rectangles_are_of_the_upright_picture(tmp_path, photo):
    turned = Image.fromarray(photo).transpose(Image.Transpose.ROTATE_90)
    job = pair(tmp_path, turned, Image.new("1", (9, 9)), 6)  # shown as `photo`
    picture, mask = read_job(Job(job.image, None, job.out), Masks(marks=Marks(rectangles=(Rectangle(110, 1, 5, 3),))))
    np.testing.assert_array_equal(picture.rgb, photo)
    assert mask[1:4, 110:115].all()
    assert mask.sum() == 15


def test_marks_of_every_pixel_are_refused(tmp_path, photo):
    job = pair(tmp_path, Image.fromarray(photo), Image.new("1", (9, 9)))
    marks = Marks(rectangles=(Rectangle(0, 0, 120, 96),))
    with pytest.raises(ImageError, match="every pixel is marked as missing; known pixels are needed"):
        read_job(Job(job.image, None, job.out), Masks(marks=marks))
    with pytest.raises(ImageError, match="has no mask; give a mask, rectangles, colors or annotations"):
        read_job(Job(job.image, None, job.out))


def test_results_say_how_long_the_work_took_and_where_the_holes_are(folders, hole):
    images, masks, out = folders
    results = {r.job.image.stem: r for r in run_jobs(lambda image, mask: image, pair_jobs(images, masks, out))}
    boxes = [[box.left, box.top, box.width, box.height] for box in results["a"].work.boxes]
    assert boxes == [[30, 20, 40, 30], [0, 80, 120, 1]]
    assert results["a"].work.seconds > 0
    assert results["c"].work.boxes == ()


def test_an_image_that_changes_while_it_is_read_fails_and_the_rest_goes_on(folders, monkeypatch):
    images, masks, out = folders
    plain = read_job

    def changed(job: Job, masks: Masks):
        read = plain(job, masks)
        if job.image.stem == "a":
            job.image.write_bytes(job.image.read_bytes() + b"more")
        return read

    monkeypatch.setattr("glama_deploy.inpainting.folder.read_job", changed)
    results = {r.job.image.stem: r for r in run_jobs(lambda image, mask: image, pair_jobs(images, masks, out))}
    assert results["a"].state == "failed"
    assert "a.jpg changed while it was read" in results["a"].reason
    assert results["b"].state == "written"


def test_images_that_vanish_or_are_empty_fail_and_the_rest_goes_on(folders):
    images, masks, out = folders
    jobs = pair_jobs(images, masks, out)
    (images / "a.jpg").unlink()
    (images / "broken.png").write_bytes(b"")
    results = {r.job.image.stem: r for r in run_jobs(lambda image, mask: image, jobs)}
    assert "no image at" in results["a"].reason
    assert "the file is empty" in results["broken"].reason
    assert results["b"].state == "written"
