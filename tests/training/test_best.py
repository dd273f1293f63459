"""How a run chooses its best checkpoints, and what it writes of its validations."""

from __future__ import annotations

import csv
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from glama_deploy.checkpoints import formats
from glama_deploy.errors import CheckpointError, GlamaError
from glama_deploy.evaluation.metrics.pairs import Measurement
from glama_deploy.evaluation.metrics.registry import METRICS, ImageMetric, SetMetric
from glama_deploy.evaluation.metrics.scores import Judge
from glama_deploy.evaluation.metrics.weight_file import WeightFile
from glama_deploy.export.samples import SAMPLE
from glama_deploy.masks import TYPES
from glama_deploy.reference.generator import Generator, inpaint
from glama_deploy.training import checkpoints, config
from glama_deploy.training.criteria import COMBINATIONS, Criterion, compute_f1
from glama_deploy.training.data import Positions, Squares, read_batches
from glama_deploy.training.run import train
from glama_deploy.training.score_log import SCORES
from glama_deploy.training.validation import Validator, choose_criteria
from training.tiny_run import list_overrides

Rows = dict[tuple[str, str], dict[int, float]]


def asked(photos: Path, **changes: object) -> config.Config:
    settings = {
        "data__valid": f"[{photos}]",
        "optimization__steps": 4,
        "saving__every": 1,
        "saving__keep": 9,
        "saving__validate_every": 2,
        "saving__validate_images": 2,
    }
    return config.load("glama-tiny", list_overrides(photos, **{**settings, **changes}))


def read_scores(folder: Path) -> Rows:
    """Return the values of scores.csv by score and mask, then by step."""
    found: Rows = defaultdict(dict)
    with (folder / SCORES).open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            found[row["score"], row["mask"]][int(row["step"])] = float(row["value"])
    return found


def read_step(path: Path) -> int:
    return checkpoints.read(path)["training"]["step"]


CHOSEN = ["ssim_spectrum_f1", "l1", "psnr@Expand"]


@pytest.fixture(scope="module")
def run(photos, tmp_path_factory) -> Path:
    """A run of four steps with two validations and three criteria."""
    folder = tmp_path_factory.mktemp("best") / "run"
    train(asked(photos, saving__best=f"[{','.join(CHOSEN)}]"), folder, device="cpu")
    return folder


def test_each_criterion_keeps_the_checkpoint_of_its_best_step(run):
    scores = read_scores(run)
    expected = {
        "best.pt": max(scores["ssim_spectrum_f1", "all"].items(), key=lambda item: item[1])[0],
        "best-l1.pt": min(scores["l1", "all"].items(), key=lambda item: item[1])[0],
        "best-psnr-Expand.pt": max(scores["psnr", "Expand"].items(), key=lambda item: item[1])[0],
    }
    assert {path.name: read_step(path) for path in run.glob("best*.pt")} == expected
    best = checkpoints.read(run / "step-00000004.pt")["training"]["best"]
    assert list(best) == CHOSEN
    assert best["l1"] == min(scores["l1", "all"].values())
    assert best["psnr@Expand"] == max(scores["psnr", "Expand"].values())


def test_the_table_and_tensorboard_have_all_scores_of_all_validations(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    scores = read_scores(run)
    names = {"l1", "psnr", "ssim", "spectrum", "ssim_spectrum_f1"}
    assert scores.keys() == {(name, mask) for name in names for mask in (*TYPES, "all")}
    events = EventAccumulator(str(run))
    events.Reload()
    for (name, mask), values in scores.items():
        assert list(values) == [2, 4]
        logged = {event.step: event.value for event in events.Scalars(f"{name}/{mask}")}
        assert logged == pytest.approx(values, rel=1e-6)  # TensorBoard stores float32
        if mask == "all" and name in METRICS:
            masks = [scores[name, each] for each in TYPES]
            assert values == pytest.approx({step: np.mean([m[step] for m in masks]) for step in values})


def test_a_score_is_of_the_missing_bytes_of_the_averaged_generator(run, photos):
    """PSNR in NumPy, of the results of the generator in the best checkpoint."""
    settings = asked(photos)
    found = formats.read(run / "best-psnr-Expand.pt")
    generator = formats.build_module(found).eval()
    assert isinstance(generator, Generator)
    data = settings.data.model_copy(update={"masks": "Expand", "flip": False})
    samples = read_batches(Squares(data.valid, data, seed=0), Positions(1), workers=0)
    decibels = []
    for _ in range(2):
        batch = next(samples)
        with torch.inference_mode():
            filled = inpaint(generator, batch.image, batch.mask)
        error = (np.rint(filled.numpy() * 255) - np.rint(batch.image.numpy() * 255)) / 255
        missing = np.broadcast_to(batch.mask.numpy() > 0, error.shape)
        decibels.append(-10 * np.log10(np.square(error[missing]).mean()))
    step = read_step(run / "best-psnr-Expand.pt")
    # the sum of float32 convolutions may round a byte to its neighbour
    assert read_scores(run)["psnr", "Expand"][step] == pytest.approx(np.mean(decibels), abs=1e-3)


def test_a_resumed_run_has_the_scores_and_the_best_of_a_straight_one(run, photos, tmp_path):
    given = {"saving__best": f"[{','.join(CHOSEN)}]"}
    train(asked(photos, **given, optimization__steps=2), tmp_path / "run", device="cpu")
    (tmp_path / "run" / "step-00000002.pt").unlink()  # as after a kill between the validation and the checkpoint
    train(asked(photos, **given), tmp_path / "run", resume=True, device="cpu")
    assert (tmp_path / "run" / SCORES).read_bytes() == (run / SCORES).read_bytes()
    for path in run.glob("best*.pt"):
        mine, theirs = (checkpoints.read(folder / path.name)["training"] for folder in (tmp_path / "run", run))
        assert (mine["step"], mine["best"]) == (theirs["step"], theirs["best"])


def test_a_resumed_run_notes_another_validation(photos, tmp_path, caplog):
    train(asked(photos, optimization__steps=2), tmp_path / "run", device="cpu")
    train(asked(photos, saving__validate_images=1), tmp_path / "run", resume=True, device="cpu")
    notes = [record.getMessage() for record in caplog.records if "may not compare" in record.getMessage()]
    assert [note.partition(":")[0] for note in notes] == ["saving.validate_images is 1 and was 2"]


def test_the_best_score_outlives_the_run(photos, tmp_path):
    """The first validation after resuming does not overwrite a better network."""
    settings = asked(photos, optimization__steps=2, saving__best="psnr")
    last = train(settings, tmp_path / "run", device="cpu")
    state = checkpoints.read(last)
    state["training"]["best"] = {"psnr": 1000.0}
    torch.save(state, last)
    before = (tmp_path / "run" / "best.pt").read_bytes()
    train(asked(photos, saving__best="psnr"), tmp_path / "run", resume=True, device="cpu")
    assert (tmp_path / "run" / "best.pt").read_bytes() == before


def test_the_single_best_value_of_an_older_version_is_the_psnr(photos, tmp_path):
    last = train(asked(photos, optimization__steps=2, saving__best="psnr"), tmp_path / "run", device="cpu")
    state = checkpoints.read(last)
    state["training"]["best"] = 1000.0
    torch.save(state, last)
    before = (tmp_path / "run" / "best.pt").read_bytes()
    with pytest.raises(GlamaError, match=r"has the best psnr, and the config now chooses the file by ssim_spectrum_f1"):
        train(asked(photos), tmp_path / "run", resume=True, device="cpu")
    train(asked(photos, saving__best="psnr"), tmp_path / "run", resume=True, device="cpu")
    assert (tmp_path / "run" / "best.pt").read_bytes() == before


def test_a_best_checkpoint_of_another_score_is_not_replaced(photos, tmp_path):
    train(asked(photos, optimization__steps=2, saving__best="[psnr,l1]"), tmp_path / "run", device="cpu")
    other = asked(photos, saving__best="ssim")
    with pytest.raises(GlamaError, match=r"best.pt has the best psnr.* by ssim; move the file away, or set .*psnr, l1"):
        train(other, tmp_path / "run", resume=True, device="cpu")
    (tmp_path / "run" / "best.pt").rename(tmp_path / "run" / "old.pt")
    train(other, tmp_path / "run", resume=True, device="cpu")
    with pytest.raises(GlamaError, match=r"best-l1.pt was not chosen by this run"):
        train(asked(photos, saving__best="[ssim,l1]"), tmp_path / "run", resume=True, device="cpu")


@pytest.mark.parametrize(
    ("ssim", "fid", "expected"),
    [
        (0.8, 20.0, 0.7995003123048097),
        (0.95, 3.5, 0.9569415448851775),
        (0.5, 99.0, 0.019569471624266144),
        (0.7, 150, 0),
    ],
)
def test_the_combinations_with_fid_are_lamas(ssim, fid, expected):
    """Values of ssim_fid100_f1 and lpips_fid100_f1 of advimman/lama (786f593), which round otherwise than ours."""
    assert COMBINATIONS["ssim_fid100_f1"].compute(ssim, fid) == pytest.approx(expected, abs=1e-12)
    assert COMBINATIONS["lpips_fid100_f1"].compute(1 - ssim, fid) == pytest.approx(expected, abs=1e-12)


def test_ssim_and_spectrum_count_by_their_harmonic_mean():
    """A blurred result with amplitudes of a half of the truth's, on average, counts less than a sharp one."""
    compute = COMBINATIONS["ssim_spectrum_f1"].compute
    assert compute(0.6, np.log(2)) == pytest.approx(2 / (1 / 0.6 + 1 / 0.5), abs=1e-3)  # LaMa adds 0.001
    assert compute(0.6, np.log(2)) < compute(0.58, np.log(1.5))
    assert compute_f1(-0.1, 0.5) == 0


def test_the_default_of_adversarial_runs_prefers_sharp_results_where_psnr_prefers_blurred_ones():
    """Half of the photograph, once blurred, and once sharp but two pixels from its place."""
    with Image.open(SAMPLE) as photo:
        truth = np.asarray(photo.convert("RGB").crop((0, 0, 256, 256)))
    missing = np.zeros(truth.shape[:2], bool)
    missing[:, 64:192] = True
    score = Judge(("psnr", "ssim", "spectrum"), {}).score
    blurred, moved = (
        score(np.where(missing[..., None], result, truth), truth, missing).values
        for result in (cv2.GaussianBlur(truth, (0, 0), 4), np.roll(truth, (2, 2), (0, 1)))
    )
    chosen = COMBINATIONS["ssim_spectrum_f1"]
    assert blurred["psnr/missing"] > moved["psnr/missing"] + 1
    assert chosen.compute(*(blurred[part] for part in chosen.parts)) < 0.75 * chosen.compute(
        *(moved[part] for part in chosen.parts)
    )


@pytest.mark.parametrize("name", [*METRICS, *COMBINATIONS])
def test_every_score_has_its_direction(name):
    criterion = Criterion(name)
    higher = name in ("psnr", "ssim", "ssim-lama", *COMBINATIONS)  # the others are errors and distances
    assert criterion.is_better(0.2, 0.1) == higher
    assert criterion.is_better(0.1, 0.2) != higher
    assert not criterion.is_better(0.1, 0.1)
    assert criterion.is_better(0.1, criterion.worst)
    assert not criterion.is_better(float("nan"), criterion.worst)


@pytest.mark.parametrize(
    ("adversarial", "files", "expected", "of_small"),
    [
        (0, ("alexnet-owt-7be5be79.pth",), "psnr", "psnr"),
        (10, (), "ssim_spectrum_f1", "ssim_spectrum_f1"),
        (10, ("alexnet-owt-7be5be79.pth",), "lpips-alex", "ssim_spectrum_f1"),
        (10, ("alexnet-owt-7be5be79.pth", "vgg16-397923af.pth"), "lpips-vgg", "lpips-vgg"),
        (10, ("pt_inception-2015-12-05-6726825d.pth",), "ssim_fid100_f1", "ssim_spectrum_f1"),
        (10, ("vgg16-397923af.pth", "weights-inception-2015-12-05-6726825d.pth"), "lpips_fid100_f1", "lpips-vgg"),
    ],
)
def test_the_default_follows_the_loss_and_the_files_that_are_given(
    photos, tmp_path, adversarial, files, expected, of_small
):
    """AlexNet does not see images of 24 pixels, and FID needs two photographs."""
    for name in files:
        (tmp_path / name).touch()
    settings = asked(photos, weights__adversarial=adversarial, saving__metric_weights=tmp_path)
    assert choose_criteria(settings, 5) == (Criterion(expected),)
    small = asked(photos, weights__adversarial=adversarial, saving__metric_weights=tmp_path, data__side=24)
    assert choose_criteria(small, 1) == (Criterion(of_small),)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"saving__best": "psnrr"}, r"unknown metric 'psnrr'; did you mean 'psnr'\?; expected l1, psnr"),
        ({"saving__best": "psnr@Thick"}, r"no validation has the mask 'Thick'; did you mean 'ThickStrokes'"),
        ({"saving__best": "psnr@"}, r"no validation has the mask ''"),
        ({"saving__best": "[psnr, l1, l1]"}, r"saving.best is .*a score is repeated"),
        ({"saving__best": "[]"}, r"saving.best is .*at least 1"),
        ({"saving__best": "psnr", "data__valid": "[]"}, r"saving.best is set, but there are no validation photographs"),
        ({"saving__best": "lpips-vgg"}, r"lpips-vgg needs vgg16-397923af.pth, .*set saving.metric_weights to a folder"),
        ({"saving__best": "ssim_fid100_f1"}, r"fid-lama needs weights-inception"),
        ({"saving__best": "no-such-package"}, r"no-such-package with absent.pth is not installed; pip install no-such"),
        ({"saving__metric_weights": "gone"}, r"saving.metric_weights is gone, which is not a folder"),
        ({"saving__best": "lpips-alex", "data__side": 24}, r"data.side is 24; lpips-alex needs images of 31 pixels"),
        ({"saving__best": "fid", "saving__validate_images": 1}, r"1 photograph; fid compares sets of 2 or more"),
        ({"saving__best": "lpips-alex"}, r"alexnet-owt-7be5be79.pth is damaged"),
    ],
)
def test_a_score_that_cannot_be_computed_is_refused_before_training(photos, tmp_path, monkeypatch, changes, says):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "empty"))
    packaged = WeightFile(names=("absent.pth",), package="no-such-package")
    monkeypatch.setitem(METRICS, "no-such-package", replace(METRICS["lpips-alex"], weights=packaged))
    given = tmp_path / "given"
    if "data__side" in changes or "saving__validate_images" in changes or "damaged" in says:
        given.mkdir()
        for name in ("alexnet-owt-7be5be79.pth", "weights-inception-2015-12-05-6726825d.pth"):
            (given / name).write_bytes(b"x")
        changes = {**changes, "saving__metric_weights": given}
    with pytest.raises(GlamaError, match=says) as caught:
        train(asked(photos, **changes), tmp_path / "run", device="cpu")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_new_metric_of_the_evaluation_is_used_by_its_name(photos, tmp_path, monkeypatch):
    """Its record says all: the direction, the region, and for a metric of a set the features."""
    records = (
        ImageMetric(
            name="red",
            label="red",
            decimals=2,
            higher_is_better=False,
            region="whole",
            open=lambda path, device: lambda pair: Measurement(0.0, float(pair.found[..., 0].mean())),
        ),
        SetMetric(
            name="colours",
            label="colours",
            decimals=2,
            higher_is_better=False,
            region="whole",
            open=lambda path, device: (
                lambda image, masks: np.tile(image.mean((0, 1), dtype=np.float32), (len(masks), 2, 1))
            ),
            feature_count=3,
            compare=lambda found, truth: float(np.abs(found - truth).max()) + len(found),
        ),
    )
    for record in records:
        monkeypatch.setitem(METRICS, record.name, record)
    settings = asked(photos, saving__best="[red, colours@Expand]", optimization__steps=2)
    train(settings, tmp_path / "run", device="cpu")
    assert {path.name for path in (tmp_path / "run").glob("best*.pt")} == {"best.pt", "best-colours-Expand.pt"}
    scores = read_scores(tmp_path / "run")
    assert 0 < scores["red", "all"][2] < 255
    assert 2 <= scores["colours", "Expand"][2] < 2 + 255  # a set of two results
    assert 14 <= scores["colours", "all"][2] < 14 + 255  # a set of the results of all seven masks


def test_the_features_of_a_photograph_are_computed_once_in_a_validation(photos, monkeypatch):
    """A network sees two photographs once, and the result of each of the seven masks."""
    seen: list[bytes] = []

    def extract(image: np.ndarray, masks: list[np.ndarray]) -> np.ndarray:
        seen.append(image.tobytes())
        return np.tile(image.mean((0, 1), dtype=np.float32), (len(masks), 2, 1))

    monkeypatch.setitem(METRICS, "fid", replace(METRICS["fid"], weights=None, open=lambda path, device: extract))
    settings = asked(photos, saving__best="fid")
    generator = Generator(settings.network).eval()
    _, pictures = Validator(settings, choose_criteria(settings, 5), torch.device("cpu")).validate(generator)
    assert len(seen) == len(set(seen)) == 2 * (1 + len(TYPES))
    shown = pictures[:, :, :, -settings.data.side :].permute(0, 2, 3, 1)
    assert {picture.numpy().tobytes() for picture in shown} == {seen[0]}


def test_a_diverged_generator_ends_the_run(photos):
    settings = asked(photos)
    generator = Generator(settings.network).eval()
    with torch.no_grad():
        next(generator.parameters()).fill_(torch.nan)
    with pytest.raises(GlamaError, match="not finite; start a new run with lower rates"):
        Validator(settings, choose_criteria(settings, 5), torch.device("cpu")).validate(generator)


@pytest.mark.parametrize("content", [b"", b"step,mask\n1,2\n", b"step,mask,score,value\nx,y,z,1\n", b"\xff\n"])
def test_a_damaged_table_is_refused_before_the_run_goes_on(photos, tmp_path, content):
    train(asked(photos, optimization__steps=2), tmp_path / "run", device="cpu")
    (tmp_path / "run" / SCORES).write_bytes(content)
    with pytest.raises(GlamaError, match=r"scores.csv .*; move the file away"):
        train(asked(photos), tmp_path / "run", resume=True, device="cpu")
    assert (tmp_path / "run" / SCORES).read_bytes() == content


def test_a_checkpoint_with_an_unknown_best_is_refused(photos, tmp_path):
    last = train(asked(photos, optimization__steps=2), tmp_path / "run", device="cpu")
    state = checkpoints.read(last)
    state["training"]["best"] = {"psnr": None}
    torch.save(state, last)
    with pytest.raises(CheckpointError, match=r"training.best is None; a number is expected"):
        train(asked(photos), tmp_path / "run", resume=True, device="cpu")
