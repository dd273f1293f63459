"""`make gpu-check`: over a simulated driver and a stand-in for trtexec, and on a machine without a GPU."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fakes.cuda_runtime import MemoryRuntime
from fakes.tensorrt_bundles import with_engine
from fakes.tensorrt_runtime import MemoryTensorRT
from glama_deploy.benchmarks.gpu_check import __main__ as gpu_check
from glama_deploy.benchmarks.gpu_check import checks
from glama_deploy.benchmarks.gpu_check.accuracy import Accuracy, Comparison, compare_engine
from glama_deploy.benchmarks.gpu_check.checks import check_accuracy, read_trtexec_times, run_tests
from glama_deploy.benchmarks.gpu_check.report import Check, Report, format_markdown
from glama_deploy.benchmarks.gpu_check.session import Failed, NotRun, Ran, Session, run_check
from glama_deploy.bundle import Bundle, SizeRange
from glama_deploy.catalogue import TENSORRT, TENSORRT_RTX
from glama_deploy.runtime.cuda.cuda_python import CudaPythonDevice
from glama_deploy.runtime.tensorrt import runner as tensorrt

SMALL = SizeRange(min=(64, 64), opt=(64, 64), max=(96, 96), max_batch=2)
LARGE = SizeRange(min=(64, 64), opt=(128, 128), max=(160, 192), max_batch=2)

#: Lines that trtexec 10 prints.
SUMMARY = """\
[11/30/2026-10:00] [I] Throughput: 2699.06 qps
[11/30/2026-10:00] [I] Latency: min = 0.36 ms, max = 0.52 ms, mean = 0.37 ms, median = 0.372 ms
[11/30/2026-10:00] [I] H2D Latency: min = 0.01 ms, max = 0.02 ms, mean = 0.011 ms, median = 0.0115 ms
[11/30/2026-10:00] [I] GPU Compute Time: min = 0.33 ms, max = 0.48 ms, mean = 0.35 ms, median = 0.348 ms
[11/30/2026-10:00] [I] D2H Latency: min = 0.011 ms, max = 0.016 ms, mean = 0.0125 ms, median = 0.0124 ms
"""

#: Builds an engine for TensorRT in memory, whose engines are ONNX models; with --loadEngine it measures.
TRTEXEC = f"""#!/bin/sh
for argument; do
    case $argument in
        --onnx=*) graph=${{argument#--onnx=}} ;;
        --saveEngine=*) engine=${{argument#--saveEngine=}} ;;
        --loadEngine=*) test -s "${{argument#--loadEngine=}}" || exit 1; cat <<'END'
{SUMMARY}END
            exit ;;
        --help) exit ;;
    esac
done
cp "$graph" "$engine"
"""

#: What every Python process of the simulated machine runs at its start.
MACHINE = """
import sys
sys.path.insert(0, {tests!r})
from fakes.cuda_runtime import MemoryRuntime
from fakes.tensorrt_runtime import MemoryTensorRT
from glama_deploy.bundle import SizeRange
from glama_deploy.engines.tensorrt import gpus
from glama_deploy.runtime.cuda.cuda_python import CudaPythonDevice
runtime = MemoryRuntime()
profiles = tuple(SizeRange.model_validate_json(text) for text in {profiles!r})
sys.modules["tensorrt"] = MemoryTensorRT(runtime, profiles).module("tensorrt", "10.3.0")
gpus.find_local_capability = lambda: "8.9"
open_device = CudaPythonDevice.__init__
CudaPythonDevice.__init__ = lambda self, api=None, index=None: open_device(self, api or runtime, index)
"""


def make_session(tmp_path: Path, bundle: Bundle, record=TENSORRT) -> Session:
    for name in ("out", "work"):
        (tmp_path / name).mkdir()
    return Session(bundle, record, tmp_path / "out", tmp_path / "work", 10, lambda text: None)


@pytest.mark.without_gpu
def test_a_machine_without_a_gpu_gives_one_line_and_exit_code_4(tmp_path):
    command = [sys.executable, "-m", "glama_deploy.benchmarks.gpu_check"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 4
    assert re.fullmatch(r"gpu-check: nothing was checked: no NVIDIA driver .*\n", done.stderr)
    assert not done.stdout
    assert not list(tmp_path.iterdir())


def test_a_wrong_model_is_named_before_a_gpu_is_looked_for(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu_check, "open_device", lambda: pytest.fail("the model is judged first"))
    (tmp_path / "empty").mkdir()
    for name, says in (("nothere", "does not exist; give a bundle"), ("empty", "is not a bundle; export the ch")):
        assert gpu_check.main(["--model", str(tmp_path / name)]) == 2
        assert capsys.readouterr().err.startswith(f"gpu-check: --model {tmp_path / name} {says}")


@pytest.mark.slow
def test_every_check_runs_though_the_first_build_fails(tiny, make_bundle, tmp_path, monkeypatch):
    """TensorRT in memory cannot build, so glama-build fails; the engine of the stand-in for trtexec is then checked."""
    tests, profiles = str(Path(__file__).parents[1]), [profile.model_dump_json() for profile in (SMALL, LARGE)]
    (tmp_path / "sitecustomize.py").write_text(MACHINE.format(tests=tests, profiles=profiles))
    trtexec = tmp_path / "trtexec"
    trtexec.write_text(TRTEXEC)
    trtexec.chmod(0o755)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("TRTEXEC", str(trtexec))
    runtime = MemoryRuntime()
    module = MemoryTensorRT(runtime, (SMALL, LARGE)).module("tensorrt", "10.3.0")
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    monkeypatch.setattr(gpu_check, "open_device", lambda: CudaPythonDevice(runtime))

    def find_no_checkout() -> Path:
        raise NotRun("the tests are only in a checkout")

    monkeypatch.setattr(checks, "find_checkout", find_no_checkout)
    out, bundle = tmp_path / "out", make_bundle(tiny, ("onnx",))
    assert gpu_check.main(["--out", str(out), "--model", str(bundle.path), "--runs", "10", "--target", "trt"]) == 1
    report = Report.model_validate_json((out / "report.json").read_text())
    assert (report.gpu, report.target) == ("Memory GPU", "trt")
    found = {check.name: check for check in report.checks}
    assert {name: check.state for name, check in found.items()} == {
        "environment": "passed",
        "build with glama-build": "failed",
        "build with trtexec": "passed",
        "build with --profiles one": "failed",
        "accuracy, glama-build": "not run",
        "accuracy, trtexec": "passed",
        "accuracy, --profiles one": "not run",
        "speed with glama-bench": "passed",
        "speed with trtexec": "passed",
        "tests marked gpu": "not run",
    }, {name: check.reason for name, check in found.items()}
    assert found["environment"].figures["engine"].startswith("TensorRT 10.3.0")
    runs = [f"{size}, {run}" for size in ("64x64", "128x128") for run in ("plain", "replay", "after eviction")]
    assert list(found["accuracy, trtexec"].figures) == [*runs, "left out"]
    assert found["accuracy, trtexec"].figures["left out"] == "nothing"
    speed = found["speed with glama-bench"].figures
    assert list(speed) == ["64x64", "128x128"]
    assert "compute 5.00 ms" in speed["64x64"]  # by the clock of the simulated driver
    assert "GPU Compute Time 0.348 ms" in found["speed with trtexec"].figures["128x128"]
    logs = {check.log for check in report.checks if check.log}
    assert {path.name for path in out.iterdir()} == {"report.md", "report.json", "trtexec-64x64.log", *logs}
    assert (out / "trtexec-128x128.log").read_text().count("--useProfile=1") == 1
    text = (out / "report.md").read_text()
    assert "5 passed, 2 failed, 3 not run." in text
    assert "| accuracy, glama-build | not run: there is no engine that was built with glama-build |" in text


@pytest.fixture
def compare(tiny_bundle, monkeypatch):
    """A function that compares an engine in memory, whose faults are given, with ONNX Runtime."""

    def run(*, profiles: tuple[SizeRange, ...] = (SMALL, LARGE), **faults: object):
        runtime = MemoryRuntime()
        module = MemoryTensorRT(runtime, profiles, **faults).module("tensorrt", "10.3.0")
        monkeypatch.setitem(sys.modules, "tensorrt", module)
        monkeypatch.setattr(tensorrt, "open_device", lambda index: CudaPythonDevice(runtime, index))
        found = compare_engine(with_engine(tiny_bundle, profiles=profiles), "tensorrt")
        assert not runtime.leaked
        return found

    return run


def test_a_right_engine_passes_plain_replayed_and_after_eviction(compare):
    found = compare()
    assert found.passed
    assert len(found.comparisons) == 2 * 3
    assert max(each.max_abs_error for each in found.comparisons) < 1e-6  # one program on one CPU runs both


def test_a_wrong_profile_and_a_wrong_replay_are_found_where_they_are(compare):
    wrong = [each for each in compare(wrong_profiles=(1,)).comparisons if not each.passed]
    assert {each.size for each in wrong} == {(128, 128)}
    assert len(wrong) == 3
    wrong = [each for each in compare(wrong_replays=True).comparisons if not each.passed]
    assert {each.run for each in wrong} == {"replay"}


def test_an_engine_of_one_size_is_not_evicted_and_says_so(compare):
    one = SizeRange(min=(64, 64), opt=(64, 64), max=(64, 64), max_batch=1)
    found = compare(profiles=(one,))
    assert [each.run for each in found.comparisons] == ["plain", "replay"]
    assert found.left_out == ("64x64, after eviction: the engine takes too few other sizes",)


def test_an_engine_that_is_judged_as_a_whole_fails_by_its_psnr(tiny_bundle, tmp_path, monkeypatch):
    session = make_session(tmp_path, tiny_bundle)
    session.built["trtexec"] = tiny_bundle.path
    far = Comparison(size=(64, 64), run="replay", max_abs_error=0.25, psnr=31.5, tolerance="40dB", passed=False)
    printed = Accuracy(comparisons=(far,), left_out=()).model_dump_json()
    monkeypatch.setattr(session, "run", lambda *told: Ran(1, printed, "accuracy.log", ""))
    with pytest.raises(Failed, match=r"^beyond the bound of 40dB at 64x64, replay: largest error 0.25, PSNR 31.5 dB$"):
        check_accuracy(session, "trtexec")


def test_trtexecs_medians_are_read():
    assert read_trtexec_times(SUMMARY) == (
        "Latency 0.372 ms, H2D Latency 0.0115 ms, GPU Compute Time 0.348 ms, D2H Latency 0.0124 ms"
    )
    assert read_trtexec_times("[I] Latency: unknown") == ""


@pytest.mark.parametrize(
    ("code", "lines", "state", "reason"),
    [
        (0, ["12 passed, 3 deselected in 9 s"], "passed", ""),
        (1, ["FAILED tests/runtime/x.py", "1 failed, 11 passed in 9 s"], "failed", "1 failed, 11 passed in 9 s"),
        (5, ["3 deselected in 1 s"], "failed", "3 deselected in 1 s"),  # pytest ran no test
        (0, ["SKIPPED [2] tests/x.py:1: TensorRT-RTX is not installed", "12 passed, 2 skipped"], "passed", ""),
        (
            0,
            ["SKIPPED [2] x.py:1: no NVIDIA driver or GPU here", "2 skipped"],
            "failed",
            "tests found no GPU",
        ),
    ],
)
def test_a_test_that_finds_no_gpu_is_a_failure(tiny_bundle, tmp_path, monkeypatch, code, lines, state, reason):
    session = make_session(tmp_path, tiny_bundle)
    monkeypatch.setattr(session, "run", lambda *told, **named: Ran(code, "\n".join(lines), "pytest.log", lines[-1]))
    found = run_check(session, "tests", run_tests)
    assert found.state == state
    assert found.reason.startswith(reason)


@pytest.mark.parametrize(
    ("error", "state", "reason"),
    [
        (NotRun("no trtexec"), "not run", "no trtexec"),
        (Failed("too far"), "failed", "too far"),
        (KeyError("rows"), "failed", "KeyError: 'rows'"),
    ],
)
def test_a_check_that_ends_with_an_error_has_a_result(tiny_bundle, tmp_path, error, state, reason):
    def fail(session: Session) -> dict[str, object]:
        raise error

    found = run_check(make_session(tmp_path, tiny_bundle), "x", fail)
    assert (found.state, found.reason) == (state, reason)


def test_a_command_leaves_a_log_of_its_line_its_output_and_its_code(tiny_bundle, tmp_path):
    session = make_session(tmp_path, tiny_bundle)
    program = "import os, sys; print(os.environ['X']); print('why', file=sys.stderr); sys.exit(3)"
    ran = session.run("log", [sys.executable, "-c", program], X="told")
    assert (ran.code, ran.out, ran.last) == (3, "told\n", "why")
    text = (session.out / ran.log).read_text()
    assert text.startswith("$ ")
    assert text.endswith("told\nwhy\n\nexit code 3\n")


def test_trtexec_and_profiles_are_checked_for_tensorrt_alone(tiny_bundle, tmp_path):
    session = make_session(tmp_path, tiny_bundle, TENSORRT_RTX)
    for check in (checks.build_with_trtexec, checks.build_one_profile, checks.measure_with_trtexec):
        found = run_check(session, "x", check)
        assert found.state == "not run"
        assert TENSORRT_RTX.title in found.reason


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--model", "/no/such"], "--model /no/such does not exist; give a bundle"),
        (["--runs", "0"], "--runs is 0; a number of at least 1 is expected"),
        (["--out", "/"], "exists and is not an empty folder"),
    ],
)
def test_bad_input_gives_one_line_and_exit_code_2(arguments, says, monkeypatch, capsys):
    monkeypatch.setattr(gpu_check, "open_device", lambda: CudaPythonDevice(MemoryRuntime()))
    monkeypatch.setitem(sys.modules, "tensorrt", MemoryTensorRT(MemoryRuntime(), (SMALL,)).module("tensorrt", "10.3.0"))
    assert gpu_check.main(arguments) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1


def test_a_gpu_without_tensorrt_gives_exit_code_4(monkeypatch, capsys):
    monkeypatch.setattr(gpu_check, "open_device", lambda: CudaPythonDevice(MemoryRuntime()))
    monkeypatch.setattr(gpu_check, "installed", lambda package: False)
    assert gpu_check.main([]) == 4
    assert "nothing was checked: TensorRT or TensorRT-RTX is not installed" in capsys.readouterr().err


def test_the_markdown_keeps_its_tables_whole():
    check = Check(name="x", state="failed", reason="a | b\nc", figures={"max": np.float64(1).item()})
    report = Report(date="d", gpu="g", target="t", model="m", machine={"CPU": "a|b"}, checks=(check,))
    text = format_markdown(report)
    assert "| x | failed: a \\| b c | 0 |  |" in text
    assert "| CPU | a\\|b |" in text
    assert json.loads(report.model_dump_json())["checks"][0]["figures"] == {"max": 1.0}
    assert os.linesep not in text.split("| x |")[1].split("|  |")[0]
