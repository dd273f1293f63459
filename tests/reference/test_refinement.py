"""Refined features: the network sees small scales first, and each scale is drawn towards the one below."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from PIL import Image

from glama_deploy import memory
from glama_deploy.checkpoints import formats
from glama_deploy.cli.inpaint import main
from glama_deploy.errors import MemoryShortageError
from glama_deploy.network import NetworkConfig
from glama_deploy.reference import refinement
from glama_deploy.reference.generator import inpaint, masked_input
from glama_deploy.reference.refinement import Refiner, Settings, list_sizes, refine

#: Two scales of a small image, few steps.
SMALL = Settings(least_side=32, most_scales=3, steps=4, rate=0.01)

CONFIGS = {
    "lama": NetworkConfig(ngf=8, n_blocks=1),
    "fine blocks": NetworkConfig(ngf=8, n_blocks=1, fine_blocks=1, fill="pull-push"),
    "filled": NetworkConfig(ngf=8, n_blocks=1, fill="pull-push"),
    "two stages": NetworkConfig(ngf=8, n_blocks=1, coarse=NetworkConfig(ngf=8, n_blocks=1), coarse_side=64),
    "dilated": NetworkConfig(ngf=8, n_blocks=1, kind="multidilated", ratio=0, branches=2),
}


def make_case(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    rows, columns = np.mgrid[:height, :width]
    image = np.stack([(rows // 8 + columns // 8) % 2 * 200, rows, columns], axis=2).astype(np.uint8)
    mask = np.zeros((height, width), np.uint8)
    mask[height // 4 : 3 * height // 4, width // 4 : 3 * width // 4] = 255
    return image, mask


def to_torch(image: np.ndarray, mask: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    return pixels, torch.from_numpy(mask > 0)[None, None].float()


def test_the_pyramid_is_that_of_the_paper():
    assert list_sizes((500, 900)) == [(500, 900)]
    assert list_sizes((1024, 1024)) == [(512, 512), (1024, 1024)]
    assert list_sizes((1500, 2000)) == [(375, 500), (750, 1000), (1500, 2000)]  # log2(1500/512) is rounded to 2
    assert len(list_sizes((8192, 8192))) == 3


@pytest.mark.parametrize("name", CONFIGS)
def test_features_split_off_give_the_networks_own_prediction(make_checkpoint, name):
    generator = formats.load(make_checkpoint(CONFIGS[name]))
    masked = masked_input(*to_torch(*make_case(64, 72)))
    with torch.inference_mode():
        expected = generator(masked)
    split = refinement._split(generator, masked)
    with torch.no_grad():
        torch.testing.assert_close(split.predict(split.start()), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_picture_is_nearer_to_the_scale_below_than_without_refinement(make_checkpoint, name):
    generator = formats.load(make_checkpoint(CONFIGS[name])).requires_grad_(requires_grad=False)
    image, mask = to_torch(*make_case(64, 64))
    plain = inpaint(generator, image, mask)
    refined = refine(generator, image, mask, SMALL)
    small = refinement._halve(image, (32, 32))
    below = inpaint(generator, small, (refinement._halve(mask, (32, 32)) > 0).float())
    inside = refinement._erode(refinement._resize(mask, (32, 32)) >= 1)
    assert inside.any()
    before, after = (
        refinement._mean_distance(refinement._halve(found, (32, 32)), below, inside) for found in (plain, refined)
    )
    assert after < before
    known = (mask == 0).expand_as(image)
    torch.testing.assert_close(refined[known], image[known], rtol=0, atol=0)


def test_an_image_of_one_scale_is_filled_as_usual(tiny, caplog):
    generator = formats.load(tiny)
    image, mask = make_case(70, 83)
    pads = [(0, 2), (0, 5)]
    padded = np.pad(image, [*pads, (0, 0)], mode="symmetric"), np.pad(mask, pads, mode="symmetric")
    expected = inpaint(generator, *to_torch(*padded)).detach()
    found = Refiner(generator)(image, mask)
    assert "has one scale; nothing is refined" in caplog.text
    assert np.abs(found - expected[0, :, :70, :83].permute(1, 2, 0).numpy() * 255)[mask > 0].max() < 0.51  # rounded
    np.testing.assert_array_equal(found[mask == 0], image[mask == 0])
    np.testing.assert_array_equal(Refiner(generator)(image, mask * 0), image)


def test_holes_of_16_bits_are_filled_with_16_bits(tiny):
    image, mask = make_case(64, 80)
    refiner = Refiner(formats.load(tiny), SMALL)
    found, deep = refiner(image, mask), refiner(image * np.uint16(257), mask)
    assert deep.dtype == np.uint16
    np.testing.assert_array_equal(deep[mask == 0], image[mask == 0] * np.uint16(257))
    assert np.abs(deep / 257 - found).max() < 0.51  # rounded


def test_the_network_is_not_changed_and_a_second_run_gives_the_same(tiny):
    generator = formats.load(tiny)
    before = {name: values.clone() for name, values in generator.state_dict().items()}
    image, mask = make_case(64, 80)
    refiner = Refiner(generator, SMALL)
    np.testing.assert_array_equal(refiner(image, mask), refiner(image, mask))
    for name, values in generator.state_dict().items():
        torch.testing.assert_close(values, before[name], rtol=0, atol=0)


def test_memory_and_time_are_told_first_and_a_shortage_is_an_error(tiny, caplog, monkeypatch):
    refiner = Refiner(formats.load(tiny), SMALL)
    with caplog.at_level(logging.WARNING, "glama_deploy"):
        refiner(*make_case(64, 80))
    assert "refining 64x80 at 2 scales: about 0." in caplog.text
    monkeypatch.setattr(memory, "available", lambda: 1 << 20)
    with pytest.raises(MemoryShortageError, match=r"at 2 scales, and needs about .* leave out `refine`"):
        refiner(*make_case(64, 80))


def test_the_command_refines_with_torch_alone(tiny, tmp_path, capsys):
    image, mask = make_case(64, 80)
    Image.fromarray(image).save(tmp_path / "image.png")
    Image.fromarray(mask).save(tmp_path / "mask.png")
    asked = ["--model", str(tiny), "--image", str(tmp_path / "image.png"), "--mask", str(tmp_path / "mask.png")]
    asked += ["--out", str(tmp_path / "out.png"), "--refine"]
    assert main.run(asked) == 2
    assert "--refine is for PyTorch in fp32 and one whole image at once; give --backend" in capsys.readouterr().err
    assert main.run([*asked, "--backend", "torch"]) == 0
    assert "with refined features" in capsys.readouterr().err
    with Image.open(tmp_path / "out.png") as out:
        np.testing.assert_array_equal(np.asarray(out)[mask == 0], image[mask == 0])
