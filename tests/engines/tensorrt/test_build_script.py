"""`build.sh`, run against a trtexec that only says what it was asked; and the registration of what it wrote."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from glama_deploy.bundle import BuildSettings, Bundle, SizeRange, Tensor
from glama_deploy.engines.tensorrt import gpus, register
from glama_deploy.engines.tensorrt.build_script import SCRIPT, format_script
from glama_deploy.engines.tensorrt.options import Options
from glama_deploy.engines.tensorrt.register import register_engine
from glama_deploy.errors import EngineError, GlamaError

SIZES = SizeRange(min=(64, 64), opt=(256, 256), max=(512, 512), max_batch=2)


@pytest.fixture
def bundle(tiny, make_bundle, tmp_path) -> Bundle:
    shutil.copytree(make_bundle(tiny, ("onnx",)).path, tmp_path / "a bundle")
    return Bundle.open(tmp_path / "a bundle")


#: A trtexec, before TensorRT 10.10, that writes its arguments as the engine.
_TRTEXEC = """[ "$1" != --help ] || exit 0
for a in "$@"; do case $a in --saveEngine=*) f=${a#*=};; esac; done; echo "$@" > "$f\""""


@pytest.fixture
def bin_folder(tmp_path) -> Path:
    """A PATH of our own: the few tools that the script calls, and a trtexec that writes its arguments as the engine."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in ("dirname", "rm"):
        (folder / tool).symlink_to(str(shutil.which(tool)))
    command(folder / "trtexec", _TRTEXEC)
    return folder


def command(path: Path, body: str) -> None:
    path.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
    path.chmod(0o755)


def write(bundle: Bundle, sizes: SizeRange = SIZES, options: Options | None = None) -> Path:
    path = bundle.path / SCRIPT
    path.write_text(format_script(bundle.manifest, sizes, options))
    return path


def run(path: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the script from elsewhere, with nothing but `folder` on PATH."""
    return subprocess.run(
        ["/bin/sh", str(path), *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        env={"PATH": str(folder)},
    )


def test_the_script_is_posix_sh(bundle):
    subprocess.run(["/bin/sh", "-n", str(write(bundle))], check=True)


def test_trtexec_gets_the_graph_the_types_and_every_profile(bundle, bin_folder):
    done = run(write(bundle), bin_folder)
    assert done.returncode == 0, done.stderr
    asked = (bundle.path / "trtexec.engine").read_text().split()
    assert asked[0] == "--onnx=model.onnx"
    assert {"--stronglyTyped", "--noTF32", "--skipInference"} <= set(asked)
    first = asked.index("--profile=0")
    assert asked[first : first + 4] == [
        "--profile=0",
        "--minShapes=image:1x3x64x64,mask:1x1x64x64",
        "--optShapes=image:1x3x128x128,mask:1x1x128x128",
        "--maxShapes=image:2x3x192x192,mask:2x1x192x192",
    ]
    assert asked[first + 4 : first + 8] == [
        "--profile=1",
        "--minShapes=image:1x3x64x64,mask:1x1x64x64",
        "--optShapes=image:1x3x256x256,mask:1x1x256x256",
        "--maxShapes=image:2x3x512x512,mask:2x1x512x512",
    ]
    assert "--profile=2" not in asked


def test_without_glama_build_the_script_prints_how_to_register(bundle, bin_folder):
    done = run(write(bundle), bin_folder)
    assert "glama-build . --target trt --precision fp32 --engine trtexec.engine" in done.stdout
    assert (bundle.path / "trtexec.engine").is_file()


def test_with_glama_build_the_engine_is_registered_and_the_copy_removed(bundle, bin_folder):
    command(bin_folder / "glama-build", 'echo registered "$@"')
    options = Options(BuildSettings(optimization_level=4, hardware_compatible=True))
    done = run(write(bundle, options=options), bin_folder)
    expected = "registered . --target trt --precision fp32 --opt-level 4 --hardware-compatible --engine trtexec.engine"
    assert expected in done.stdout.splitlines()
    assert not (bundle.path / "trtexec.engine").exists()


def test_a_failed_registration_keeps_the_engine_and_prints_how_to_repeat_it(bundle, bin_folder):
    command(bin_folder / "glama-build", "exit 2")
    assert run(write(bundle), bin_folder).returncode == 2
    assert (bundle.path / "trtexec.engine").is_file()


def test_settings_and_further_arguments_reach_trtexec(bundle, bin_folder):
    settings = BuildSettings(
        optimization_level=5,
        workspace_mib=512,
        version_compatible=True,
        hardware_compatible=True,
        refittable=True,
        stripped=True,
    )
    run(write(bundle, options=Options(settings)), bin_folder, "--timingCacheFile=my timings")
    asked = (bundle.path / "trtexec.engine").read_text()
    for flag in (
        "--builderOptimizationLevel=5",
        "--memPoolSize=workspace:512",
        "--versionCompatible",
        "--hardwareCompatibilityLevel=ampere+",
        "--refit",
        "--stripWeights",
        "--timingCacheFile=my timings",
    ):
        assert flag in asked


def test_only_a_script_for_a_hardware_compatible_engine_refuses_a_jetson(bundle, bin_folder, tmp_path):
    settings = BuildSettings(hardware_compatible=True)
    for options, code in ((Options(settings), 2), (Options(), 0)):
        path = write(bundle, options=options)
        (tmp_path / "release").touch()
        path.write_text(path.read_text().replace("/etc/nv_tegra_release", f"'{tmp_path}/release'"))  # as on a Jetson
        done = run(path, bin_folder)
        assert done.returncode == code
        assert ("does not support --hardware-compatible" in done.stderr) == (code == 2)


def test_without_trtexec_the_script_prints_what_to_install(bundle, bin_folder):
    if os.path.exists("/usr/src/tensorrt/bin/trtexec"):
        pytest.skip("there is a trtexec here")
    (bin_folder / "trtexec").unlink()
    done = run(write(bundle), bin_folder)
    assert done.returncode == 2
    assert done.stderr.startswith("build.sh: no trtexec on PATH")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("lists", ["runtimeActivationResize", "aliasedPluginIO1003"])
def test_a_trtexec_that_has_the_preview_feature_is_asked_for_contexts_that_resize(bundle, bin_folder, lists):
    command(bin_folder / "trtexec", f"[ $1 != --help ] || echo '--preview=spec: {lists}'\n{_TRTEXEC}")
    run(write(bundle), bin_folder)
    asked = (bundle.path / "trtexec.engine").read_text().split()
    assert ("--preview=+runtimeActivationResize" in asked) == (lists == "runtimeActivationResize")


def test_the_line_that_measures_has_the_engine_its_tuned_size_and_cuda_graphs(bundle, bin_folder):
    expected = (
        "trtexec --loadEngine={} --shapes=image:1x3x256x256,mask:1x1x256x256 --useCudaGraph "
        "--allocationStrategy=runtime --useSpinWait"
    )
    assert run(write(bundle), bin_folder).stdout.splitlines()[-1].endswith(expected.format("trtexec.engine"))
    command(bin_folder / "glama-build", "exit 0")
    assert run(write(bundle), bin_folder).stdout.splitlines()[-1].endswith(expected.format("tensorrt/model.engine"))


def test_a_trtexec_that_the_system_kills_is_explained(bundle, bin_folder):
    command(bin_folder / "trtexec", '[ "$1" = --help ] || kill -9 $$')
    done = run(write(bundle), bin_folder)
    assert done.returncode == 137
    assert "the system killed trtexec, as Linux does where memory is short" in done.stderr


def test_a_trtexec_that_fails_or_writes_nothing_is_an_error(bundle, bin_folder):
    command(bin_folder / "trtexec", "exit 7")
    assert run(write(bundle), bin_folder).returncode == 7
    command(bin_folder / "trtexec", "exit 0")
    done = run(write(bundle), bin_folder)
    assert (done.returncode, "wrote no engine" in done.stderr) == (1, True)


def test_a_static_graph_has_shapes_that_differ_in_the_batch_only(tiny, make_bundle):
    text = format_script(make_bundle(tiny, ("onnx",), size=(64, 96)).manifest, SIZES)
    assert "--minShapes=image:1x3x64x96,mask:1x1x64x96" in text
    assert "--maxShapes=image:2x3x64x96,mask:2x1x64x96" in text
    assert "--profile=1" not in text


def bytes_in(bundle: Bundle, *sides: str | int, batch: str | int = "batch") -> Any:
    """The manifest of a bundle that takes uint8 images."""
    image, mask = (
        Tensor(name=name, dtype="uint8", layout=layout, shape=shape, range=(0, 255), meaning="")
        for name, layout, shape in (("image", "NHWC", (batch, *sides, 3)), ("mask", "NHW", (batch, *sides)))
    )
    return bundle.manifest.model_copy(update={"io": "uint8", "inputs": (image, mask)})


def test_shapes_follow_the_layout(bundle):
    text = format_script(bytes_in(bundle, "height", "width"), SIZES)
    assert "--optShapes=image:1x256x256x3,mask:1x256x256" in text


def test_a_graph_with_fixed_shapes_gets_no_shapes(bundle):
    assert "Shapes=" not in format_script(bytes_in(bundle, 64, 64, batch=1), SIZES)


def test_a_bundle_with_a_plugin_is_not_for_trtexec(bundle):
    with pytest.raises(EngineError, match=r"trtexec cannot load this bundle's plugin; build with `build\(BUNDLE"):
        format_script(bundle.manifest.model_copy(update={"fft": "plugin"}))


class BuiltEngine:
    """What TensorRT says of an engine with two profiles that trtexec built from a bundle's graph."""

    num_optimization_profiles = 2
    num_io_tensors = 4

    def __init__(self, high: int = 512, names: tuple[str, ...] = ("image", "mask", "inpainted", "predicted")) -> None:
        self._tops, self._names = (192, high), names

    def get_tensor_name(self, index: int) -> str:
        return self._names[index]

    def get_tensor_dtype(self, name: str) -> Any:
        return SimpleNamespace(name="FLOAT")

    def get_tensor_profile_shape(self, name: str, index: int) -> list[tuple[int, ...]]:
        top = self._tops[index]
        return [(1, 3, 64, 64), (1, 3, 128, 128), (2, 3, top, top)]


@pytest.fixture
def load(monkeypatch) -> Any:
    """A function that makes this a device whose TensorRT loads the given engine from any file."""

    def use(engine: BuiltEngine | None) -> None:
        class Runtime:
            def __init__(self, logger: object) -> None:
                self.engine_host_code_allowed = False

            def deserialize_cuda_engine(self, data: bytes) -> BuiltEngine | None:
                return engine

        class Logger:
            ERROR = 0

            def __init__(self, level: int) -> None: ...

        package = SimpleNamespace(Runtime=Runtime, Logger=Logger, __version__="10.3.0")
        monkeypatch.setattr(register, "require", lambda *arguments: package)
        monkeypatch.setattr(gpus, "find_local_capability", lambda: "8.7")

    return use


@pytest.fixture
def engine_file(tmp_path) -> Path:
    (tmp_path / "trtexec.engine").write_bytes(np.arange(1000).tobytes())
    return tmp_path / "trtexec.engine"


def test_an_engine_of_trtexec_is_registered_with_its_own_profiles(bundle, engine_file, load):
    load(BuiltEngine())
    settings = BuildSettings(optimization_level=4)
    register_engine(bundle, "trt", engine_file, None, Options(settings))
    opened = Bundle.open(bundle.path)
    engine = opened.manifest.engines["tensorrt"]
    (path,) = opened.files("tensorrt")  # its hash is right
    assert path.read_bytes() == engine_file.read_bytes()
    assert engine.versions == {"tensorrt": "10.3.0"}
    assert engine.compute_capabilities == ("8.7",)
    assert [profile.max for profile in engine.profiles] == [(192, 192), (512, 512)]
    assert (engine.sizes.max, engine.sizes.max_batch) == ((512, 512), 2)
    assert (engine.precision, engine.settings) == ("fp32", settings)
    assert not engine.parity.measured


@pytest.mark.parametrize(
    ("engine", "says"),
    [
        (None, r"TensorRT 10\.3\.0 cannot open .* on this GPU; build the engine here"),
        (BuiltEngine(names=("x", "mask", "inpainted", "predicted")), "this bundle's graph has image FLOAT"),
        (BuiltEngine(high=516), "has a profile that the runtime cannot use"),
        (BuiltEngine(high=128), "of which the last does not take all sizes"),
    ],
)
def test_a_refused_engine_leaves_the_bundle_as_it_was(bundle, engine_file, load, engine, says):
    load(engine)
    before = (bundle.path / "manifest.json").read_bytes()
    with pytest.raises(GlamaError, match=says):
        register_engine(bundle, "trt", engine_file)
    assert (bundle.path / "manifest.json").read_bytes() == before
    assert not (bundle.path / "tensorrt").exists()


def test_only_tensorrts_engines_are_registered(bundle, engine_file, tmp_path):
    with pytest.raises(
        GlamaError, match="`engine` takes an engine of TensorRT, the target is trt-rtx; give `target=trt`"
    ):
        register_engine(bundle, "trt-rtx", engine_file)
    with pytest.raises(GlamaError, match=r"`engine=.*missing` is not a file; give the engine that trtexec wrote"):
        register_engine(bundle, "trt", tmp_path / "missing")


def test_an_engine_is_registered_only_on_a_machine_that_can_load_it(bundle, engine_file, monkeypatch):
    monkeypatch.setattr(gpus, "find_local_capability", lambda: None)
    with pytest.raises(EngineError, match="registered on the device that runs it"):
        register_engine(bundle, "trt", engine_file)
