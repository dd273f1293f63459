"""Checkpoints, goldens and bundles that many tests share; each is made once a session."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from PIL import Image

from fakes.model_host import ModelHost
from glama_deploy.bundle import Bundle, SizeRange
from glama_deploy.checkpoints import formats
from glama_deploy.errors import EngineError
from glama_deploy.export.pipeline import Request, export
from glama_deploy.export.samples import SAMPLE
from glama_deploy.network import NAMED, NetworkConfig

GOLDENS = Path(__file__).parents[2] / "shared" / "goldens"

# Every run tries the same examples, however busy the machine is. HYPOTHESIS_PROFILE=explore tries new examples.
_LOADED_MACHINE = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
hypothesis_settings.register_profile("repeatable", derandomize=True, **_LOADED_MACHINE)
hypothesis_settings.register_profile("explore", derandomize=False, max_examples=2_000, **_LOADED_MACHINE)
hypothesis_settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))

#: The smallest network of the family: for tests that are about files and flow, not about numbers.
TINY = NetworkConfig(ngf=8, n_blocks=1)


# A shell starts a background job with SIGINT ignored, and every process inherits that. The commands that the tests
# interrupt must have the default action, which a child gets where the parent has a handler.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what is marked `gpu` where there is none, and what is marked `without_gpu` where there is one."""
    from glama_deploy.runtime.cuda.driver import find_driver_version

    reasons = {"gpu": _why_no_gpu()}
    if find_driver_version() is not None:  # also one that is too old for cuda-python
        reasons["without_gpu"] = "there is an NVIDIA driver here"
    for item in items:
        for name, reason in reasons.items():
            if reason and item.get_closest_marker(name):
                item.add_marker(pytest.mark.skip(reason=reason))


def _why_no_gpu() -> str:
    """Return why no GPU can be used here, such as a driver that is too old for cuda-python; empty where one can."""
    from glama_deploy.runtime.cuda.cuda_python import CudaPythonDevice

    try:
        CudaPythonDevice().close()
    except EngineError as error:
        return str(error)
    return ""


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads or fills the user's cache, or downloads a model. The fixture `model_host` allows downloads."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GLAMA_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("GLAMA_OFFLINE", "1")
        # on a machine with a GPU, the first test that opens an engine on the CPU would get this note beside its own
        patch.setattr("glama_deploy.runtime.choice._has_noted_gpu", True)
        yield


@pytest.fixture(autouse=True)
def _graphs_have_their_transforms(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A transform of OpenVINO's that does not find what the manifest promises fails the test, but for tests of that."""
    if request.node.get_closest_marker("lacks_transforms") is None:
        from glama_deploy.runtime.openvino.rewrites import transform_checks

        monkeypatch.setattr(transform_checks, "report_missing", pytest.fail)


@pytest.fixture
def bf16_cpu() -> None:
    """Skip the test where OpenVINO does not compute in bf16: the CPU has no bf16, or a variable switches bf16 off."""
    pytest.importorskip("openvino")
    from glama_deploy.runtime.openvino.precision import find_precisions

    if "bf16" not in find_precisions(has_int8=False):
        pytest.skip("OpenVINO does not compute in bf16 on this CPU")


#: Seconds after which a wait counts as a hang. A machine under load may be a hundred times as slow as a quiet one.
HANG_SECONDS = 600


@pytest.fixture
def wait_until() -> Callable[[Callable[[], object]], None]:
    """A function that returns once a condition holds, and fails the test when the condition never does."""

    def wait(condition: Callable[[], object], pause: float = 0.005) -> None:
        end = time.monotonic() + HANG_SECONDS
        while not condition():
            assert time.monotonic() < end, f"the condition did not hold within {HANG_SECONDS} s"
            time.sleep(pause)

    return wait


@pytest.fixture(scope="session")
def lama_small() -> Path:
    """The LaMa model folder of the goldens."""
    folder = GOLDENS / "lama-small"
    if not folder.is_dir():
        pytest.skip("the goldens of an independent implementation (../shared/goldens) are not here")
    return folder


@pytest.fixture(scope="session")
def goldens(lama_small: Path) -> list[dict[str, np.ndarray]]:
    """The goldens' cases: image, mask, predicted, inpainted."""
    with np.load(lama_small / "cases.npz") as arrays:
        return [{name: arrays[f"{name}_{n}"] for name in ("image", "mask", "predicted", "inpainted")} for n in range(3)]


@pytest.fixture(scope="session")
def make_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[NetworkConfig], Path]:
    """A function that gives an untrained checkpoint of a config, made once."""
    made: dict[NetworkConfig, Path] = {}

    def make(config: NetworkConfig) -> Path:
        if config not in made:
            from glama_deploy.reference.random_weights import untrained

            path = tmp_path_factory.mktemp("checkpoint") / "network.safetensors"
            formats.save(path, config, untrained(config))
            made[config] = path
        return made[config]

    return make


@pytest.fixture(scope="session")
def tiny(make_checkpoint: Callable[[NetworkConfig], Path]) -> Path:
    return make_checkpoint(TINY)


@pytest.fixture(scope="session")
def overflowing(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny network as the same function in exact arithmetic, but a Fourier unit's input is 2¹⁶ times as large: past
    fp16's end."""
    source = formats.read(tiny)
    weights = dict(source.weights)
    unit = f"model.{source.config.first_block}.conv1.ffc.convg2g"
    for part in ("weight", "bias"):
        weights[f"{unit}.conv1.1.{part}"] = weights[f"{unit}.conv1.1.{part}"] * np.float32(2**16)
    # the spectrum's norm takes the factor off the statistics, and puts it back on what it gives
    weights[f"{unit}.fu.bn.running_mean"] = weights[f"{unit}.fu.bn.running_mean"] * np.float32(2**16)
    for part in ("weight", "bias"):
        weights[f"{unit}.fu.bn.{part}"] = weights[f"{unit}.fu.bn.{part}"] * np.float32(2**16 if part == "bias" else 1)
    weights[f"{unit}.conv2.weight"] = weights[f"{unit}.conv2.weight"] * np.float32(2**-16)
    path = tmp_path_factory.mktemp("loud") / "loud.safetensors"
    formats.save(path, source.config, weights)
    return path


@pytest.fixture(scope="session")
def lama9(make_checkpoint: Callable[[NetworkConfig], Path]) -> Path:
    return make_checkpoint(NAMED["lama"])


@pytest.fixture(scope="session")
def make_bundle(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Bundle]:
    """A function that exports a checkpoint, once per set of arguments."""
    made: dict[tuple[object, ...], Bundle] = {}

    def make(source: Path, targets: tuple[str, ...] = ("openvino",), **settings: object) -> Bundle:
        key = (source, targets, tuple(sorted(settings.items())))
        if key not in made:
            out = tmp_path_factory.mktemp("bundle") / "bundle"
            settings = {"parity": False, **settings}
            made[key] = export(Request(source, out, targets, **settings)).bundle  # type: ignore[arg-type]
        return made[key]

    return make


@pytest.fixture(scope="session")
def tiny_bundle(tiny: Path, make_bundle: Callable[..., Bundle]) -> Bundle:
    """An OpenVINO and ONNX bundle of the tiny network; tests that change a bundle copy it first."""
    return make_bundle(tiny)


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three crops of the sample photo."""
    folder = tmp_path_factory.mktemp("photos")
    with Image.open(SAMPLE) as photo:
        for number in range(3):
            left = number * (photo.width - 256) // 2
            photo.crop((left, 0, left + 256, 256)).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="session")
def int8_bundle(tiny: Path, photos: Path, make_bundle: Callable[..., Bundle]) -> Bundle:
    """The tiny network in int8 for CPUs and for TensorRT, with parity; tests that change a bundle copy it first."""
    profile = SizeRange(min=(64, 64), opt=(128, 128), max=(256, 256), max_batch=2)
    settings = {"calibration": photos, "profile": profile, "parity": True, "parity_size": (256, 256)}
    return make_bundle(tiny, ("openvino", "trt-rtx"), precision="int8", **settings)


@pytest.fixture
def model_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelHost]:
    """A host of models, on a machine with an empty cache, no file of torch.hub, and no variable about downloads."""
    for name in ("GLAMA_OFFLINE", "HF_HUB_OFFLINE", "HF_ENDPOINT", "GLAMA_MODELS_MIRROR", "GLAMA_MODELS_CATALOGUE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GLAMA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "127.0.0.1")
    host = ModelHost()
    yield host
    host.stop()


@pytest.fixture
def photo() -> np.ndarray:
    """uint8 96×120×3: smooth with some texture, different in every corner."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:96, 0:120]
    base = np.stack([2 * y, x + y, 255 - 2 * x], axis=2) + rng.normal(0, 8, (96, 120, 3))
    return base.clip(0, 255).astype(np.uint8)


@pytest.fixture
def hole() -> np.ndarray:
    """bool 96×120: a box and a line are missing."""
    mask = np.zeros((96, 120), bool)
    mask[20:50, 30:70] = True
    mask[80, :] = True
    return mask
