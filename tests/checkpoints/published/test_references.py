"""Names and addresses in place of a path, and the catalogue behind the names."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest

from glama_deploy.checkpoints.published import model_list
from glama_deploy.checkpoints.published.model_list import read_models
from glama_deploy.checkpoints.published.references import (
    find_reference,
    is_address,
    locate,
    parse_reference,
    split_name,
)
from glama_deploy.errors import CheckpointError, DownloadError, GlamaError

#: The published files: size in bytes (None: only approximately known) and SHA-256, on which independent sources agree.
PUBLISHED = {
    "big-lama": (205669692, "344c77bbcb158f17dd143070d1e789f38a66c04202311ae3a258ef66667a9ea9"),
    "anime-manga-big-lama": (205717870, "479d3afdcb7ed2fd944ed4ebcc39ca45b33491f0f2e43eb1000bd623cfb41823"),
    "lama-large-512px": (None, "11d30fbb3000fb2eceae318b75d9ced9229d99ae990a7f8b3ac35c8d31f2c935"),
}

HASH = "0123456789abcdef" * 4


def test_the_catalogue_has_the_published_files():
    models = read_models()
    assert {
        name: (model.size_bytes if model.is_size_exact else None, model.sha256) for name, model in models.items()
    } == PUBLISHED
    assert all(url.startswith("https://") and url.endswith(f"/{m.file}") for m in models.values() for url in m.urls)


def test_a_path_and_the_embedded_network_stay_as_they_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "big-lama").mkdir()
    for model in ("default", "big-lama", "./none.pt", "folder/none", tmp_path, "x" * 5000):
        assert locate(model) == model
    assert parse_reference("big-lama").subject == "big-lama"


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("big-lame", "is big-lama meant? "),
        ("BIG-LAMA", "is big-lama meant? "),
        ("big-lama.pt", "is big-lama meant? "),
        ("lama_large_512px.ckpt", "is lama-large-512px meant? "),
        ("nothing", ""),
    ],
)
def test_an_unknown_name_is_told_with_the_near_one(name, near):
    with pytest.raises(CheckpointError) as caught:
        locate(name)
    assert str(caught.value) == (
        f"no checkpoint at {name}, no bundle, and no published model of this name; {near}give a path, 'default', or a "
        "name that glama-models list shows"
    )


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("https://host/x.pt", "https://host/x.pt has no SHA-256; write the SHA-256 of the file behind the address"),
        ("https://host/x.pt#main", "https://host/x.pt ends in #main; write the SHA-256"),
        ("https://host/x.pt#sha256=123", "ends in #sha256=123; write the SHA-256"),
        (f"http://192.0.2.1/x.pt#sha256={HASH}", "is not encrypted; use https (http is allowed for this machine only)"),
        (f"http://localhost.evil.example/x.pt#sha256={HASH}", "is not encrypted"),
        (f"https://user:secret@host/x.pt#sha256={HASH}", "https://…@host/x.pt contains a user name or password"),
        (f"https://user:secret@host:99999/x.pt#sha256={HASH}", "https://…@host:99999/x.pt"),
        (f"https://user:secret@[host/x.pt#sha256={HASH}", "is not a web address (Invalid IPv6 URL)"),
        (f"https://models..example.org/x.pt#sha256={HASH}", "is not a web address"),
        (f"https://{'a' * 64}.example.org/x.pt#sha256={HASH}", "is not a web address"),
        (f"https:///x.pt#sha256={HASH}", "is not a web address"),
        (f"https://host:port/x.pt#sha256={HASH}", "is not a web address"),
        (f"https://host/a b.pt#sha256={HASH}", "is not a web address"),
        (f"https://host/#sha256={HASH}", "does not end in the name of a file"),
        (f"https://host/x.pt%0A#sha256={HASH}", "does not end in the name of a file"),
        (f"https://host/..%2f..%2fetc%2f.x#sha256={HASH}", "does not end in the name of a file"),
        ("ftp://host/x.pt", "has the scheme ftp; a path, a name that glama-models list shows, hf://OWNER/REPO/FILE"),
        ("s3://bucket/x.pt", "has the scheme s3; a path"),
        ("hf://owner/x.pt", "is not hf://OWNER/REPO/FILE"),
        ("hf://owner/repo/../x.pt", "is not hf://OWNER/REPO/FILE"),
        ("hf://owner/repo//etc/x.pt", "is not hf://OWNER/REPO/FILE"),
        ("hf://owner/repo/./x.pt", "is not hf://OWNER/REPO/FILE"),
        ("hf://owner/repo/x.pt/", "is not hf://OWNER/REPO/FILE"),
        ("hf://owner/repo/..\\x.pt", "is not hf://OWNER/REPO/FILE"),
        ("hf://owner/repo/x\n.pt", "is not hf://OWNER/REPO/FILE"),
        ("hf://owner/repo@../x.pt", "(a / in REVISION is written %2F)"),
        ("hf://owner/repo@..%2F..%2Fx/x.pt", "is not hf://OWNER/REPO/FILE"),
    ],
)
def test_an_address_that_is_not_supported_is_one_line(address, says, own_cache):
    assert is_address(address)
    with pytest.raises(DownloadError, match=re.escape(says)) as caught:
        locate(address)
    assert "secret" not in str(caught.value)
    assert not own_cache.exists()


def test_an_address_with_its_hash_is_downloaded_and_verified(host, content, own_cache):
    host.files["/folder/x%20y.pt"] = content
    digest = hashlib.sha256(content).hexdigest()
    with pytest.raises(DownloadError, match="does not end in the name of a file"):
        locate(f"{host.url}/folder/x%20y.pt#sha256={digest}")
    host.files["/folder/x.pt"] = content
    address = f"{host.url}/folder/x.pt#sha256={digest.upper()}"
    assert Path(locate(address)).read_bytes() == content
    assert locate(address) == own_cache / "models" / digest[:16] / "x.pt"
    assert len(host.asked) == 1
    with pytest.raises(DownloadError, match="the file is kept as"):
        locate(f"{host.url}/folder/x.pt#sha256={HASH}")


def test_a_catalogue_of_ones_own_replaces_the_built_in_one(host, content, tmp_path, monkeypatch):
    catalogue = host.write_catalogue(tmp_path / "models.json", {"name": "mine", "content": content})
    monkeypatch.setenv("GLAMA_MODELS_CATALOGUE", str(catalogue))
    assert list(read_models()) == ["mine"]
    assert Path(locate("mine")).read_bytes() == content
    with pytest.raises(CheckpointError):
        locate("big-lama")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"sha256": "123"}, r"models\.0\.sha256: String should match"),
        ({"urls": []}, r"models\.0\.urls: Tuple should have at least 1 item"),
        ({"urls": ["http://192.0.2.1/x.pt"]}, "is not encrypted"),
        ({"file": "../x.pt"}, r"models\.0\.file: String should match"),
        ({"name": "default"}, "is an embedded network's"),
        ({"color": "red"}, r"models\.0\.color: Extra inputs are not permitted"),
    ],
)
def test_a_damaged_catalogue_is_one_line_that_names_the_field(tmp_path, monkeypatch, change, says):
    tree = json.loads(model_list._BUILT_IN.read_text(encoding="utf-8"))
    tree["models"][0] |= change
    path = tmp_path / "models.json"
    path.write_text(json.dumps(tree), encoding="utf-8")
    monkeypatch.setenv("GLAMA_MODELS_CATALOGUE", str(path))
    with pytest.raises(GlamaError, match=f"which is not a catalogue of models .*{says}"):
        read_models()
    path.unlink()
    with pytest.raises(GlamaError, match="No such file or directory; correct or unset it"):
        read_models()


def test_finding_out_what_a_name_means_opens_no_connection(host, content, tmp_path, monkeypatch):
    catalogue = host.write_catalogue(tmp_path / "models.json", {"name": "mine", "content": content})
    monkeypatch.setenv("GLAMA_MODELS_CATALOGUE", str(catalogue))
    assert find_reference("mine") is not None
    assert find_reference("none/such") is None
    assert host.asked == []


def test_a_name_is_split_from_all_but_existing_paths_and_addresses(tmp_path):
    (tmp_path / "a=b").mkdir()
    assert split_name(f"{tmp_path}/a=b") == (None, f"{tmp_path}/a=b")
    assert split_name(f"name={tmp_path}/a=b") == ("name", f"{tmp_path}/a=b")
    assert split_name("https://host/file#sha256=0") == (None, "https://host/file#sha256=0")
    assert split_name("name=https://host/file#sha256=0") == ("name", "https://host/file#sha256=0")
    assert split_name("=folder") == ("", "folder")
    assert split_name("folder") == (None, "folder")
