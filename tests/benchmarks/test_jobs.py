"""Jobs: every subject does a tiny version of every job in a fresh process, and the table says what was measured."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from glama_deploy.benchmarks.bench.machine import LOAD_KEY
from glama_deploy.benchmarks.jobs import peers, results, run, scenes
from glama_deploy.benchmarks.jobs.run import JobResults, Row
from glama_deploy.benchmarks.jobs.scenes import JOBS
from glama_deploy.benchmarks.jobs.subjects import SUBJECTS, Networks
from glama_deploy.cli.bench import main
from glama_deploy.errors import GlamaError

#: A scale at which a job takes few seconds. The least sides and counts of the scenes stand in for smaller ones.
SCALE = "0.05"


@pytest.fixture(scope="module")
def bundle(tiny, make_bundle):
    return make_bundle(tiny)


@pytest.fixture(scope="module")
def folder(tiny, bundle, tmp_path_factory):
    """The folder that two runs write: one job with every subject, then every job with one subject."""
    out = tmp_path_factory.mktemp("jobs") / "out"
    always = ["--jobs", "--model", bundle.path, "--ckpt", tiny, "--out", out, "--scale", SCALE, "--runs", "1"]
    first = ["--job", "e"]
    second = ["--overwrite", "--subject", "openvino:fp32"]
    for given in (first, second):
        assert main.run([str(argument) for argument in (*always, "--threads", "1", *given)]) in (0, None)
    return out


@pytest.mark.slow
def test_every_subject_does_a_job_and_every_job_is_done(folder):
    found = JobResults.model_validate_json((folder / "jobs.json").read_text())
    done = {(row.job, row.subject) for row in found.rows if row.seconds}
    # a CPU without bf16 has a row with the reason
    everywhere = {name for name in SUBJECTS if name != "openvino:bf16"}
    assert {name for job, name in done if job == "e"} >= everywhere
    assert {job for job, name in done if name == "openvino:fp32"} == set(JOBS)
    for row in found.rows:
        if not row.seconds:
            assert "this CPU has no bf16" in row.reason
            continue
        assert row.peak_bytes > 10e6
        assert 0 < row.start_seconds[0] < row.seconds[0]
        assert {"start", "read", "network", "write"} <= set(row.steps)
        assert row.psnr is not None


@pytest.mark.slow
def test_the_same_network_fills_the_same_pixels_whoever_runs_it(folder):
    found = JobResults.model_validate_json((folder / "jobs.json").read_text())
    rows = {row.subject: row for row in found.rows if row.job == "e"}
    for name in ("openvino:fp32", "onnxruntime:fp32", "torchscript:whole", "torchscript:crop", "torch:crop"):
        # below 800 pixels the peers show the whole picture, too; they cut decimals off where ours are rounded
        assert rows[name].max_difference <= 1, name
    assert rows["opencv:telea"].max_difference > 1


@pytest.mark.slow
def test_the_page_has_a_table_and_a_picture_of_each_job(folder):
    text = (folder / "RESULTS-JOBS.md").read_text()
    for letter, job in JOBS.items():
        assert f"## ({letter}) {job.title}" in text
        assert f"](job-{letter}.png)" in text
        assert Image.open(folder / f"job-{letter}.png").size[0] > 400
    assert "Sides and counts are scaled by 0.05." in text


@pytest.mark.slow
def test_a_picture_shows_the_subjects_of_its_table_whenever_they_were_measured(folder):
    """Job e was measured with all subjects, and again with one."""
    found = JobResults.model_validate_json((folder / "jobs.json").read_text())
    done = sum(row.job == "e" and bool(row.seconds) for row in found.rows)
    shown = sorted(path.stem for path in (folder / "views").glob("e-*.png"))
    assert len(shown) == 1 + done
    assert len(list((folder / "views").glob("a-*.png"))) == 2
    tall = [Image.open(folder / f"job-{letter}.png").size[1] for letter in "ae"]
    assert tall[1] == tall[0] * -(-len(shown) // 4)  # four views in a row


def test_a_run_that_cannot_stand_beside_the_earlier_one_is_refused_before_it_measures(
    bundle, tmp_path, monkeypatch, capsys
):
    def fail(*_):
        pytest.fail("something is measured")

    monkeypatch.setattr(run, "measure", fail)
    setting = run.Setting(0.05, 3, None, print)
    earlier = run.prepare(bundle, setting)
    always = ["--jobs", "--model", str(bundle.path), "--out", str(tmp_path), "--overwrite", "--scale", SCALE]
    (tmp_path / "jobs.json").write_text(earlier.model_dump_json())
    assert main.run([*always, "--runs", "2"]) == 2
    assert "the folder has results with runs 3, these are with 2; choose another folder" in capsys.readouterr().err
    assert main.run([*always, "--threads", "1"]) == 2
    assert "results with threads by default, these are with 1" in capsys.readouterr().err
    (tmp_path / "jobs.json").write_text("{")
    assert main.run(always) == 2
    assert "jobs.json is damaged or of another version; choose another folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["jobs.json"]


def test_jobs_are_the_same_each_time_and_as_large_as_they_say(tmp_path):
    shapes = {"a": (3000, 4000), "b": (1080, 1920), "c": (4000, 6000), "d": (2339, 1654), "e": (1024, 1024)}
    for letter, (height, width) in shapes.items():
        image, missing = next(iter(JOBS[letter].make_scenes(0.25)))
        again, _ = next(iter(JOBS[letter].make_scenes(0.25)))
        assert image.shape == (*missing.shape, 3)
        assert missing.shape == (round(height / 4), round(width / 4))
        assert missing.any()
        np.testing.assert_array_equal(image, again)
    _, missing = next(iter(JOBS["e"].make_scenes(1)))
    assert missing.mean() == pytest.approx(0.4, abs=0.001)
    page = next(iter(JOBS["d"].make_scenes(1)))[1]
    assert len(list(peers.list_crops(page))) == 30
    first = scenes.write_job(JOBS["b"], 0.05, tmp_path)
    assert len(list(first.images.iterdir())) == len(list(first.masks.iterdir())) == 3


def test_a_crop_has_the_margin_on_each_side_and_moves_inside_at_an_edge():
    missing = np.zeros((1000, 2000), bool)
    missing[400:500, 600:800] = True
    assert list(peers.list_crops(missing)) == [(slice(272, 628), slice(472, 928))]
    edge = np.zeros((1000, 2000), bool)
    edge[:10, 1990:] = True
    assert list(peers.list_crops(edge)) == [(slice(0, 266), slice(1734, 2000))]


def test_small_pictures_are_not_cropped_and_large_ones_are_crop_by_crop():
    shown = []

    def run(image, missing):
        shown.append(missing.shape)
        return np.where(missing[..., None], np.uint8(7), image)

    small, large = np.zeros((300, 797), bool), np.zeros((300, 1000), bool)
    small[10, 10] = large[10, 10] = large[100, 900] = True
    for missing in (small, large):
        filled = peers.fill_crops(run)(np.zeros((*missing.shape, 3), np.uint8), missing)
        assert (filled[missing] == 7).all()
        assert not filled[~missing].any()
    assert shown == [(304, 800), (256, 256), (256, 256)]  # 1 + 2·128, of which IOPaint halves and loses the odd pixel


def test_ratios_are_to_the_fastest_peer_with_the_same_network():
    def row(subject: str, seconds: float, start: float) -> Row:
        return Row(
            job="a",
            subject=subject,
            description=subject,
            seconds=(seconds,),
            start_seconds=(start,),
            cpu_seconds=(1.0,),
        )

    rows = (
        row("openvino:fp32", 2, 1),
        row("torchscript:whole", 9, 2),
        row("torch:crop", 6, 2),
        row("carve:resized", 1, 0.5),  # at 512×512 alone
        Row(job="a", subject="openvino:bf16", reason="this CPU has no bf16"),
    )
    found = JobResults(
        network="n",
        checkpoint="0",
        machine={"CPU": "c", LOAD_KEY: "0.1"},
        scale=1,
        runs=1,
        threads=None,
        references={"a": "it"},
        rows=rows,
    )
    text = results.format_markdown(found)
    assert "| openvino:fp32 | 2.00 | 1.00 | 1.0 | 0.00 GB | 3.00× | 4.00× |" in text
    assert "not measured: this CPU has no bf16" in text
    again = found.model_copy(update={"rows": (row("torch:crop", 8, 2),)}).replace(found)
    assert [each.seconds for each in again.rows if each.subject == "torch:crop"] == [(8.0,)]
    assert len(again.rows) == len(rows)
    found.model_copy(update={"machine": {"CPU": "c", LOAD_KEY: "0.4"}}).check_continues(found)
    for change in (
        {"scale": 0.5},
        {"runs": 2},
        {"threads": 2},
        {"network": "m"},
        {"checkpoint": "1"},
        {"machine": {"CPU": "d"}},
        {"machine": {"CPU": "c", "openvino": "2026.4.1"}},
    ):
        with pytest.raises(GlamaError, match=r"the folder has results with .*; choose another folder"):
            found.model_copy(update=change).replace(found)


def test_a_picture_that_does_not_fit_the_memory_is_not_shown_whole(bundle, tmp_path, monkeypatch):
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    monkeypatch.setattr("glama_deploy.memory.available", lambda: 1000)
    networks = Networks(bundle, None, tmp_path)
    with pytest.raises(GlamaError, match=r"64x64 and needs about .* not measured"):
        networks.check_memory(SUBJECTS["torchscript:whole"], tmp_path)
    networks.check_memory(SUBJECTS["torchscript:crop"], tmp_path)
    with pytest.raises(GlamaError, match="give --ckpt"):
        networks.find(SUBJECTS["torch:crop"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--jobs", "--job", "z"], "--job is 'z'; expected a, b, c, d, e, f"),
        (["--jobs", "--subject", "opencv"], "--subject is 'opencv'; expected openvino:fp32"),
        (["--jobs", "--size", "64x64"], "--size has no effect with --jobs; leave the option out"),
        (["--job", "a"], "--job has no effect without --jobs; leave the option out"),
        (["--jobs", "--threads", "1", "--threads", "2"], "--threads is given several times"),
    ],
)
def test_an_option_that_does_not_fit_is_one_line(arguments, message, capsys):
    assert main.run(arguments) == 2
    assert message in capsys.readouterr().err
