"""The checks of `make gpu-check`. Each runs commands of this project or of TensorRT."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from glama_deploy import benchmarks
from glama_deploy.benchmarks.gpu_check.accuracy import Accuracy, Comparison
from glama_deploy.benchmarks.gpu_check.session import MAX_REASON, CheckFunction, Failed, NotRun, Session
from glama_deploy.bundle import DEFAULT_PROFILE, Bundle, Size
from glama_deploy.bundle_folder import SCRIPT
from glama_deploy.catalogue import TENSORRT
from glama_deploy.doctor.report import Diagnosis
from glama_deploy.engines.tensorrt.build_script import format_script
from glama_deploy.engines.tensorrt.options import Options
from glama_deploy.runtime.cuda.driver import find_driver_version
from glama_deploy.system.power import describe_power

#: Where Debian's packages of TensorRT put trtexec.
_TRTEXEC = "/usr/src/tensorrt/bin/trtexec"

#: The start of the reason for which tests of a GPU are skipped on a machine without one.
_NO_GPU_SKIP = "no NVIDIA driver"

#: The packages whose versions are reported, beside those of glama-doctor.
_PACKAGES = ("tensorrt", "cuda-python", "pycuda", "polygraphy", "numpy", "onnxruntime")


#: The two ways to build an engine, and the build with one optimization profile.
GLAMA_BUILD, TRTEXEC_BUILD, ONE_PROFILE = "glama-build", "trtexec", "--profiles one"


def list_checks() -> Iterator[tuple[str, CheckFunction]]:
    """List all checks.

    Yields:
        The name of a check, and its function.
    """
    yield "environment", check_environment
    yield f"build with {GLAMA_BUILD}", build_with_glama
    yield f"build with {TRTEXEC_BUILD}", build_with_trtexec
    yield f"build with {ONE_PROFILE}", build_one_profile
    for way in (GLAMA_BUILD, TRTEXEC_BUILD, ONE_PROFILE):
        yield f"accuracy, {way}", partial(check_accuracy, way=way)
    yield "speed with glama-bench", measure_with_glama
    yield "speed with trtexec", measure_with_trtexec
    yield "tests marked gpu", run_tests


def check_environment(session: Session) -> dict[str, Any]:
    """Check that the engine's package and the GPU work, and read the versions.

    Args:
        session: the run of all checks.

    Returns:
        Versions, and what limits the clocks.

    Raises:
        Failed: the engine does not run here.
    """
    ran = session.run_glama("doctor", "doctor", "--json")
    try:
        found = Diagnosis.model_validate_json(ran.out)
    except ValueError as error:
        raise Failed(f"glama doctor printed no report: {ran.last}") from error
    (engine,) = [engine for engine in found.engines if engine.name == session.record.name]
    if not engine.runs:
        raise Failed(f"{session.record.title} does not run: {engine.reason}")
    driver = find_driver_version()
    supported = "unknown" if driver is None else ".".join(map(str, driver))
    return {"engine": engine.description, "CUDA of the driver": supported, **describe_power(), **_read_versions()}


def _read_versions() -> dict[str, str]:
    """Return the versions that importlib knows. JetPack's own package of TensorRT is known by glama-doctor."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def build_with_glama(session: Session) -> dict[str, Any]:
    """Build with glama-build, which runs the engine at the corners of each profile.

    Args:
        session: the run of all checks.

    Returns:
        The device check.

    Raises:
        Failed: the build fails.
    """
    return _build(session, GLAMA_BUILD, "glama-build", "--report")


def build_one_profile(session: Session) -> dict[str, Any]:
    """Build with one optimization profile, where the usual build has several.

    Args:
        session: the run of all checks.

    Returns:
        The device check.

    Raises:
        NotRun: the usual build has one profile.
        Failed: the build fails.
    """
    if session.source.sizes.static:
        raise NotRun("the bundle is of one size")
    if session.record is not TENSORRT:
        raise NotRun(f"{session.record.title} builds one profile anyway")
    return _build(session, ONE_PROFILE, "glama-build-one-profile", *ONE_PROFILE.split())


def _build(session: Session, way: str, name: str, *options: str) -> dict[str, Any]:
    folder = session.copy_bundle(name)
    ran = session.run_glama(name, "build", str(folder), "--target", session.record.target, *options)
    if ran.code:
        raise Failed(ran.last)
    session.built[way] = folder
    return _describe_engine(session, folder)


def _describe_engine(session: Session, folder: Path) -> dict[str, Any]:
    """Return the profiles of an engine, and what its build measured."""
    engine = Bundle.open(folder).manifest.engines[session.record.name]
    check = engine.device_check
    found: dict[str, Any] = {
        "precision": engine.precision,
        "profiles": "; ".join(map(str, engine.profiles or (engine.sizes,))),
        "bytes": sum(file.bytes for file in engine.files),
    }
    if check is not None and check.measured:
        found |= {"largest error": check.max_abs_error, "PSNR": check.psnr, "worst": check.worst}
        found |= {"sizes": "; ".join(check.cases), "not checked": "; ".join(check.not_checked) or "none"}
    elif check is not None:
        found["not checked"] = check.reason
    return found


def build_with_trtexec(session: Session) -> dict[str, Any]:
    """Build with build.sh and trtexec, which registers the engine with glama-build.

    Args:
        session: the run of all checks.

    Returns:
        The device check.

    Raises:
        NotRun: there is no trtexec, or the target is not TensorRT.
        Failed: the build or the registration fails.
    """
    if session.record is not TENSORRT:
        raise NotRun(f"trtexec builds for {TENSORRT.title}, not for {session.record.title}")
    trtexec = find_trtexec()
    folder = session.copy_bundle("build-sh")
    script = folder / SCRIPT
    if not script.is_file():
        manifest, asked = session.source.manifest, session.source.manifest.asked
        options = Options(settings=asked.settings, profiles=asked.profiles) if asked else Options()
        script.write_text(format_script(manifest, asked.sizes if asked else DEFAULT_PROFILE, options), encoding="utf-8")
    # build.sh calls the glama-build of this environment
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    ran = session.run("build-sh", ["sh", str(script)], folder, TRTEXEC=trtexec, PATH=path)
    if ran.code:
        raise Failed(ran.last)
    session.built[TRTEXEC_BUILD] = folder
    return _describe_engine(session, folder)


def find_trtexec() -> str:
    """Find trtexec, by the variable TRTEXEC, on PATH, or where Debian's packages put it.

    Returns:
        The path.

    Raises:
        NotRun: there is none.
    """
    for place in (os.environ.get("TRTEXEC"), "trtexec", _TRTEXEC):
        if place and (found := shutil.which(place)):
            return str(Path(found).absolute())
    raise NotRun(f"trtexec is neither in TRTEXEC nor on PATH nor at {_TRTEXEC}; sudo apt install libnvinfer-bin")


def check_accuracy(session: Session, way: str) -> dict[str, Any]:
    """Compare an engine with ONNX Runtime at the tuned size of each profile.

    Args:
        session: the run of all checks.
        way: the way the engine was built.

    Returns:
        The largest error and the PSNR of each comparison.

    Raises:
        NotRun: there is no such engine.
        Failed: an output is beyond the bound, or the engine does not run.
    """
    folder, name = session.find_built(way), way.replace(" ", "-").strip("-")
    module = [sys.executable, "-m", "glama_deploy.benchmarks.gpu_check.accuracy"]
    ran = session.run(f"accuracy-{name}", [*module, str(folder), session.record.name])
    if ran.code not in (0, 1):
        raise Failed(ran.last)
    found = Accuracy.model_validate_json(ran.out)
    lines = {f"{each.size[0]}x{each.size[1]}, {each.run}": each for each in found.comparisons}
    missed = [f"{line}: {_format_errors(each)}" for line, each in lines.items() if not each.passed]
    if missed:
        bound = found.comparisons[0].tolerance
        raise Failed(f"beyond the bound of {bound} at {'; '.join(missed)}")
    if not lines:
        raise NotRun("; ".join(found.left_out))
    figures = {line: _format_errors(each) for line, each in lines.items()}
    return {**figures, "left out": "; ".join(found.left_out) or "nothing"}


def _format_errors(found: Comparison) -> str:
    psnr = "identical" if found.psnr is None else f"PSNR {found.psnr:.1f} dB"
    return f"largest error {found.max_abs_error:.2g}, {psnr}"


def measure_with_glama(session: Session) -> dict[str, Any]:
    """Measure the engine with glama-bench, at the tuned size of each profile.

    Args:
        session: the run of all checks.

    Returns:
        The percentiles of each size, by part, in seconds.

    Raises:
        NotRun: no engine was built.
        Failed: a size was not measured.
    """
    folder = _find_any_built(session)
    options = ["--subject", session.record.backend, "--runs", str(session.runs), "--json"]
    ran = session.run_glama("glama-bench", "bench", "--model", str(folder), *options)
    if ran.code:
        raise Failed(ran.last)
    rows = json.loads(ran.out)["rows"]
    if missing := [row for row in rows if not row["seconds"]]:
        raise Failed("; ".join(f"{row['size'][0]}x{row['size'][1]}: {row['reason']}" for row in missing))
    return {f"{row['size'][0]}x{row['size'][1]}": _format_row(row) for row in rows}


def _format_row(row: dict[str, Any]) -> str:
    parts = [f"{part} {1000 * times['p50']:.2f} ms" for part, times in row["latency"].items()]
    parts += [f"{name} {1000 * value:.2f} ms" for name, value in row["latency"]["total"].items() if value is not None]
    parts.append(f"{row['images_per_second']:.3g} images/s")
    return ", ".join(parts)


def _find_any_built(session: Session) -> Path:
    """Return the first bundle with an engine. Raises NotRun without one."""
    if not session.built:
        raise NotRun("no engine was built")
    return next(iter(session.built.values()))


def measure_with_trtexec(session: Session) -> dict[str, Any]:
    """Measure the same engine with trtexec, at the tuned size of each profile, as CUDA graphs.

    Args:
        session: the run of all checks.

    Returns:
        trtexec's lines of latency and GPU time of each size.

    Raises:
        NotRun: there is no trtexec, or no engine of TensorRT.
        Failed: trtexec fails.
    """
    if session.record is not TENSORRT:
        raise NotRun(f"trtexec runs engines of {TENSORRT.title}, not of {session.record.title}")
    trtexec, folder = find_trtexec(), _find_any_built(session)
    bundle = Bundle.open(folder)
    engine = bundle.manifest.engines[session.record.name]
    (file,) = engine.files
    figures = {}
    for index, profile in enumerate(engine.profiles or (engine.sizes,)):
        shown = f"{profile.opt[0]}x{profile.opt[1]}"
        command = [trtexec, f"--loadEngine={folder / file.path}", f"--useProfile={index}"]
        command += _list_shapes(bundle, profile.opt)
        command += ["--useCudaGraph", "--allocationStrategy=runtime", "--useSpinWait"]
        ran = session.run(f"trtexec-{shown}", command)
        if ran.code:
            raise Failed(f"{shown}: {ran.last}")
        figures[shown] = read_trtexec_times(ran.out) or "see the log"
    return figures


def _list_shapes(bundle: Bundle, size: Size) -> list[str]:
    inputs = [tensor for tensor in bundle.manifest.inputs if any(isinstance(side, str) for side in tensor.shape)]
    shapes = [f"{each.name}:{'x'.join(map(str, each.shape_for(1, *size)))}" for each in inputs]
    return [f"--shapes={','.join(shapes)}"] if shapes else []


def read_trtexec_times(text: str) -> str:
    """Read the medians that trtexec prints.

    Args:
        text: what trtexec printed.

    Returns:
        The medians of the latency, of the copies and of the GPU's time; empty if none was found.
    """
    found = re.findall(r"\[I\] (Latency|H2D Latency|GPU Compute Time|D2H Latency): .*?median = ([\d.]+ ms)", text)
    return ", ".join(f"{name} {value}" for name, value in found)


def run_tests(session: Session) -> dict[str, Any]:
    """Run the tests that need a GPU. A test that is skipped because no GPU is found fails here.

    Args:
        session: the run of all checks.

    Returns:
        pytest's last line.

    Raises:
        NotRun: this is not a checkout with pytest.
        Failed: a test fails, or is skipped for want of a driver.
    """
    root = find_checkout()
    command = [sys.executable, "-m", "pytest", "-q", "-rs", "-m", "gpu", "tests/runtime", "tests/engines"]
    ran = session.run("pytest", command, root, OMP_NUM_THREADS="1")
    lines = ran.out.strip().splitlines()
    skipped = [line for line in lines if line.startswith("SKIPPED") and _NO_GPU_SKIP in line]
    if skipped:
        raise Failed(f"tests found no GPU: {skipped[0][:MAX_REASON]}")
    last = lines[-1] if lines else ran.last
    if ran.code:
        raise Failed(last)
    return {"tests": last}


def find_checkout() -> Path:
    """Find the checkout that this package is imported from.

    Returns:
        Its folder.

    Raises:
        NotRun: the package is installed elsewhere, or pytest is not installed.
    """
    root = Path(str(benchmarks.__file__)).absolute().parents[1]
    if not (root / "tests" / "runtime").is_dir():
        raise NotRun("the tests are only in a checkout; pip install -e '.[test]' there")
    try:
        version("pytest")
    except PackageNotFoundError as error:
        raise NotRun("pytest is not installed; pip install 'glama-deploy[export,test]'") from error
    return root
