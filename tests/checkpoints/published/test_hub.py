"""Files of the Hugging Face Hub, downloaded by huggingface_hub from a host that speaks the Hub's headers."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from glama_deploy.checkpoints.published.references import locate
from glama_deploy.errors import DownloadError

constants = pytest.importorskip("huggingface_hub.constants")


@pytest.fixture(autouse=True)
def hub(host, content, tmp_path, monkeypatch):
    """The host as the Hub, and an empty cache of huggingface_hub."""
    host.is_hub = True
    host.files["/owner/repo/resolve/main/folder/x.pt"] = content
    host.files["/owner/repo/resolve/v2/x.pt"] = content[::-1]
    monkeypatch.setenv("HF_ENDPOINT", host.url)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return host


def test_a_file_of_the_hub_is_downloaded_once_and_named(hub, content, caplog, tmp_path):
    path = locate("hf://owner/repo/folder/x.pt")
    assert Path(path).read_bytes() == content
    assert Path(path).is_relative_to(tmp_path / "hub")
    asked = len(hub.asked)
    assert locate("hf://owner/repo/folder/x.pt") == path
    assert len(hub.asked) == asked
    assert caplog.messages == [f"downloading hf://owner/repo/folder/x.pt from {hub.url}"]


def test_a_revision_is_part_of_the_address(hub, content):
    assert Path(locate("hf://owner/repo@v2/x.pt")).read_bytes() == content[::-1]


def test_a_slash_in_a_revision_is_written_as_in_an_address(hub, content, caplog):
    hub.files["/owner/repo/resolve/refs%2Fpr%2F1/x.pt"] = content
    assert Path(locate("hf://owner/repo@refs%2Fpr%2F1/x.pt")).read_bytes() == content
    assert caplog.messages == [f"downloading hf://owner/repo@refs%2Fpr%2F1/x.pt from {hub.url}"]


def test_a_damaged_file_in_the_cache_of_the_hub_is_refused(hub):
    blob = Path(locate("hf://owner/repo/folder/x.pt")).resolve()
    blob.write_bytes(b"damaged")
    with pytest.raises(DownloadError, match="has another SHA-256 than its name says; remove the file and run again"):
        locate("hf://owner/repo/folder/x.pt")


def test_a_file_that_the_hub_does_not_have_is_one_line(hub):
    with pytest.raises(DownloadError, match=r"hf://owner/repo/none\.pt cannot be downloaded \(.*404") as caught:
        locate("hf://owner/repo/none.pt")
    assert "\n" not in str(caught.value)


def test_a_download_that_hf_xet_ends_is_one_line(monkeypatch):
    """The Hub sends large files by another protocol, whose package raises RuntimeError for a broken connection."""

    def download(*given, **options):
        raise RuntimeError("Data processing error: CAS service error: ReqwestMiddleware\nsecond line")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    with pytest.raises(DownloadError, match=r"cannot be downloaded \(Data processing error: .*\); check") as caught:
        locate("hf://owner/repo/folder/x.pt")
    assert "\n" not in str(caught.value)


def test_offline_only_the_cache_is_searched(hub, monkeypatch):
    path = locate("hf://owner/repo/folder/x.pt")
    monkeypatch.setenv("GLAMA_OFFLINE", "1")
    assert locate("hf://owner/repo/folder/x.pt") == path
    asked = len(hub.asked)
    with pytest.raises(DownloadError, match="is not in huggingface_hub's cache, and GLAMA_OFFLINE=1 forbids downloads"):
        locate("hf://owner/repo@v2/x.pt")
    assert len(hub.asked) == asked


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(DownloadError, match=r"needs huggingface_hub, .*; pip install 'glama-deploy\[hub\]'"):
        locate("hf://owner/repo/folder/x.pt")


def test_a_name_that_the_hub_does_not_allow_is_one_line():
    with pytest.raises(DownloadError, match=r"hf://owner/\.\.repo/x\.pt"):
        locate("hf://owner/..repo/x.pt")
