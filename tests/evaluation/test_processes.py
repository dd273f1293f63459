"""Evaluation in several processes."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys

import psutil
import pytest

from glama_deploy.errors import GlamaError
from glama_deploy.evaluation import methods, protocol
from glama_deploy.evaluation.evaluate import evaluate
from glama_deploy.evaluation.metrics.scores import Judge


def test_an_error_in_a_worker_process_is_raised_in_the_main_process(photos, tmp_path, monkeypatch, capfd, ask):
    """As it comes to lie between the opening here and there."""
    from glama_deploy.evaluation.methods import Spec, open_method
    from glama_deploy.evaluation.run import Setting, evaluate_items

    asked = evaluate(ask(photos, tmp_path / "out", "telea")).protocol
    setting = Setting(asked, (Spec("gone", str(tmp_path / "gone")),), {}, tmp_path)
    methods = [open_method(Spec("telea", "telea"), 1)]
    with pytest.raises(GlamaError, match="gone"):
        list(evaluate_items(setting, protocol.list_items(asked), 2, methods, Judge(("psnr",), {})))
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGKILL])
def test_worker_processes_end_when_the_main_process_ends(photos, tmp_path, ending, wait_until):
    folder = tmp_path / "photos"
    folder.mkdir()
    for n in range(60):
        shutil.copy(photos / "a.png", folder / f"{n:02}.png")
    arguments = ["--data", f"photos={folder}", "--model", "interpolation", "--processes", "2", "--out", tmp_path / "o"]
    arguments += ["--metric", "psnr"]
    # as in a terminal: what a shell starts in the background is made deaf to interrupts
    code = (
        "import signal\nfrom glama_deploy.cli.eval import main\n"
        "if __name__ == '__main__':\n    signal.signal(signal.SIGINT, signal.default_int_handler)\n    main()\n"
    )
    (tmp_path / "go.py").write_text(code)
    child = subprocess.Popen(
        [sys.executable, tmp_path / "go.py", *map(str, arguments)], stderr=subprocess.PIPE, text=True
    )
    records = tmp_path / "o" / "records.jsonl"
    wait_until(lambda: records.exists() and records.stat().st_size)
    workers = [p for p in psutil.Process(child.pid).children() if "spawn_main" in " ".join(p.cmdline())]
    assert len(workers) == 2
    child.send_signal(ending)
    _, said = child.communicate(timeout=600)
    _, alive = psutil.wait_procs(workers, timeout=600)
    assert not alive
    assert "Traceback" not in said
    if ending == signal.SIGINT:
        assert child.returncode == 130
        assert "interrupted" in said


def test_the_number_of_processes_is_limited_by_the_free_memory(photos, tmp_path, monkeypatch, ask):
    from glama_deploy.evaluation import run

    summary = evaluate(ask(photos, tmp_path / "out", "telea"))
    opened = [methods.open_method(methods.Spec("telea", "telea"), 1)]
    items = [item for item in protocol.list_items(summary.protocol) for _ in range(4)]
    monkeypatch.setattr(run, "count_processors", lambda: 8)
    for metric, gigabytes, expected in (("psnr", 64, 8), ("psnr", 3.5, 3), ("lpips-vgg", 7, 3), ("psnr", 0.1, 1)):
        monkeypatch.setattr(run.memory, "available", lambda free=gigabytes: int(free * 1e9))
        asked = summary.protocol.model_copy(update={"metrics": (metric,)})
        assert run.count_processes(items, asked, opened) == expected
    large = summary.protocol.model_copy(update={"metrics": ("spectrum",), "size": (5000, 5000)})  # 3.75 GB each
    monkeypatch.setattr(run.memory, "available", lambda: 10_000_000_000)
    assert run.count_processes(items, large, opened) == 2
