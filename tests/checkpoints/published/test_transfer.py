"""Downloads from a real server that is slow, breaks off, is busy, or changes its file."""

from __future__ import annotations

import email.utils
import errno
import os
import threading
import time
import urllib.request
from pathlib import Path

import pytest

from fakes.model_host import Answer
from glama_deploy.checkpoints.published import transfer
from glama_deploy.checkpoints.published.transfer import AddressFailedError, Patience, Transfer, download
from glama_deploy.errors import GlamaError

#: Pauses that take no time worth mentioning.
SOON = Patience(first_pause=0.001)


@pytest.fixture
def part(tmp_path: Path) -> Path:
    return tmp_path / "x.pt.part"


@pytest.fixture
def url(host, content) -> str:
    host.files["/x.pt"] = content
    return f"{host.url}/x.pt"


def test_a_file_is_downloaded_and_its_progress_reported(host, url, part, content):
    reports: list[tuple[int, int | None]] = []
    download(url, Transfer(part, report=lambda done, total: reports.append((done, total))))
    assert part.read_bytes() == content
    assert (reports[0], reports[-1]) == ((0, len(content)), (len(content), len(content)))
    assert reports == sorted(reports)
    assert host.asked[0].headers["user-agent"].startswith("glama-deploy/")


def test_a_connection_that_breaks_off_is_continued_where_it_ended(host, url, part, content):
    host.script["/x.pt"] = [Answer(cut_after=30_000), Answer(cut_after=20_000)]
    download(url, Transfer(part, patience=SOON))
    assert part.read_bytes() == content
    assert host.ranges == [None, "bytes=30000-", "bytes=50000-"]
    mark = host.asked[1].headers["if-range"]
    assert mark.startswith('"')
    assert host.asked[2].headers["if-range"] == mark


def test_a_server_without_a_mark_is_continued_too(host, url, part, content):
    host.script["/x.pt"] = [Answer(cut_after=30_000, names_mark=False)]
    download(url, Transfer(part, patience=SOON))
    assert part.read_bytes() == content
    assert "if-range" not in host.asked[1].headers


def test_a_weak_mark_is_not_sent(host, url, part, content):
    host.script["/x.pt"] = [Answer(cut_after=30_000, names_mark=False, headers={"ETag": 'W/"1"'})]
    download(url, Transfer(part, patience=SOON))
    assert part.read_bytes() == content
    assert "if-range" not in host.asked[1].headers


def test_a_server_that_does_not_take_ranges_sends_the_file_again(host, url, part, content):
    host.script["/x.pt"] = [Answer(cut_after=30_000), Answer(takes_ranges=False)]
    download(url, Transfer(part, patience=SOON))
    assert part.read_bytes() == content
    assert host.ranges == [None, "bytes=30000-"]


def test_a_file_that_changes_between_two_ranges_is_downloaded_anew(host, url, part, content):
    host.script["/x.pt"] = [Answer(cut_after=30_000)]
    with pytest.raises(AddressFailedError, match="30000 of 100000 bytes"):
        download(url, Transfer(part, patience=Patience(attempts=1)))
    host.files["/x.pt"] = content[::-1]
    download(url, Transfer(part, patience=SOON))
    assert part.read_bytes() == content[::-1]


def test_a_part_with_another_mark_is_refused_although_the_server_ignores_if_range(host, url, part, content):
    host.script["/x.pt"] = [Answer(cut_after=30_000)]
    with pytest.raises(AddressFailedError):
        download(url, Transfer(part, patience=Patience(attempts=1)))
    host.files["/x.pt"] = content[::-1]
    host.script["/x.pt"] = [
        Answer(status=206, headers={"Content-Range": "bytes 30000-99999/100000", "ETag": '"other"'}),
    ]
    download(url, Transfer(part, patience=SOON))
    assert part.read_bytes() == content[::-1]
    assert host.ranges == [None, "bytes=30000-", None]


def test_a_server_whose_file_changes_each_time_is_given_up(host, url, part):
    changed = Answer(status=206, headers={"Content-Range": "bytes 1-2/3"})
    host.script["/x.pt"] = [answer for _ in range(20) for answer in (Answer(cut_after=30_000), changed)]
    with pytest.raises(AddressFailedError, match=r"has changed since the download began; .* began again 5 times"):
        download(url, Transfer(part, patience=SOON))


def test_a_download_that_ended_before_it_was_noticed_is_complete(host, url, part, content):
    part.write_bytes(content)
    download(url, Transfer(part))
    assert part.read_bytes() == content
    assert host.ranges == [f"bytes={len(content)}-"]


def test_more_bytes_than_the_file_has_are_thrown_away(host, url, part, content):
    part.write_bytes(content + b"more")
    download(url, Transfer(part, patience=SOON))
    assert part.read_bytes() == content


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_busy_server_is_asked_again(host, url, part, content, status):
    host.script["/x.pt"] = [Answer(status=status), Answer(status=status)]
    download(url, Transfer(part, patience=SOON))
    assert part.read_bytes() == content
    assert len(host.asked) == 3


def test_the_pauses_grow_and_retry_after_comes_first(host, url, part, monkeypatch):
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    later = email.utils.formatdate(time.time() + 20, usegmt=True)
    host.script["/x.pt"] = [
        Answer(status=500),
        Answer(status=500),
        Answer(status=429, headers={"Retry-After": "7"}),
        Answer(status=503, headers={"Retry-After": later}),
    ]
    download(url, Transfer(part, patience=Patience(first_pause=0.5)))
    assert pauses[:3] == [0.5, 1.0, 7.0]
    # the date has whole seconds, and the test takes time; a day would mean that the date was not understood
    assert 0 <= pauses[3] <= 20


def test_a_server_that_asks_for_a_long_pause_is_left_out(host, url, part):
    host.script["/x.pt"] = [Answer(status=429, headers={"Retry-After": "3600"})]
    with pytest.raises(AddressFailedError, match="HTTP 429 Too Many Requests, and asks for a pause of 3600 s"):
        download(url, Transfer(part))


def test_a_real_pause_of_retry_after_is_kept(host, url, part, content):
    host.script["/x.pt"] = [Answer(status=429, headers={"Retry-After": "1"})]
    begin = time.monotonic()
    download(url, Transfer(part))
    assert time.monotonic() - begin >= 1  # s, what the server asked for
    assert part.read_bytes() == content


def test_a_server_that_stays_busy_is_given_up(host, url, part):
    host.script["/x.pt"] = [Answer(status=503)] * 9
    with pytest.raises(AddressFailedError, match="HTTP 503 Service Unavailable"):
        download(url, Transfer(part, patience=SOON))
    assert len(host.asked) == SOON.attempts


def test_a_file_that_is_not_there_is_not_asked_for_again(host, part):
    with pytest.raises(AddressFailedError, match="HTTP 404 Not Found"):
        download(f"{host.url}/none.pt", Transfer(part))
    assert len(host.asked) == 1
    assert not part.exists()


def test_a_slow_server_is_waited_for(host, url, part, content):
    host.script["/x.pt"] = [Answer(pauses=(0.05,) * 4)]
    download(url, Transfer(part))
    assert part.read_bytes() == content
    assert host.ranges == [None]


def test_a_server_that_falls_silent_is_asked_again_for_the_rest(host, url, part, content):
    silent = threading.Event()
    host.script["/x.pt"] = [Answer(cut_after=30_000, waits=silent)]
    try:
        download(url, Transfer(part, patience=Patience(attempts=100, first_pause=0.001, timeout=0.3)))
    finally:
        silent.set()
    assert part.read_bytes() == content
    assert host.ranges[1] == "bytes=30000-"


def test_a_redirect_is_followed_and_keeps_the_range(host, url, part, content):
    host.script["/from"] = [Answer(status=302, headers={"Location": url}) for _ in range(2)]
    host.script["/x.pt"] = [Answer(cut_after=30_000)]
    download(f"{host.url}/from", Transfer(part, patience=SOON))
    assert part.read_bytes() == content
    assert [(request.path, request.headers.get("range")) for request in host.asked] == [
        ("/from", None),
        ("/x.pt", None),
        ("/from", "bytes=30000-"),
        ("/x.pt", "bytes=30000-"),
    ]


@pytest.mark.parametrize("target", ["http://192.0.2.1/x.pt", "ftp://192.0.2.1/x.pt", "file:///etc/passwd"])
def test_a_redirect_to_an_address_that_is_not_allowed_is_refused(host, part, target):
    host.script["/from"] = [Answer(status=302, headers={"Location": target})]
    with pytest.raises(AddressFailedError, match=r"leads elsewhere|is not allo"):
        download(f"{host.url}/from", Transfer(part))
    assert not part.exists()


@pytest.mark.parametrize("target", ["https://[models/x.pt", "https://models..example.org/x.pt"])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_to_a_damaged_address_is_an_address_that_fails(host, part, target, status):
    host.script["/from"] = [Answer(status=status, headers={"Location": target})]
    with pytest.raises(AddressFailedError, match=r"leads (elsewhere|to a damaged address)"):
        download(f"{host.url}/from", Transfer(part))


@pytest.mark.parametrize("target", ["http://127.0.0.1:80/x.pt", "https://localhost/x.pt", "http://[::1]/x.pt"])
def test_another_host_cannot_lead_to_a_server_of_this_machine(target):
    request = urllib.request.Request("https://models.example.org/x.pt")
    with pytest.raises(AddressFailedError, match="the answer leads to this machine"):
        transfer._Redirects().redirect_request(request, None, 302, "Found", {}, target)


def test_a_circle_of_redirects_ends(host, part):
    host.script["/from"] = [Answer(status=302, headers={"Location": "/from"})] * 30
    with pytest.raises(AddressFailedError, match="HTTP 302"):
        download(f"{host.url}/from", Transfer(part))


def test_a_file_of_another_size_is_not_downloaded(host, url, part):
    with pytest.raises(AddressFailedError, match="the file has 100000 bytes; 99999 are expected"):
        download(url, Transfer(part, size_bytes=99_999))
    assert not part.exists()


def test_a_server_that_does_not_say_the_size_is_stopped(host, url, part):
    host.script["/x.pt"] = [Answer(headers={"Content-Length": "none"})]
    with pytest.raises(AddressFailedError, match="sends more than 5000 bytes"):
        download(url, Transfer(part, size_bytes=5000))
    assert not part.exists()


#: Leads to the discard port, at which nothing listens: the connection is refused.
AWAY = Answer(status=302, headers={"Location": "http://127.0.0.1:9/x.pt"})


def test_a_host_that_is_away_for_a_moment_is_waited_for(host, url, part, content):
    host.script["/x.pt"] = [Answer(cut_after=30_000), AWAY, AWAY]
    download(url, Transfer(part, patience=SOON))
    assert part.read_bytes() == content
    assert host.ranges == [None, *["bytes=30000-"] * 3]


def test_a_host_that_stays_away_is_given_up_and_the_bytes_stay(host, url, part, monkeypatch):
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    host.script["/x.pt"] = [Answer(cut_after=30_000), *[AWAY] * 20]
    with pytest.raises(AddressFailedError, match="Connection refused"):
        download(url, Transfer(part, patience=Patience(first_pause=0.5)))
    assert pauses == [0.5, 1.0, 2.0, 4.0]
    assert part.stat().st_size == 30_000


def test_a_host_that_nobody_is_at_is_told_at_once(part):
    with pytest.raises(AddressFailedError, match="Connection refused"):
        download("http://127.0.0.1:9/x.pt", Transfer(part))  # nothing listens at the discard port


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_one_error_and_no_attempt_more(host, url, part):
    part.symlink_to("/dev/full")
    with pytest.raises(GlamaError, match=r"cannot write .*x\.pt\.part: no space is left on the disk"):
        download(url, Transfer(part))
    assert len(host.asked) == 1


def test_a_disk_that_is_found_full_at_the_flush_is_an_error(url, part, monkeypatch):
    """Network file systems report a full disk or a quota as late as that."""

    def flush(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", flush)
    with pytest.raises(GlamaError, match=r"cannot write .*x\.pt\.part: no space is left on the disk"):
        download(url, Transfer(part))


def test_a_mark_that_is_cut_off_counts_as_none(host, url, part, content):
    part.write_bytes(content[:30_000])
    Transfer(part).mark.write_text('{"url": "http', encoding="utf-8")
    download(url, Transfer(part))
    assert part.read_bytes() == content
    assert "if-range" not in host.asked[0].headers


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs a pipe with a name")
def test_a_write_that_takes_only_a_part_of_the_bytes_is_completed(url, part, content):
    """A pipe takes as many bytes as there is room for."""
    os.mkfifo(part)
    found = bytearray()

    def drain() -> None:
        with part.open("rb", buffering=0) as file:
            while chunk := file.read(777):
                found.extend(chunk)

    reader = threading.Thread(target=drain)
    reader.start()
    download(url, Transfer(part))
    reader.join()
    assert bytes(found) == content
