"""A small part of each campaign, for every run of the tests; `make fuzz`, `make soak` and `make kill` run the rest."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fuzz import campaign, kill, soak
from fuzz.case import SUBJECTS, Case, Wrong, load_subject
from fuzz.oracle import judge, message_fault
from glama_deploy.errors import GlamaError

#: Cases of each subject: about 10 seconds, most of which is the start of the child.
CASES = {"checkpoints": 150, "documents": 100, "pictures": 150, "bundles": 40, "arguments": 30}


@pytest.mark.parametrize("name", SUBJECTS)
def test_every_case_is_right_or_refused_in_one_line(name: str, tmp_path: Path) -> None:
    tally = campaign.run(name, range(CASES[name]), keep=tmp_path)
    assert tally.cases == CASES[name]
    assert not tally.faults, "\n".join(
        f"{tally.counts[signature]} × {signature} (seed {each.seed}, {each.label})\n{each.detail}"
        for signature, each in tally.faults.items()
    )
    assert tally.right > 0
    assert tally.refused > 0


@pytest.mark.parametrize("name", SUBJECTS)
def test_a_seed_gives_the_same_case_again(name: str, tmp_path: Path) -> None:
    subject = load_subject(name)
    subject.prepare(tmp_path)
    for seed in range(1, 6):
        one, other = (subject.generate(seed, tmp_path) for _ in range(2))
        assert (one.label, one.files, one.links, one.arguments) == (
            other.label,
            other.files,
            other.links,
            other.arguments,
        )


class _Faulty:
    """A subject whose check does what the test says."""

    GROWTH_BYTES = 64 << 20
    ADDRESS_BYTES = 4 << 30

    def __init__(self, check: Callable[[Path], object]) -> None:
        self._check = check

    def prepare(self, base: Path) -> None:
        pass

    def generate(self, seed: int, base: Path) -> Case:
        return Case("made", {"input": b"x"})

    def check(self, case: Case, folder: Path, base: Path) -> None:
        self._check(folder)

    def may_remain(self, case: Case, name: str, refused: bool) -> bool:
        return name == "output" and not refused


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder for a case; another for temporary files lies beside the folder."""
    for name in ("case", "temporary"):
        (tmp_path / name).mkdir()
    return tmp_path / "case"


class Unescaped(GlamaError):
    """An error that prints its message as it is."""

    def __str__(self) -> str:
        return str(self.args[0])


def raises(error: BaseException) -> Callable[[Path], None]:
    def check(folder: Path) -> None:
        raise error

    return check


@pytest.mark.parametrize(
    ("check", "state", "signature"),
    [
        (lambda folder: None, "right", ""),
        (raises(GlamaError("one line")), "refused", ""),
        (raises(Unescaped("two\nlines")), "fault", "a message with control characters"),
        (raises(GlamaError("x" * 1_000)), "fault", "a message that is too long"),
        (raises(Wrong("another picture")), "fault", "wrong result: another picture"),
        (raises(KeyError("x")), "fault", "KeyError"),
        (raises(SystemExit(1)), "fault", "SystemExit"),
        (lambda folder: (folder / "output").write_text("x", encoding="utf-8"), "right", ""),
        (lambda folder: (folder / ".glama-1.tmp").write_text("x", encoding="utf-8"), "fault", "files left behind"),
        (lambda folder: (b"x" * (128 << 20)).count(b"y"), "fault", "memory above the bound"),
    ],
)
def test_the_oracle_knows_each_kind_of_fault(
    check: Callable[[Path], object], state: str, signature: str, folder: Path
) -> None:
    verdict = judge(_Faulty(check), 1, folder, folder, folder.parent / "temporary")
    assert verdict.state == state
    assert verdict.signature.startswith(signature)


def test_a_refusal_for_lack_of_memory_is_a_fault(folder: Path) -> None:
    def check(folder: Path) -> None:
        try:
            raise MemoryError
        except MemoryError as error:
            raise GlamaError("damaged") from error

    verdict = judge(_Faulty(check), 1, folder, folder, folder.parent / "temporary")
    assert verdict.signature.startswith("asked for more memory")


@pytest.mark.parametrize("message", ["", " ", "a\tb", "a\x1b[2J", "a\u2028b", "\x7f"])
def test_a_message_is_one_printable_line(message: str) -> None:
    assert message_fault(message)


def test_memory_that_grows_after_the_warm_up_is_seen() -> None:
    flat = {done: 300 + (done < 2_000) * done // 100 for done in range(100, 10_001, 100)}
    assert soak.growth(flat) == 0
    assert soak.growth({done: size + done // 100 for done, size in flat.items()}) > soak.MAX_GROWTH


def test_a_short_soak_has_right_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soak, "_SIDES", (64, 80))
    asked = soak.requests(60, seed=0)
    truth = tmp_path / "truth.npz"
    soak.write_truth("onnxruntime", 1, asked, truth)
    outcome = soak.serve("onnxruntime", 1, 4, asked, truth)
    assert (outcome.requests, outcome.wrong, outcome.failed) == (60, 0, ())


@pytest.mark.slow
def test_a_kill_leaves_the_old_picture_or_the_new_one(tmp_path: Path) -> None:
    (tmp_path / "template").mkdir()
    (tmp_path / "place").mkdir()
    kill.write_template(tmp_path / "template")
    tally = kill.run("glama-inpaint --overwrite", 4, 0, tmp_path / "template", tmp_path / "place", keep=None)
    assert tally.kills == 4
    assert not tally.broken
    assert not tally.failed
    assert not tally.leftovers


def test_everything_that_the_next_run_leaves_is_seen(tmp_path: Path) -> None:
    names = [".glama-1.lock", ".glama-1.tmp", ".glama-lock", ".glama-next", ".glama-work"]
    for name in names:
        (tmp_path / "out" / name).mkdir(parents=True)
    (tmp_path / "out" / "model.onnx").write_bytes(b"")
    assert kill.leftovers(tmp_path) == [f"out/{name}" for name in names]
    assert not kill.Tally(leftovers=kill.leftovers(tmp_path)).passed


def test_a_kill_that_broke_an_output_is_seen(tmp_path: Path) -> None:
    (tmp_path / "template").mkdir()
    kill.write_template(tmp_path / "template")
    job = kill.JOBS["glama-export --overwrite"]
    kill._place(job, tmp_path / "template", tmp_path / "run")
    tally = kill.Tally()
    assert kill._look(job, tmp_path / "run", tally) == "old"
    graph = tmp_path / "run" / "out" / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:-1])
    assert kill._look(job, tmp_path / "run", tally) is None
    shutil.rmtree(tmp_path / "run" / "out")
    assert kill._look(job, tmp_path / "run", tally) is None
    assert len(tally.broken) == 2
