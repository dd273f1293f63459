from __future__ import annotations

import pytest

from glama_deploy.errors import GlamaError
from glama_deploy.network import NAMED
from glama_deploy.training import config
from glama_deploy.training.losses import WEIGHTS


@pytest.mark.parametrize("name", list(config.CONFIGS))
def test_a_named_config_survives_its_own_yaml(name, tmp_path):
    loaded = config.load(name)
    (tmp_path / "c.yaml").write_text(config.to_yaml(loaded))
    assert config.load(str(tmp_path / "c.yaml")) == loaded


def test_glama_is_the_papers_and_lama_is_its_own():
    glama, lama = config.load("glama"), config.load("lama")
    assert glama.network == lama.network == NAMED["lama"]
    assert glama.weights == WEIGHTS["paper"]
    assert (glama.data.masks, lama.data.masks) == ("general", "lama")
    assert lama.weights == WEIGHTS["lama"]
    assert not glama.data.distort
    for name in ("lama", "big-lama"):  # lama-fourier.yaml and what it stands on, of LaMa's repository
        own = config.load(name)
        assert own.network == NAMED[name]
        assert own.weights.model_dump(
            exclude={
                "l1_missing",
                "psnr_missing",
                "lama",
                "coarse",
                "texture",
                "texture_distance",
                "perceptual_distance",
                "adversarial_distance",
                "teacher",
            }
        ) == {
            "l1": 10,
            "adversarial": 10,
            "discriminator": 1,
            "feature_matching": 100,
            "feature_distance": "squared",
            "perceptual": 30,
            "gradient_penalty": 0.001,
            "total_variation": 0,
            "focal_frequency": 0,
        }
        assert (own.data.masks, own.data.side, own.data.distort, own.data.zoom) == ("lama", 256, True, 1)
        adam = own.optimization
        rates = (adam.generator_rate, adam.discriminator_rate)
        assert (rates, adam.beta2, adam.schedule) == ((1e-3, 1e-4), 0.999, "constant")
        assert (adam.batch, adam.steps, adam.clip, adam.average) == (10, 40 * 25_000, 1, 0)
    paper = glama.optimization
    assert (paper.generator_rate, paper.discriminator_rate, paper.batch) == (1e-3, 1e-4, 20)


def test_a_file_stands_on_a_base_and_overrides_stand_on_both(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("base: glama-tiny\ndata:\n  side: 128\n  train: [photos]\nweights: {l1: 5}\n")
    loaded = config.load(str(path), ["data.side=64", "optimization.precision=bf16", "data.valid=[a, b]"])
    assert loaded.network == NAMED["glama-tiny"]
    assert loaded.data.side == 64
    assert loaded.data.train == ("photos",)
    assert loaded.data.valid == ("a", "b")
    assert loaded.weights.l1 == 5
    assert loaded.weights.perceptual == 100
    assert config.load("glama-tiny").weights.l1 == 10  # the named one is as it was


@pytest.mark.parametrize(
    ("source", "overrides", "says"),
    [
        ("glama-tinny", [], "no config 'glama-tinny'.*did you mean 'glama-tiny'"),
        ("glama", ["data.sides=128"], "the config has no data.sides; did you mean 'side'"),
        ("glama", ["dta.side=128"], "the config has no dta; did you mean 'data'"),
        ("glama", ["network.ngff=1"], "the config has no network.ngff; did you mean 'ngf'"),
        ("glama", ["data.zzz=1"], "the config has no data.zzz; known are train, valid, side"),
        ("glama", ["data.side=100"], "data.side is 100: .* multiple of 8"),
        ("glama", ["data.masks=genral"], "unknown mask 'genral'; did you mean 'general'"),
        ("glama", ["optimization.batch=many"], "optimization.batch is 'many'"),
        ("glama", ["data"], "'data' is not an override; key=value is expected"),
        ("glama", ["data.side.x=1"], "data.side is .*valid integer"),
        ("lama", ["data.masks.x=1"], "masks is not a section"),
        ("glama", ["data.side=2024-99-99"], "data.side is '2024-99-99': .*valid integer"),
        ("glama", ["weights.l1=.inf"], "weights.l1 is inf: .*finite number"),
        ("glama", ["optimization.generator_rate=.inf"], "optimization.generator_rate is inf: .*finite number"),
        ("glama", ["optimization.clip=.nan"], "optimization.clip is nan: .*finite number"),
        ("glama", ["data.side=!!int x"], "not valid YAML .*tags"),
        ("glama", ["data.side=" + "9" * 5000], "a number has 5000 characters"),
        ("glama", ["data.side=0x" + "f" * 90], "data.side is an integer of 360 bits"),
        ("glama", ["data.train=" + "[" * 5000], "more than 32 nested levels"),
        ("glama", ["network" + ".coarse" * 5000 + "=1"], "more than 8 parts"),
        ("glama", ["\x1b[31m=1"], r"the config has no \\x1b"),
        ("x" * 5000, [], "no config 'xxx"),
    ],
)
def test_a_typo_is_refused_in_one_line_with_a_suggestion(source, overrides, says):
    with pytest.raises(GlamaError, match=says) as caught:
        config.load(source, overrides)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: [", "is not valid YAML: line 1"),
        ("- 1", "is not a config"),
        ("base: glma\n", "base is 'glma'; expected .*did you mean 'glama'"),
        ("data: {side: 64}\n", "network is .*: Field required"),
        ("base: [1]\n", "base is a list; expected glama,"),
        ("base: {a: 1}\n", "base is a dict; expected glama,"),
        ("base: 1\n", "base is 1; expected glama,"),
        ("base: glama\ndata: {side: 2024-99-99}\n", "data.side is '2024-99-99'"),
        ("base: glama\ndata: &x {side: 64}\n", "line 2: anchors and aliases"),
        ("base: glama\ndata: {side: !!bool x}\n", "line 2: tags"),
        ("base: glama\ndata: {side: 64}\ndata: {side: 32}\n", "line 3: the key data is repeated"),
        ("base: glama\n1: 2\n", "the config has no 1"),
    ],
)
def test_a_file_that_is_not_a_config_is_refused_in_one_line(tmp_path, text, says):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(GlamaError, match=says) as caught:
        config.load(str(tmp_path / "c.yaml"))
    assert "\n" not in str(caught.value)
