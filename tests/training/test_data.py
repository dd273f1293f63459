from __future__ import annotations

import io
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from glama_deploy.errors import GlamaError
from glama_deploy.masks import by_name
from glama_deploy.training import data
from glama_deploy.training.config import Data

SIDE = 32


def picture(n: int, height: int = 50, width: int = 70) -> Image.Image:
    """Its red says which it is, green the row, blue the column."""
    rows, columns = np.mgrid[0:height, 0:width]
    return Image.fromarray(np.stack([np.full_like(rows, 20 * n), rows, columns], axis=2).astype(np.uint8))


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "photos"
    (path / "deeper").mkdir(parents=True)
    for n in range(6):
        picture(n).save(path / ("deeper" if n % 2 else ".") / f"{n}.png")
    (path / "notes.txt").write_text("no picture")
    return path


@pytest.fixture
def shards(tmp_path):
    """Two WebDataset shards of three samples each."""
    for shard in range(2):
        with tarfile.open(tmp_path / f"s-{shard:03}.tar", "w") as archive:
            for n in range(3):
                encoded = io.BytesIO()
                picture(3 * shard + n).save(encoded, format="PNG")
                for name, content in ((f"{n}.png", encoded.getvalue()), (f"{n}.txt", b"a caption")):
                    member = tarfile.TarInfo(name)
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))
    return str(tmp_path / "s-{000..001}.tar")


def settings(**changes) -> Data:
    return Data(**{"side": SIDE, "workers": 0, **changes})


def take(squares: data.Squares, count: int, workers: int = 0, **positions) -> list[data.Batch]:
    there = data.read_batches(squares, data.Positions(**{"batch": 4, **positions}), workers)
    return [next(there) for _ in range(count)]


@pytest.mark.parametrize("kind", ["folder", "shards"])
def test_folders_and_shards_give_the_same_photographs(kind, request):
    source = str(request.getfixturevalue(kind))
    squares = data.Squares([source], settings(), seed=0)
    assert len(squares) == 6
    reds = [squares[position][0][0, 0, 0] for position in range(12)]
    assert sorted(reds[:6]) == sorted(reds[6:]) == [0, 20, 40, 60, 80, 100]  # each once an epoch
    assert reds[:6] != reds[6:]


def test_a_crop_is_a_piece_of_the_photograph_and_half_are_mirrored(folder):
    squares = data.Squares([str(folder)], settings(), seed=1)
    mirrored = 0
    for position in range(60):
        image = squares[position][0].astype(int)
        assert image.shape == (SIDE, SIDE, 3)
        assert (np.diff(image[:, :, 1], axis=0) == 1).all()
        step = np.diff(image[:, :, 2], axis=1)
        assert (step == step[0, 0]).all()
        mirrored += step[0, 0] == -1
    assert 15 < mirrored < 45
    never = data.Squares([str(folder)], settings(flip=False), seed=1)
    assert all(np.diff(never[n][0][0, :, 2].astype(int))[0] == 1 for n in range(20))


def test_a_photograph_is_resized_whole_or_enlarged_where_it_is_too_small(tmp_path):
    (tmp_path / "p").mkdir()
    picture(3, 64, 128).save(tmp_path / "p" / "a.png")
    whole = data.Squares([str(tmp_path / "p")], settings(fit="resize", flip=False), seed=0)[0][0]
    assert whole[0, 0, 2] < 4
    assert whole[-1, -1, 2] > 123
    picture(3, 20, 25).save(tmp_path / "p" / "a.png")
    assert data.Squares([str(tmp_path / "p")], settings(), seed=0)[0][0].shape == (SIDE, SIDE, 3)


def test_photographs_that_are_kept_are_read_once(folder):
    kept, read = (data.Squares([str(folder)], settings(keep=keep), seed=0) for keep in (6, 0))
    for squares in (kept, read):
        assert not any(squares[position][2] for position in range(6))  # an epoch
    for path in folder.rglob("*.png"):
        path.write_bytes(b"no picture any more")
    assert not any(kept[position][2] for position in range(6, 12))
    with pytest.raises(GlamaError, match="cannot be read"):
        read[6]


def test_a_zoom_takes_wider_crops_and_makes_them_smaller(tmp_path):
    """The blue channel is the column: its slope says how much wider than SIDE the crop was."""
    (tmp_path / "p").mkdir()
    picture(3, 100, 100).save(tmp_path / "p" / "a.png")
    squares = data.Squares([str(tmp_path / "p")], settings(flip=False, zoom=0.25), seed=0)
    widths = []
    for position in range(60):
        image = squares[position][0].astype(int)
        assert image.shape == (SIDE, SIDE, 3)
        widths.append((image[0, -1, 2] - image[0, 0, 2]) / (SIDE - 1))
    assert 0.9 < min(widths) < 1.3
    assert max(widths) <= 100 / SIDE + 0.2  # never beyond the picture
    assert max(widths) > 2


def test_half_are_recoloured_by_an_exchange_of_their_channels(folder):
    plain = data.Squares([str(folder)], settings(flip=False), seed=1)
    other = data.Squares([str(folder)], settings(flip=False, recolour=True), seed=1)
    exchanged = 0
    for position in range(60):
        mine, theirs = other[position][0], plain[position][0]
        assert (np.sort(mine, axis=2) == np.sort(theirs, axis=2)).all()
        exchanged += not (mine == theirs).all()
    assert 10 < exchanged < 40  # of the half, one in six is the order that was there


def test_a_sample_depends_on_the_seed_and_its_position_alone(folder):
    """Whatever the number of workers, and from wherever a run goes on."""
    squares = data.Squares([str(folder)], settings(masks="general", distort=True), seed=5)
    straight = take(squares, 6)
    for other in (take(squares, 6, workers=2), take(squares, 2, start=0) + take(squares, 4, start=8)):
        for mine, theirs in zip(straight, other, strict=True):
            assert torch.equal(mine.image, theirs.image)
            assert torch.equal(mine.mask, theirs.mask)
    assert not torch.equal(straight[0].image, take(data.Squares([str(folder)], settings(), seed=6), 1)[0].image)
    masks = torch.cat([batch.mask for batch in straight])
    assert len({mask.numpy().tobytes() for mask in masks}) > 12  # not one mask for all


def test_processes_share_the_batches_of_one(folder):
    squares = data.Squares([str(folder)], settings(), seed=2)
    together = take(squares, 3, batch=4)
    parts = [take(squares, 3, batch=2, rank=rank, world=2) for rank in range(2)]
    for step in range(3):
        assert torch.equal(together[step].image, torch.cat([part[step].image for part in parts]))


def test_images_and_masks_have_the_types_and_ranges_of_the_network(folder):
    (batch,) = take(data.Squares([str(folder)], settings(masks="EveryNLines"), seed=0), 1)
    assert batch.image.shape == (4, 3, SIDE, SIDE)
    assert batch.mask.shape == (4, 1, SIDE, SIDE)
    assert batch.image.dtype == batch.mask.dtype == torch.float32
    assert 0 <= batch.image.min() <= batch.image.max() <= 1
    expected = by_name("EveryNLines")(SIDE, SIDE, np.random.default_rng(0))
    assert (batch.mask[0, 0].numpy() == expected).all()


def test_broken_photographs_are_replaced_and_named(folder):
    (folder / "2.png").write_bytes(b"no picture")
    whole = (folder / "deeper" / "3.png").read_bytes()
    (folder / "deeper" / "3.png").write_bytes(whole[: len(whole) // 2])
    squares = data.Squares([str(folder)], settings(), seed=0)
    seen, broken = [], set()
    for position in range(24):
        image, _, names = squares[position]
        seen.append(image[0, 0, 0])
        broken |= set(names)
    assert {name.rpartition("/")[2] for name in broken} == {"2.png", "3.png"}
    assert set(seen) == {0, 20, 80, 100}
    assert take(squares, 6)[0].broken or any(batch.broken for batch in take(squares, 6))


def test_reading_ends_where_no_photograph_can_be_read(tmp_path):
    for n in range(3):
        (tmp_path / f"{n}.png").write_bytes(b"broken")
    with pytest.raises(GlamaError, match=r"100 pictures in succession cannot be read, the last .*\.png"):
        data.Squares([str(tmp_path)], settings(), seed=0)[0]


@pytest.mark.parametrize(
    ("sources", "says"),
    [
        ([], "no photographs are given; set data.train"),
        (["{tmp}/empty"], r"has no pictures \(\.bmp"),
        (["{tmp}/missing"], "is neither a folder nor a tar file"),
        (["{tmp}/text.tar"], "is not an uncompressed tar file"),
        (["{tmp}/x-{{000..001}.tar"], "neither a folder nor|unbalanced or too deeply nested braces"),
        (["{1..100001}.tar"], r"^\{1\.\.100001\}\.tar gives more than 100000 files"),
        (["{1..99999999999999999999}.tar"], "gives more than 100000 files"),
        (["{z,{1..1000}{1..1000}{1..1000}}.tar"], "gives more than 100000 files"),
        (["{a,b}" * 40], "gives more than 100000 files"),
        (["{" * 5000 + "}" * 5000], "unbalanced or too deeply nested braces"),
        (["{tmp}/x-{1..100000}.tar"], "x-1.tar is neither a folder nor a tar file"),
    ],
)
def test_sources_without_photographs_are_refused_in_one_line(tmp_path, sources, says):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.tar").write_text("no tar")
    with pytest.raises(GlamaError, match=says) as caught:
        data.list_photos([source.replace("{tmp}", str(tmp_path)) for source in sources])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "source",
    [
        "x",
        "{0..12}",
        "{07..10..2}",
        "{c..a}",
        "{a..g..2}{1..3}",
        "{a,{1..3},c{4..1}}",
        "p{2.{5..7},3.{2,3}}",
        r"\{1..9\}",
    ],
)
def test_braces_stand_for_no_more_files_than_are_counted(source):
    """The count may be too large by the step of a range of letters alone."""
    found = len(list(data._expand(source)))
    assert found == data._count_paths(source) or (source.startswith("{a..g..2}") and found < data._count_paths(source))


def test_photographs_that_cannot_be_decoded_are_left_out_of_training(folder):
    """16 bits a channel, which would be clipped to white, and a format that another program would be started for."""
    ramp = np.linspace(0, 64000, 50 * 70).reshape(50, 70).astype(np.uint16)
    Image.fromarray(ramp).save(folder / "0.png")
    (folder / "4.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 50 50\n%%EndComments\n")
    squares = data.Squares([str(folder)], settings(), seed=3)
    left_out = {name.rpartition("/")[2] for n in range(14) for name in squares[n][2]}
    assert left_out == {"0.png", "4.png"}
