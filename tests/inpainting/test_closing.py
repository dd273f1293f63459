"""An inpainter that is closed, pickled, or found in a forked process."""

from __future__ import annotations

import gc
import pickle
import subprocess
import sys
import threading
import weakref

import numpy as np
import pytest

import glama_deploy
from glama_deploy.errors import EngineError
from glama_deploy.inpainting.inpainter import Inpainter


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime", "torch"])
def test_a_closed_inpainter_lets_go_of_its_engine_and_refuses_calls(tiny_bundle, tiny, photo, hole, backend):
    with glama_deploy.load(tiny if backend == "torch" else tiny_bundle.path, backend) as inpainter:
        inpainter(photo, hole)
        runner = weakref.ref(inpainter._runner)
    gc.collect()
    assert runner() is None
    inpainter.close()
    calls = [
        lambda: inpainter(photo, hole),
        lambda: inpainter.predict(photo, hole),
        lambda: inpainter.batch(photo[None], hole[None]),
        lambda: inpainter.description,
        lambda: inpainter.__enter__(),
        lambda: pickle.dumps(inpainter),
    ]
    for call in calls:
        with pytest.raises(EngineError, match=r"is closed; open the model again"):
            call()


def test_closing_waits_for_the_calls_of_other_threads(tiny_bundle, photo, hole):
    inpainter = glama_deploy.load(tiny_bundle.path, "openvino")
    runner = inpainter._runner
    plain, inside, goes_on = runner.run_window, threading.Event(), threading.Event()

    def run(*arguments: object) -> np.ndarray:
        inside.set()
        goes_on.wait()
        return plain(*arguments)

    runner.run_window = run
    results: list[np.ndarray] = []
    caller = threading.Thread(target=lambda: results.append(inpainter(photo, hole)))
    caller.start()
    inside.wait()
    closer = threading.Thread(target=inpainter.close)
    closer.start()
    while not inpainter._is_closing:
        pass
    with pytest.raises(EngineError, match="is closed"):
        inpainter(photo, hole)
    assert closer.is_alive()
    goes_on.set()
    caller.join()
    closer.join()
    np.testing.assert_array_equal(results[0][~hole], photo[~hole])


def test_a_pickled_inpainter_is_opened_again_with_its_arguments(tiny_bundle, photo, hole, monkeypatch, tmp_path):
    monkeypatch.chdir(tiny_bundle.path.parent)
    inpainter = glama_deploy.load(tiny_bundle.path.name, "onnxruntime", threads=1)
    kept = pickle.dumps(inpainter)
    code = """
import pickle, sys, numpy
inpainter = pickle.load(sys.stdin.buffer)
image, mask = (numpy.load(name) for name in sys.argv[1:3])
numpy.save(sys.argv[3], inpainter(image, mask))
print(inpainter.backend)
"""
    np.save(tmp_path / "image.npy", photo)
    np.save(tmp_path / "mask.npy", hole)
    files = [tmp_path / name for name in ("image.npy", "mask.npy", "out.npy")]
    child = subprocess.run(
        [sys.executable, "-c", code, *files], input=kept, stdout=subprocess.PIPE, check=True, cwd="/"
    )
    assert child.stdout == b"onnxruntime\n"
    np.testing.assert_array_equal(np.load(files[2]), inpainter(photo, hole))


def test_an_inpainter_that_was_made_by_hand_is_not_pickled(tiny_bundle):
    opened = glama_deploy.load(tiny_bundle.path, "onnxruntime")
    with pytest.raises(EngineError, match=r"not opened by glama_deploy\.load, and cannot be pickled"):
        pickle.dumps(Inpainter(opened._runner, opened.network))


#: A process that has filled a picture forks. The child may not hang, in no call.
FORK = """
import multiprocessing, os, sys, warnings
import numpy, glama_deploy
image, mask = numpy.zeros((32, 32, 3), numpy.uint8), numpy.eye(32, dtype=bool)
inpainter = glama_deploy.load(*sys.argv[1:3])
inpainter(image, mask)
warnings.simplefilter("ignore")  # Python warns of a fork beside threads

def work(pipe):
    calls = [
        lambda: inpainter(image, mask),
        lambda: inpainter.predict(image, mask),
        lambda: inpainter.close(),
        lambda: glama_deploy.load(*sys.argv[1:3]),
    ]
    for call in calls:
        try:
            call()
            pipe.send("done")
        except glama_deploy.EngineError as error:
            pipe.send(str(error))

ours, theirs = multiprocessing.Pipe()
child = multiprocessing.get_context("fork").Process(target=work, args=(theirs,))
child.start()
child.join()
assert child.exitcode == 0, child.exitcode
for _ in range(4):
    print(ours.recv())
inpainter(image, mask)  # the parent goes on
"""


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime", "torch"])
def test_a_forked_process_is_refused_in_one_line_and_does_not_hang(tiny_bundle, tiny, backend):
    model = tiny if backend == "torch" else tiny_bundle.path
    child = subprocess.run([sys.executable, "-c", FORK, model, backend], capture_output=True, text=True, timeout=600)
    assert child.returncode == 0, child.stderr
    lines = child.stdout.splitlines()
    assert len(lines) == 4
    assert all("this process was forked after its parent had opened an engine" in line for line in lines)


def test_a_forked_process_whose_parent_opened_nothing_works(tiny_bundle):
    code = FORK.replace("inpainter = glama_deploy.load(*sys.argv[1:3])\ninpainter(image, mask)\n", "")
    code = code.replace("lambda: inpainter(image, mask),\n        lambda: inpainter.predict(image, mask),\n", "")
    code = code.replace("        lambda: inpainter.close(),\n", "").replace("range(4)", "range(1)")
    code = code.replace("inpainter(image, mask)  # the parent goes on\n", "")
    child = subprocess.run([sys.executable, "-c", code, tiny_bundle.path, "openvino"], capture_output=True, text=True)
    assert (child.returncode, child.stdout) == (0, "done\n"), child.stderr
