"""Check this machine's GPU in one run, and write a report to send.

    python -m glama_deploy.benchmarks.gpu_check [--out FOLDER] [--model BUNDLE] [--target TARGET]

The run builds engines from copies of one bundle with glama-build and, where trtexec is found, with build.sh. It then
compares the engines with ONNX Runtime on the CPU, and measures their speed. In a checkout, it runs the tests that need
a GPU. PyTorch is not needed. Every check runs, even if an earlier one failed. The report is written after each check.

Exit codes: 0 no check failed; 1 a check failed, see the report; 2 bad input; 4 no GPU or no TensorRT here.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from datetime import datetime, timezone
from pathlib import Path

from glama_deploy.benchmarks.bench.machine import describe_machine
from glama_deploy.benchmarks.gpu_check.checks import list_checks
from glama_deploy.benchmarks.gpu_check.report import JSON, MARKDOWN, Report, write_report
from glama_deploy.benchmarks.gpu_check.session import Session, run_check
from glama_deploy.bundle import MANIFEST, Bundle
from glama_deploy.catalogue import TENSORRT, TENSORRT_RTX, EngineRecord, join_names
from glama_deploy.errors import GlamaError, NotBuiltError
from glama_deploy.io.files import check_path, check_writable
from glama_deploy.loading import cached_bundle
from glama_deploy.runtime.base import installed
from glama_deploy.runtime.cuda.device import open_device

#: The engines that can be checked, the preferred first.
_RECORDS = (TENSORRT, TENSORRT_RTX)

#: The name of the embedded network.
_EMBEDDED = "default"

_FAILED_EXIT_CODE = 1


def main(arguments: list[str] | None = None) -> int:
    """Run the checks.

    Args:
        arguments: the command line; None for that of the process.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(
        prog="gpu-check", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="folder of the report; by default gpu-check- with the time")
    parser.add_argument("--model", default=_EMBEDDED, help="a bundle, or 'default' for the embedded network")
    parser.add_argument("--target", choices=[record.target for record in _RECORDS], help="by default what is installed")
    parser.add_argument("--runs", type=int, default=200, help="timed runs of each size (200)")
    options = parser.parse_args(arguments)
    try:
        return check_gpu(
            options.out or Path(f"gpu-check-{datetime.now():%Y%m%d-%H%M%S}"),
            options.model,
            options.target,
            options.runs,
        )
    except GlamaError as error:
        print(f"gpu-check: {error}", file=sys.stderr)
        return error.exit_code


def check_gpu(out: Path, model: str, target: str | None, runs: int) -> int:
    """Run all checks, and write the report.

    Args:
        out: the folder of the report.
        model: a bundle, or `default`.
        target: the target of the engines; None for the first whose package is installed.
        runs: the number of timed runs.

    Returns:
        The exit code.

    Raises:
        NotBuiltError: there is no GPU or no TensorRT here.
        GlamaError: an argument cannot be used.
    """
    if runs < 1:
        raise GlamaError(f"--runs is {runs}; a number of at least 1 is expected")
    _check_model(model)
    gpu, record = _find_gpu(), _choose_engine(target)
    source = cached_bundle(model) if model == _EMBEDDED else Bundle.open(model)
    _prepare_folder(out)
    report = Report(
        date=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        gpu=gpu,
        target=record.target,
        model=model,
        machine=describe_machine(),
        checks=(),
    )
    with tempfile.TemporaryDirectory(prefix="bundles-", dir=out) as work:
        session = Session(source, record, out, Path(work), runs, lambda text: print(text, file=sys.stderr, flush=True))
        for name, function in list_checks():
            check = run_check(session, name, function)
            report = report.model_copy(update={"checks": (*report.checks, check)})
            write_report(report, out)
    print(f"written to {out}: please send this folder; {MARKDOWN} is for people, {JSON} for programs")
    return 0 if report.passed else _FAILED_EXIT_CODE


def _find_gpu() -> str:
    """Return the GPU's name."""
    try:
        device = open_device()
        with device.active():
            name = device.name()
        device.close()
    except GlamaError as error:
        raise NotBuiltError(f"nothing was checked: {error}") from error
    return name


def _choose_engine(target: str | None) -> EngineRecord:
    """Return the engine of a target, or the first whose package is installed."""
    wanted = [record for record in _RECORDS if target in (None, record.target)]
    for record in wanted:
        if installed(record.package):
            return record
    names = join_names((record.title for record in wanted), "or")
    raise NotBuiltError(f"nothing was checked: {names} is not installed; docs/tensorrt.md says how to install it")


def _check_model(model: str) -> None:
    """Raise GlamaError where the model is neither a bundle nor the embedded network, before a GPU is looked for."""
    if model == _EMBEDDED:
        return
    check_path(Path(model))
    if not Path(model).exists():
        raise GlamaError(f"--model {model} does not exist; give a bundle")
    if not (Path(model) / MANIFEST).is_file():
        raise GlamaError(f"--model {model} is not a bundle; export the checkpoint first (glama export)")


def _prepare_folder(out: Path) -> None:
    """Make the folder of the report. Raises GlamaError where it cannot be written, or has a report."""
    check_path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise GlamaError(f"--out {out} exists and is not an empty folder; give another one")
    check_writable(out)
    out.mkdir(parents=True, exist_ok=True)


if __name__ == "__main__":
    sys.exit(main())
