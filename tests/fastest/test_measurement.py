"""What is measured of each precision, and which one is chosen. No test depends on how long anything takes."""

from __future__ import annotations

import logging
import weakref

import numpy as np
import pytest

import glama_deploy
from glama_deploy import catalogue
from glama_deploy.errors import EngineError
from glama_deploy.fastest import measurement
from glama_deploy.fastest.measurement import LEAST_PSNR_DB, Measurement, choose_fastest, measure


def choose(**figures: tuple[float, float | None]) -> str:
    """The precision that is chosen among those with these seconds and decibels."""
    made = [Measurement(precision=name, seconds=each[0], decibels=each[1]) for name, each in figures.items()]
    return choose_fastest(tuple(made)).precision


@pytest.mark.parametrize(
    ("chosen", "figures"),
    [
        ("bf16", {"fp32": (1.0, None), "bf16": (0.5, 48.0), "int8": (0.8, 45.0)}),
        ("int8", {"fp32": (1.0, None), "bf16": (0.5, 48.0), "int8": (0.3, 45.0)}),
        ("bf16", {"fp32": (1.0, None), "bf16": (0.5, 48.0), "int8": (0.3, LEAST_PSNR_DB - 0.1)}),
        ("int8", {"fp32": (1.0, None), "bf16": (0.5, 48.0), "int8": (0.3, LEAST_PSNR_DB)}),
        ("fp32", {"fp32": (1.0, None), "bf16": (0.5, 20.0)}),
        ("fp32", {"fp32": (1.0, None), "bf16": (1.4, 48.0)}),
        ("fp32", {"fp32": (1.0, None)}),
    ],
)
def test_the_fastest_precision_that_is_close_enough_to_fp32_is_chosen(chosen, figures):
    assert choose(**figures) == chosen


def test_of_equally_fast_precisions_the_closest_to_fp32_is_chosen():
    assert choose(fp32=(1.0, None), bf16=(0.98, 48.0)) == "fp32"
    assert choose(fp32=(2.0, None), int8=(1.0, 41.0), bf16=(1.04, 48.0)) == "bf16"
    assert choose(fp32=(2.0, None), int8=(1.0, 41.0), bf16=(1.06, 48.0)) == "int8"


class Shifted:
    """An inpainter of another precision, whose missing pixels are wrong by a number of grey levels."""

    def __init__(self, inpainter, precision: str, levels: int) -> None:
        self._inpainter, self.precision, self._levels = inpainter, precision, levels

    def __call__(self, image, missing, region):
        result = self._inpainter(image, missing, region=region)
        result[missing] = np.where(
            result[missing] > 127, result[missing] - self._levels, result[missing] + self._levels
        )
        return result


def test_the_decibels_are_those_of_the_missing_pixels(tiny_bundle):
    real = glama_deploy.load(tiny_bundle.path, "openvino", "fp32")

    def open_inpainter(precision):
        if precision == "fp32":
            return real
        if precision in ("bf16", "int8"):
            return Shifted(real, precision, {"bf16": 0, "int8": 3}[precision])
        if precision == "fp16":
            return real  # a CPU without fp16 computes in fp32
        raise EngineError("not in this bundle")

    fp32, bf16, int8 = measure(open_inpainter, (64, 64))
    assert [one.precision for one in (fp32, bf16, int8)] == ["fp32", "bf16", "int8"]
    assert fp32.decibels is None
    assert bf16.decibels is None  # no pixel differs
    assert int8.decibels == pytest.approx(-20 * np.log10(3 / 255))
    assert min(fp32.seconds, bf16.seconds, int8.seconds) > 0


class Failing:
    """An inpainter that opens in a precision and does not run."""

    precision = "bf16"

    def __call__(self, image, missing, region):
        raise EngineError("OpenVINO failed: no kernel")


def test_a_precision_that_opens_and_does_not_run_is_left_out(tiny_bundle, caplog):
    real = glama_deploy.load(tiny_bundle.path, "openvino", "fp32")

    def open_inpainter(precision):
        if precision == "int8":
            raise EngineError("the bundle is not in int8")
        return {"fp32": real, "bf16": Failing(), "fp16": Shifted(real, "fp16", 1)}.get(precision, real)

    with caplog.at_level(logging.INFO, "glama_deploy"):
        assert [one.precision for one in measure(open_inpainter, (64, 64))] == ["fp32", "fp16"]
    said = [(record.levelname, record.message) for record in caplog.records]
    assert ("WARNING", "bf16 opens but does not run, and is not measured: OpenVINO failed: no kernel") in said
    assert ("INFO", "int8 is not measured: the bundle is not in int8") in said
    assert ("INFO", "int8+bf16 is not measured: this machine computes in fp32 instead") in said


def test_fp32_that_does_not_run_cannot_be_compared(caplog):
    with pytest.raises(EngineError, match="no kernel"):
        measure(lambda precision: Failing(), (64, 64))


def test_two_engines_are_open_at_once(tiny_bundle):
    real, opened, most = glama_deploy.load(tiny_bundle.path, "openvino", "fp32"), [], 0

    def open_inpainter(precision):
        nonlocal most
        inpainter = Shifted(real, precision, 0)
        opened.append(weakref.ref(inpainter))
        most = max(most, sum(reference() is not None for reference in opened))
        return inpainter

    assert len(measure(open_inpainter, (64, 64))) == len(catalogue.PRECISIONS)
    assert most == 2


@pytest.mark.parametrize("size", [(64, 64), (256, 256), (512, 768), (640, 128)])
def test_each_sample_has_the_size_and_missing_and_known_pixels(size):
    samples = list(measurement._read_samples(size))
    assert len({image.tobytes() for image, _ in samples}) > 1 or size == (512, 768)
    for image, missing in samples:
        assert image.shape == (*size, 3)
        assert image.dtype == np.uint8
        assert missing.shape == size
        assert missing.any()
        assert not missing.all()


def test_the_bound_is_the_one_of_int8s_parity():
    assert catalogue.PRECISIONS["int8"].tolerance.least_psnr == LEAST_PSNR_DB
