"""A site is made whole or not at all, from verified files, and its network is the bundle's."""

from __future__ import annotations

import json
import os
import shutil
import stat

import numpy as np
import pytest

from glama_deploy.cli.export import main as glama_export
from glama_deploy.export.web import check_sample, ort_web
from glama_deploy.export.web.model_parts import MIN_WEIGHT_ELEMENTS, PROVIDERS, split_model
from glama_deploy.network import NetworkConfig

#: A network whose 3×3 convolutions have as many channels as Winograd's method needs.
WIDE = NetworkConfig(ngf=64, n_blocks=1, n_downsampling=1, ratio=0.5)


@pytest.fixture
def fake_runtime(tmp_path, monkeypatch):
    """A folder of small files in place of ONNX Runtime Web, and their hashes in place of the pinned ones."""
    folder = tmp_path / "package" / "dist"
    folder.mkdir(parents=True)
    hashes = {}
    for name in ort_web.FILES:
        (folder / name).write_text(f"contents of {name}")
        hashes[name] = ort_web.compute_sha256(folder / name)
    monkeypatch.setattr(ort_web, "FILES", hashes)
    return folder.parent


def make(tiny, out, *options: str) -> int:
    return glama_export.run(["--ckpt", str(tiny), "--target", "web", "--out", str(out), "--no-parity", *options])


def list_files(folder) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_site_has_the_page_the_network_and_the_runtime(tiny, fake_runtime, tmp_path, capsys):
    out = tmp_path / "site"
    assert make(tiny, out, "--ort-web", str(fake_runtime), "--precision", "fp32,fp16") == 0
    assert f"python -m http.server -d {out}" in capsys.readouterr().out
    files = list_files(out)
    assert {f"runtime/{name}" for name in ort_web.FILES} <= files
    assert {"index.html", "site.json", "service_worker.js", "page/engine_browser.js", "page/main.js"} <= files
    assert "page/engine_server.js" not in files
    site = json.loads((out / "site.json").read_text())
    assert list(site["precisions"]) == ["fp32", "fp16"]
    for model in site["precisions"].values():
        for part in (model["weights"], *model["structures"].values()):
            assert (out / part["path"]).stat().st_size == part["bytes"]
    assert site["precisions"]["fp16"]["weights"]["bytes"] < 0.6 * site["precisions"]["fp32"]["weights"]["bytes"]
    html = (out / "index.html").read_text()
    assert 'content="page/engine_browser.js"' in html
    assert "script-src 'self' 'wasm-unsafe-eval';" in html


def test_the_service_worker_lists_each_file_with_its_hash(tiny, fake_runtime, tmp_path):
    out = tmp_path / "site"
    assert make(tiny, out, "--ort-web", str(fake_runtime)) == 0
    script = (out / "service_worker.js").read_text()
    site = json.loads(script.partition("const SITE = ")[2].partition(";\nimportScripts")[0])
    assert set(site["files"]) == list_files(out) - {"service_worker.js"}
    assert all(ort_web.compute_sha256(out / name) == digest for name, digest in site["files"].items())
    assert {"index.html", "page/sample.jpg"} <= set(site["first"])
    assert not [name for name in site["first"] if name.startswith(("model", "runtime"))]


def test_a_site_of_a_cdn_names_the_pinned_version_and_has_no_runtime(tiny, tmp_path):
    out = tmp_path / "site"
    assert make(tiny, out, "--ort-web", "cdn") == 0
    assert not (out / "runtime").exists()
    site = json.loads((out / "site.json").read_text())
    for build in site["runtime"]["builds"].values():
        for file in build.values():
            assert f"@{ort_web.VERSION}/dist/" in file["url"]
            assert file["sha256"] == ort_web.FILES[file["url"].rpartition("/")[2]]
    host = ort_web.CDN.removeprefix("https://").partition("/")[0]
    assert f"connect-src 'self' https://{host};" in (out / "index.html").read_text()


def test_a_site_is_replaced_by_a_new_one_and_other_folders_are_not(tiny, fake_runtime, tmp_path, capsys):
    out = tmp_path / "site"
    options = "--ort-web", str(fake_runtime)
    assert make(tiny, out, *options) == 0
    assert make(tiny, out, *options) == 2
    assert "exists already" in capsys.readouterr().err
    (out / "stale.txt").write_text("")
    assert make(tiny, out, *options, "--overwrite") == 0
    assert "stale.txt" not in list_files(out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["package", "site"]
    other = tmp_path / "other"
    other.mkdir()
    (other / "letter.txt").write_text("")
    assert make(tiny, other, *options, "--overwrite") == 2
    assert "is not a site" in capsys.readouterr().err
    assert list_files(other) == {"letter.txt"}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--ort-web", "nowhere"], "--ort-web nowhere is not a folder; expected npm, cdn or a folder"),
        (["--ort-web", "cdn", "--precision", "int8"], "web does not support precision 'int8'; use fp32 or fp16"),
        (["--ort-web", "cdn", "--precision", "fp32,fp32"], "give each precision once"),
        (["--ort-web", "cdn", "--size", "64x64"], "web makes a graph of any size; leave out --size"),
        (["--ort-web", "cdn", "--fft", "dft"], "browsers do not support --fft dft; use --fft matmul"),
        (["--ort-web", "cdn", "--io", "uint8"], "web needs --io float"),
        (
            ["--ort-web", "cdn", "--workspace", "5"],
            "--workspace is for TensorRT (trt, trt-rtx); web has none",
        ),
        (["--target", "openvino"], "web makes a site instead of a bundle; give --target web to glama-export, alone"),
        (
            ["--ort-web", "cdn", "--precision", "fp32,fp16", "--tolerance", "fp16=1e-9"],
            "in fp16 is",  # the fp32 part is written by then
        ),
    ],
)
def test_what_a_site_cannot_be_is_one_line_and_nothing_is_written(tiny, tmp_path, capsys, options, says):
    assert make(tiny, tmp_path / "site", *options) == 2
    told = capsys.readouterr().err.strip().splitlines()
    assert says in told[-1]
    assert not list(tmp_path.iterdir())


def test_the_option_for_sites_is_refused_for_bundles(tiny, tmp_path, capsys):
    assert glama_export.run(["--ckpt", str(tiny), "--out", str(tmp_path / "b"), "--ort-web", "cdn"]) == 2
    assert "--ort-web is for sites; add --target web, or leave it out" in capsys.readouterr().err


@pytest.mark.parametrize(("change", "says"), [("other", "its SHA-256 differs"), ("none", "is missing")])
def test_a_folder_with_another_runtime_is_refused(tiny, fake_runtime, tmp_path, capsys, change, says):
    path = fake_runtime / "dist" / "ort.wasm.min.mjs"
    if change == "other":
        path.write_text("another version")
    else:
        path.unlink()
    assert make(tiny, tmp_path / "site", "--ort-web", str(fake_runtime)) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "site").exists()


NPM_SCRIPTS = {
    "fails": ("#!/bin/sh\necho 'npm error network ENOTFOUND' >&2\nexit 1\n", "ENOTFOUND"),
    "lies": ("#!/bin/sh\necho other > onnxruntime-web.tgz\n", "its SHA-512 differs"),
    "absent": (None, "is not installed; install npm, or give --ort-web"),
}


@pytest.mark.parametrize("case", NPM_SCRIPTS)
def test_an_npm_that_cannot_help_is_one_line(tiny, tmp_path, monkeypatch, capsys, case):
    script, says = NPM_SCRIPTS[case]
    programs = tmp_path / "programs"
    programs.mkdir()
    if script:
        (programs / "npm").write_text(script)
        (programs / "npm").chmod(stat.S_IRWXU)
        monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    else:
        monkeypatch.setenv("PATH", str(programs))
    assert make(tiny, tmp_path / "site") == 2
    assert says in capsys.readouterr().err
    shutil.rmtree(programs)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--ckpt", "bundle"], "is a bundle; a checkpoint is expected"),
        (["--ckpt", "nowhere.pt"], "nowhere.pt"),
        (["--parity-size", "64x64"], "--parity-size is for graphs"),
    ],
)
def test_what_cannot_be_exported_is_told_before_npm_runs(tiny, tmp_path, monkeypatch, capsys, options, says):
    programs, ran = tmp_path / "programs", tmp_path / "ran"
    programs.mkdir()
    (programs / "npm").write_text(f"#!/bin/sh\ntouch {ran}\nexit 1\n")
    (programs / "npm").chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "manifest.json").write_text("{}")
    assert make(tiny, tmp_path / "site", *options) == 2
    assert says in capsys.readouterr().err
    assert not ran.exists()
    assert not (tmp_path / "site").exists()
    assert make(tiny, tmp_path / "site") == 2
    assert ran.exists()


@pytest.mark.parametrize("precisions", ["fp16", "fp32,fp16"])
def test_the_table_shows_the_precisions_of_the_site(tiny, tmp_path, capsys, precisions):
    out = tmp_path / "site"
    assert make(tiny, out, "--ort-web", "cdn", "--precision", precisions) == 0
    printed = capsys.readouterr().out
    rows = [line.split() for line in printed.splitlines() if line.strip().startswith("fp")]
    assert [row[0] for row in rows] == precisions.split(",")
    stored = json.loads((out / "site.json").read_text())["precisions"]
    assert [float(row[-1]) for row in rows] == [float(f"{stored[row[0]]['error']:.1e}") for row in rows]
    assert "not measured" not in printed


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_joined_parts_are_the_bundles_network(make_checkpoint, make_bundle, photo, hole, precision):
    bundle = make_bundle(make_checkpoint(WIDE), ("onnx",))
    parts = split_model(bundle.graph("fp32"), precision)
    assert set(parts.structures) == set(PROVIDERS)
    image, missing = photo[None, :64, :96], hole[None, :64, :96].copy()
    missing[:, 20:40, 30:50] = True
    reference = check_sample.run_model(split_model(bundle.graph("fp32"), "fp32").join("webgpu"), image, missing)
    for provider in PROVIDERS:
        found = check_sample.run_model(parts.join(provider), image, missing)
        # fp32: Winograd's method rounds six times as much as a direct sum. fp16: kernels have 11 bits.
        assert np.abs(found - reference).max() < {"fp32": 2e-5, "fp16": 2e-2}[precision]
    assert b"kernel_transform" in parts.structures["wasm"]
    assert b"kernel_transform" not in parts.structures["webgpu"]
    values = 2 if precision == "fp16" else 4
    assert len(parts.weights) > values * MIN_WEIGHT_ELEMENTS
    assert max(map(len, parts.structures.values())) < len(parts.weights)
