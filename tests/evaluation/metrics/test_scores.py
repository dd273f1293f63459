"""Each metric against its formula, evaluated here without the packages that compute it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torchmetrics
from PIL import Image
from scipy.ndimage import gaussian_filter
from scipy.signal import correlate

from glama_deploy.errors import GlamaError
from glama_deploy.evaluation.metrics import backbones, spectrum
from glama_deploy.evaluation.metrics.perceptual import compute_fid
from glama_deploy.evaluation.metrics.registry import METRICS, sort_metrics
from glama_deploy.evaluation.metrics.scores import Judge
from glama_deploy.evaluation.metrics.weight_file import WeightFile
from glama_deploy.export.samples import SAMPLE


def test_an_identical_image_has_no_error(pair):
    truth, _, missing = pair
    score = Judge(("l1", "psnr", "ssim", "spectrum"), {}).score(truth, truth, missing)
    assert score.values["l1/missing"] == score.values["l1/whole"] == 0
    assert score.values["psnr/missing"] == score.values["psnr/whole"] == 100
    assert score.values["ssim/missing"] == pytest.approx(1, abs=1e-5)  # float32
    assert score.values["spectrum/missing"] == score.values["spectrum/whole"] == 0
    assert set(score.rings["missing"]) == set(score.rings["whole"]) == {0.0}


def test_l1_and_psnr_are_of_the_missing_pixels_and_of_the_whole_image(pair):
    truth, found, missing = pair
    values = Judge(("l1", "psnr"), {}).score(found, truth, missing).values
    difference = (found.astype(float) - truth) / 255
    within = np.abs(difference[missing]).sum() / (missing.sum() * 3)
    assert values["l1/missing"] == pytest.approx(within)
    assert values["l1/whole"] == pytest.approx(within * missing.mean())  # all else is known
    squares = (difference[missing] ** 2).sum() / (missing.sum() * 3)
    assert values["psnr/missing"] == pytest.approx(10 * math.log10(1 / squares))
    assert values["psnr/whole"] == pytest.approx(10 * math.log10(1 / (squares * missing.mean())))


def test_ssim_is_the_map_of_wang_et_al_over_the_missing_pixels(pair):
    truth, found, missing = pair

    def blurred(values: np.ndarray) -> np.ndarray:
        """A Gaussian of 1.5 pixels that ends after 5, as the paper's 11×11 window does."""
        return gaussian_filter(values, (1.5, 1.5, 0), truncate=5 / 1.5, mode="mirror")

    x, y = found / 255, truth / 255
    mx, my = blurred(x), blurred(y)
    vx, vy, cov = blurred(x * x) - mx**2, blurred(y * y) - my**2, blurred(x * y) - mx * my
    c1, c2 = 0.01**2, 0.03**2
    expected = (2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    values = Judge(("ssim",), {}).score(found, truth, missing).values
    # torchmetrics computes in float32, where variances are differences of squares
    assert values["ssim/missing"] == pytest.approx(expected[missing].mean(), abs=1e-4)
    assert values["ssim/whole"] == pytest.approx(expected.mean(), abs=1e-4)


def test_lamas_ssim_sees_zeros_beyond_the_edge():
    with Image.open(SAMPLE) as photo:
        crops = (photo.crop((x, y, x + 40, y + 32)) for x, y in ((0, 100), (300, 200)))
        found, truth = (np.asarray(crop.convert("RGB")) for crop in crops)

    def blurred(values: np.ndarray) -> np.ndarray:
        return gaussian_filter(values, (1.5, 1.5, 0), truncate=5 / 1.5, mode="constant")

    x, y = found / 255, truth / 255
    mx, my = blurred(x), blurred(y)
    vx, vy, cov = blurred(x * x) - mx**2, blurred(y * y) - my**2, blurred(x * y) - mx * my
    expected = (2 * mx * my + 1e-4) * (2 * cov + 9e-4) / ((mx**2 + my**2 + 1e-4) * (vx + vy + 9e-4))
    missing = np.zeros(truth.shape[:2], bool)
    missing[:6] = True
    values = Judge(("ssim", "ssim-lama"), {}).score(found, truth, missing).values
    # float32, where variances are differences of squares
    assert values["ssim-lama/missing"] == pytest.approx(expected[missing].mean(), abs=1e-4)
    assert values["ssim-lama/whole"] == pytest.approx(expected.mean(), abs=1e-4)
    assert abs(values["ssim-lama/whole"] - values["ssim/whole"]) > 0.005


def test_the_spectrum_of_half_the_contrast_is_ln_2_off_at_every_frequency():
    truth = np.random.default_rng(0).integers(0, 128, (40, 48, 3)).astype(np.uint8) * 2
    score = Judge(("spectrum",), {}).score(truth // 2, truth, np.ones((40, 48), bool))
    # 1e-6 is added to amplitudes of some 0.01 to 1 before the logarithm
    assert score.values["spectrum/whole"] == pytest.approx(math.log(2), abs=1e-4)
    np.testing.assert_allclose(np.array(score.rings["whole"], float), math.log(2), atol=1e-3)


def test_the_spectrum_of_missing_pixels_is_that_of_how_they_differ_from_their_mean(pair):
    _, known, missing = pair
    rng = np.random.default_rng(0)
    steps = rng.integers(1, 60, missing.sum() // 2)
    steps = rng.permutation(np.concatenate([steps, -steps]))[:, None]  # whose mean is exactly 0
    truth, found = known.copy(), rng.integers(0, 256, known.shape, dtype=np.uint8)
    truth[missing], found[missing] = 120 + 2 * steps, 120 + steps  # what is known differs, and has no part in it
    score = Judge(("spectrum",), {}).score(found, truth, missing)
    # half the contrast is ln 2 off; 1.1e-3 is added to amplitudes of some 0.1, and the mean itself is the same
    assert score.values["spectrum/missing"] == pytest.approx(math.log(2), abs=0.02)
    np.testing.assert_allclose(np.array(score.rings["missing"][1:], float), math.log(2), atol=0.02)


def test_a_step_of_8_bits_is_little_in_the_spectrum_of_missing_pixels(pair):
    truth, _, missing = pair
    hole = missing[..., None]
    lighter = np.where(hole, np.minimum(truth, 254) + 1, truth).astype(np.uint8)
    score = Judge(("spectrum",), {}).score(lighter, truth, missing)
    assert score.values["spectrum/missing"] < 0.01
    assert score.rings["missing"][0] < 0.1  # the zero frequency's
    # in a hole of one colour nothing but rounding has an amplitude, and what is as small is no large error
    flat = np.where(hole, np.uint8(254), truth)
    noise = np.random.default_rng(0).choice(np.array([253, 255], np.uint8), flat.shape)
    score = Judge(("spectrum",), {}).score(np.where(hole, noise, flat), flat, missing)
    assert score.values["spectrum/missing"] < 1


@pytest.mark.parametrize("shape", [(16, 16), (17, 33), (64, 72)])
def test_rings_hold_every_frequency_once(shape):
    rng = np.random.default_rng(1)
    one, other = (rng.integers(0, 256, (*shape, 3), dtype=np.uint8) for _ in range(2))
    errors = spectrum.compute_errors(one, other)
    ones = np.ones_like(errors)
    rows, columns = (np.fft.fftshift(np.fft.fftfreq(side)) for side in shape)
    ring = np.minimum(np.hypot(rows[:, None], columns) / math.sqrt(0.5) * 16, 15.999).astype(int)
    for index, value in enumerate(spectrum.average_rings(errors)):
        within = ring == index
        assert value is None if not within.any() else value == pytest.approx(errors[within].mean())
    assert all(value in (None, 1.0) for value in spectrum.average_rings(ones))


# ---------------------------------------------------------------- LPIPS in NumPy


def convolved(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, stride: int, pad: int) -> np.ndarray:
    """[C, H, W] → [C', H', W'], rectified."""
    x = np.pad(x, ((0, 0), (pad, pad), (pad, pad)))
    maps = [correlate(x, kernel, mode="valid", method="direct")[0] for kernel in weight]
    return np.maximum(np.stack(maps)[:, ::stride, ::stride] + bias[:, None, None], 0)


def pooled(x: np.ndarray) -> np.ndarray:
    """Maxima of 3×3 in steps of 2."""
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))
    return windows[:, ::2, ::2].max(axis=(3, 4))


def alexnet(image: np.ndarray, state: dict[str, np.ndarray]) -> list[np.ndarray]:
    """The five rectified maps of an image (uint8 H×W×3), after LPIPS's scaling."""
    shift, scale = np.array([-0.030, -0.088, -0.188]), np.array([0.458, 0.448, 0.450])
    x = ((image / 255 * 2 - 1 - shift) / scale).transpose(2, 0, 1)
    maps = []
    for layer, stride, pad, pool in (
        (0, 4, 2, False),
        (3, 1, 2, True),
        (6, 1, 1, True),
        (8, 1, 1, False),
        (10, 1, 1, False),
    ):
        x = pooled(x) if pool else x
        x = convolved(x, state[f"features.{layer}.weight"], state[f"features.{layer}.bias"], stride, pad)
        maps.append(x)
    return maps


def enlarged(values: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear between the middles of pixels."""
    for axis, side in ((0, height), (1, width)):
        places = (np.arange(side) + 0.5) * values.shape[axis] / side - 0.5
        there = np.arange(values.shape[axis])
        values = np.apply_along_axis(lambda line, p=places, t=there: np.interp(p, t, line), axis, values)
    return values


def test_lpips_is_the_weighed_distance_of_normalized_features(pair, weights):
    truth, found, missing = pair
    path = weights / "alexnet-owt-7be5be79.pth"
    state = {name: value.numpy().astype(float) for name, value in torch.load(path).items() if "features" in name}
    package = Path(torchmetrics.__file__).parent / "functional" / "image" / "lpips_models" / "alex.pth"
    linear = torch.load(package, map_location="cpu")
    distance = within = 0.0
    for index, maps in enumerate(zip(alexnet(found, state), alexnet(truth, state), strict=True)):
        one, other = (values / (np.sqrt((values**2).sum(axis=0)) + 1e-8) for values in maps)
        weight = linear[f"lin{index}.model.1.weight"].numpy()[0, :, 0, 0]
        differences = np.tensordot(weight, (one - other) ** 2, axes=1)
        distance += float(differences.mean())
        within += float(enlarged(differences, *missing.shape)[missing].mean())
    judge = Judge(("lpips-alex",), {"lpips-alex": path})
    assert distance > 0.01
    assert within > 1.2 * distance  # what is known is the same
    values = judge.score(found, truth, missing).values
    # float32 through five layers
    assert values["lpips-alex/whole"] == pytest.approx(distance, rel=1e-4)
    assert values["lpips-alex/missing"] == pytest.approx(within, rel=1e-4)
    same = judge.score(truth, truth, missing).values
    assert same["lpips-alex/whole"] == same["lpips-alex/missing"] == 0  # nothing is carried over


def test_lpips_of_an_image_that_its_network_cannot_pool_is_left_out(weights):
    image = np.random.default_rng(0).integers(0, 256, (24, 64, 3), dtype=np.uint8)
    paths = {"lpips-alex": weights / "alexnet-owt-7be5be79.pth", "lpips-vgg": weights / "vgg16-397923af.pth"}
    values = Judge(("lpips-alex", "lpips-vgg"), paths).score(image, image[::-1], np.ones((24, 64), bool)).values
    assert values.keys() == {"lpips-vgg/missing", "lpips-vgg/whole"}


def test_the_features_of_a_photograph_are_computed_once_for_all_its_results():
    computed: list[torch.Tensor] = []

    def compute(image: torch.Tensor) -> list[torch.Tensor]:
        computed.append(image)
        return [2 * image]

    see = backbones.LastFeatures(compute)
    one, other, wide = torch.zeros(1, 3, 4, 4), torch.ones(1, 3, 4, 4), torch.zeros(1, 3, 4, 8)
    for image, count in ((one, 1), (one.clone(), 1), (other, 2), (other, 2), (wide, 3), (one, 4)):
        (features,) = see(image)
        assert torch.equal(features, 2 * image)
        assert len(computed) == count


def test_scores_do_not_depend_on_the_images_that_were_scored_before(pair, weights):
    truth, found, missing = pair
    names, paths = ("lpips-alex",), {"lpips-alex": weights / "alexnet-owt-7be5be79.pth"}
    judge = Judge(names, paths)
    pairs = [(found, truth), (truth[::-1], truth), (found[::-1], truth[::-1]), (truth, found)]
    again = [judge.score(*each, missing).values for each in pairs]
    assert again == [Judge(names, paths).score(*each, missing).values for each in pairs]


# ---------------------------------------------------------------- FID in NumPy


@pytest.mark.parametrize("dimensions", [24, 200])
def test_fid_is_the_distance_of_two_gaussians(dimensions):
    """Of more images than features, and of fewer. Tr √(Σ₁Σ₂) is the sum of the singular values of A·Bᵀ for Σ₁ = AᵀA
    and Σ₂ = BᵀB."""
    rng = np.random.default_rng(0)
    one = rng.normal(0, 1, (50, 24)) @ rng.normal(0, 1, (24, dimensions))
    other = rng.normal(0.3, 2, (40, dimensions))
    a, b = ((x - x.mean(0)) / math.sqrt(len(x) - 1) for x in (one, other))
    cross = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    expected = ((one.mean(0) - other.mean(0)) ** 2).sum() + (a**2).sum() + (b**2).sum() - 2 * cross
    assert compute_fid(one, other) == pytest.approx(expected, rel=1e-6)
    # roots of eigenvalues that are zero but for rounding
    assert compute_fid(one, one) == pytest.approx(0, abs=1e-6 * (a**2).sum())


def test_inception_sees_2048_features_of_a_whole_image_and_of_its_missing_pixels(pair, weights):
    truth, found, missing = pair
    path = weights / "weights-inception-2015-12-05-6726825d.pth"
    judge = Judge(("fid",), {"fid": path})
    score = judge.score(found, truth, missing)
    assert score.features is not None
    assert score.features.shape == (2, 2048)
    assert np.isfinite(score.features).all()
    of_truth = judge.extract_features(truth, [missing, np.ones_like(missing)])
    assert np.abs(score.features - of_truth[0]).max(axis=1).min() > 1e-3
    # of all pixels, and of all that are missing where all are, it is the mean of the same 64 positions in float32
    np.testing.assert_allclose(of_truth[1, 0], of_truth[1, 1], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(of_truth[0, 1], of_truth[1, 1])

    maps = []
    network = backbones.open_inception(path)
    network.Mixed_7c.register_forward_hook(lambda module, inputs, output: maps.append(output[0].numpy()))
    network(torch.from_numpy(found.transpose(2, 0, 1).copy())[None])
    shares = missing.reshape(8, 8, 8, 9).mean(axis=(1, 3))  # of 8×8 parts of the image
    np.testing.assert_allclose(score.features[1], maps[0].mean(axis=(1, 2)), rtol=1e-5, atol=1e-6)
    expected = (maps[0] * shares).sum(axis=(1, 2)) / shares.sum()
    np.testing.assert_allclose(score.features[0], expected, rtol=1e-5, atol=1e-6)


def scaled_as_pytorch_fid(image: np.ndarray) -> np.ndarray:
    return enlarged(image.astype(float), 299, 299) / 127.5 - 1


def scaled_as_tensorflow(image: np.ndarray) -> np.ndarray:
    """Bilinear between the first corners of pixels."""
    values = image.astype(float)
    for axis in (0, 1):
        places, there = np.arange(299) * values.shape[axis] / 299, np.arange(values.shape[axis])
        values = np.apply_along_axis(lambda line, p=places, t=there: np.interp(p, t, line), axis, values)
    return (values - 128) / 128


def scaled_as_clean_fid(image: np.ndarray) -> np.ndarray:
    """Keys's cubic with a = −1/2, widened by the scale where pixels are left out."""
    values = image.astype(float)
    for axis in (0, 1):
        side = values.shape[axis]
        scale = side / 299
        places, there = (np.arange(299) + 0.5) * scale, np.arange(side) + 0.5
        t = np.abs(places[:, None] - there) / max(scale, 1)
        near, far = 1.5 * t**3 - 2.5 * t**2 + 1, -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2
        weights = np.where(t < 1, near, np.where(t < 2, far, 0))
        weights /= weights.sum(axis=1, keepdims=True)
        values = np.moveaxis(np.tensordot(weights, values, axes=(1, axis)), 0, axis)
    return (values.clip(0, 255) - 128) / 128


@pytest.mark.parametrize(
    ("metric", "scaled"),
    [("fid", scaled_as_tensorflow), ("fid-lama", scaled_as_pytorch_fid), ("clean-fid", scaled_as_clean_fid)],
)
def test_inception_sees_an_image_scaled_as_the_metric_says(metric, scaled, weights):
    path = weights / "weights-inception-2015-12-05-6726825d.pth"
    image = np.random.default_rng(0).integers(0, 256, (340, 260, 3), dtype=np.uint8)  # one side shrinks, one grows
    seen = Judge((metric,), {metric: path}).extract_features(image, [np.ones((340, 260), bool)])
    maps = []
    network = backbones.open_inception(path)
    network.Conv2d_1a_3x3.register_forward_pre_hook(
        lambda module, inputs: torch.from_numpy(scaled(image).transpose(2, 0, 1)[None].astype(np.float32))
    )
    network.Mixed_7c.register_forward_hook(lambda module, inputs, output: maps.append(output[0].numpy()))
    network(torch.zeros(1, 3, 299, 299, dtype=torch.uint8))
    # float32; the three scalings of this noise differ by 0.035 and more
    np.testing.assert_allclose(seen[0, 1], maps[0].mean(axis=(1, 2)), atol=1e-3)


def test_metrics_of_sets_have_their_own_features(pair, weights):
    _, image, missing = pair
    names = ("fid", "clean-fid")
    paths = dict.fromkeys(names, weights / "weights-inception-2015-12-05-6726825d.pth")
    apart = [Judge((name,), paths).extract_features(image, [missing]) for name in names]
    together = Judge(names, paths).extract_features(image, [missing])
    np.testing.assert_array_equal(together, np.concatenate(apart, axis=2))
    assert np.abs(apart[0] - apart[1]).max() > 1e-3


def test_where_nothing_is_missing_inception_sees_nothing_missing(weights):
    image = np.random.default_rng(0).integers(0, 256, (23, 37, 3), dtype=np.uint8)  # no multiples of 8
    masks = [np.zeros((23, 37), bool), np.ones((23, 37), bool)]
    judge = Judge(("fid",), {"fid": weights / "weights-inception-2015-12-05-6726825d.pth"})
    (none, whole), (every, same) = judge.extract_features(image, masks)
    assert np.isnan(none).all()
    np.testing.assert_array_equal(whole, same)
    np.testing.assert_allclose(every, whole, rtol=1e-5, atol=1e-6)


# ---------------------------------------------------------------- the files


def test_a_file_is_found_in_the_folder_given_and_in_torch_s_own(weights, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    alexnet = METRICS["lpips-alex"].weights
    assert backbones.find_file(alexnet, weights) == weights / "alexnet-owt-7be5be79.pth"
    assert backbones.find_file(alexnet, None) is None
    assert "alexnet-owt-7be5be79.pth is neither in `weights` nor in" in backbones.describe_absence(alexnet)
    (tmp_path / "checkpoints").mkdir()
    there = tmp_path / "checkpoints" / "pt_inception-2015-12-05-6726825d.pth"  # pytorch-fid's name of the same
    there.touch()
    assert backbones.find_file(METRICS["fid"].weights, None) == there


def test_loading_one_leaves_torch_s_folder_where_it_was(weights, monkeypatch):
    before = torch.hub.get_dir()
    METRICS["lpips-alex"].open(weights / "alexnet-owt-7be5be79.pth", "cpu")
    assert torch.hub.get_dir() == before
    monkeypatch.setenv("TORCH_HOME", "/elsewhere")
    assert torch.hub.get_dir() == "/elsewhere/hub"


@pytest.mark.parametrize("name", ["lpips-alex", "fid"])
def test_wrong_files_of_weights_are_errors_of_one_line(weights, tmp_path, name):
    with pytest.raises(GlamaError, match=r"holds the weights of another network .*download it again") as found:
        METRICS[name].open(weights / "vgg16-397923af.pth", "cpu")
    assert "\n" not in str(found.value)
    for file, content in (
        ("empty.pth", b""),
        ("text.pth", b"not weights"),
        ("code.pth", b"cos\nsystem\n(S'true'\ntR."),
    ):
        (tmp_path / file).write_bytes(content)
        with pytest.raises(GlamaError, match="damaged or no file of PyTorch's weights") as found:
            METRICS[name].open(tmp_path / file, "cpu")
        assert "\n" not in str(found.value)


def test_a_download_that_fails_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(GlamaError, match="cannot be downloaded"):
        backbones.download(WeightFile(names=("a-0.pth",), url="http://127.0.0.1:9/a-0.pth"))
    assert not (tmp_path / "checkpoints" / "a-0.pth").exists()


def test_an_unknown_metric_is_named():
    with pytest.raises(GlamaError, match="unknown metric 'pnsr'; expected l1, psnr"):
        sort_metrics(("pnsr",))
