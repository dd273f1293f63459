"""The command `glama`: every subcommand under one name, at the cost of the one that runs."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import distribution, version
from pathlib import Path

import pytest

from glama_deploy.cli.subcommands import SUBCOMMANDS

BIN = Path(sys.executable).parent

#: Prints the modules of `glama_deploy.cli` and the slow packages that a run of `glama` has imported.
LIST_IMPORTS = """
import sys
from glama_deploy.cli.start import main
sys.argv[0] = "glama"
try:
    main()
except SystemExit:
    pass
print(*(name for name in sys.modules if name.startswith("glama_deploy.cli.") or "." not in name), file=sys.stderr)
"""


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [BIN / arguments[0], *arguments[1:]], capture_output=True, text=True, env={**os.environ, **environment}
    )


def list_imports(*arguments: str, **environment: str) -> set[str]:
    command = [sys.executable, "-c", LIST_IMPORTS, *arguments]
    child = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})
    return set(child.stderr.splitlines()[-1].split())


def list_commands(modules: set[str]) -> set[str]:
    """The subcommands whose modules were imported."""
    return {each.module for each in SUBCOMMANDS.values()} & {
        name.removeprefix("glama_deploy.cli.") for name in modules if name.startswith("glama_deploy.cli.")
    }


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [
        (["--help"], {}),
        (["--version"], {}),
        (["inpain"], {}),
        ([], {"_GLAMA_COMPLETE": "complete_bash", "COMP_WORDS": "glama ", "COMP_CWORD": "1"}),
    ],
    ids=["help", "version", "typo", "completion"],
)
def test_help_version_and_the_names_completion_import_no_subcommand(arguments, environment):
    modules = list_imports(*arguments, **environment)
    assert list_commands(modules) == set()
    assert not {"numpy", "PIL", "torch", "openvino"} & modules


@pytest.mark.parametrize("name", sorted(SUBCOMMANDS))
def test_a_subcommand_imports_its_own_module_alone(name):
    module = SUBCOMMANDS[name].module
    assert list_commands(list_imports(name, "--help")) == {module}
    words = {"COMP_WORDS": f"glama {name} --", "COMP_CWORD": "2"}
    assert list_commands(list_imports(_GLAMA_COMPLETE="complete_bash", **words)) == {module}


def test_the_start_of_a_subcommand_imports_what_its_own_command_imports():
    alone = [sys.executable, "-c", LIST_IMPORTS.replace("import main", "import inpaint as main"), "--help"]
    child = subprocess.run(alone, capture_output=True, text=True)
    assert list_imports("inpaint", "--help") == set(child.stderr.splitlines()[-1].split())


def test_every_subcommand_is_a_command_of_its_own():
    scripts = {each.name for each in distribution("glama-deploy").entry_points}
    assert scripts == {"glama"} | {f"glama-{name}" for name, each in SUBCOMMANDS.items() if each.has_script}


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (["glama", "masks"], "glama masks"),
        (["glama", "-q", "masks"], "glama masks"),
        (["glama-masks"], "glama-masks"),
    ],
)
def test_usage_and_errors_have_the_name_by_which_the_command_was_called(command, name):
    for option in ("-h", "--help"):
        shown = run(*command, option)
        assert shown.returncode == 0
        assert f"Usage: {name} [OPTIONS]" in shown.stdout
    for wrong in (["--out", "a.jpg"], ["--bad"], []):
        failed = run(*command, *wrong)
        assert failed.returncode == 2
        assert failed.stderr.startswith(f"{name}: ")
        assert failed.stderr.count("\n") == 1


def test_a_version_has_the_name_by_which_the_command_was_called():
    for command in (["glama"], ["glama", "masks"], ["glama-masks"]):
        assert run(*command, "--version").stdout == f"{' '.join(command)} {version('glama-deploy')}\n"


def test_a_typo_is_answered_with_the_near_subcommand():
    failed = run("glama", "inpain", "--image", "a.png")
    assert failed.returncode == 2
    assert failed.stderr == "glama: No such command 'inpain'. Did you mean 'inpaint'? (see glama --help)\n"


def test_glama_alone_and_as_a_module_explains_itself():
    for shown in (run("glama"), run("glama", "-h"), run("python", "-m", "glama_deploy")):
        assert shown.returncode == 0
        assert "Usage: glama [OPTIONS] COMMAND" in shown.stdout
        assert all(f" {name} " in shown.stdout for name in SUBCOMMANDS)


def test_arguments_reach_a_subcommand_as_they_are(tmp_path):
    """Also `--`, values that look like options, and the options of `glama` behind the name."""
    for glama in (["glama"], ["glama", "-q"]):
        failed = run(*glama, "masks", "--out", "-v.jpg", "--", "--out")
        assert "Got unexpected extra argument" in failed.stderr
        assert "(--out)" in failed.stderr
        assert run(*glama, "masks", "--out=-v.jpg").stderr == "glama masks: --out is -v.jpg; a .png is written\n"


def test_the_shell_completes_names_options_and_values_and_leaves_files_to_the_shell(tmp_path):
    script = run("glama", "--show-completion", "bash").stdout
    code = f"""
PATH={BIN}:$PATH
{script}
complete_words() {{
    COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
    _glama_completion glama
    echo "${{COMPREPLY[@]}}"
}}
complete_words glama ex
complete_words glama inpaint --mask-
complete_words glama inpaint --image {tmp_path}/
complete_words glama inpaint --model b
complete_words glama inpaint --model {tmp_path}/
complete_words glama inpaint --precision int8+b
complete_words glama inpaint --backend open
complete_words glama export --target trt-
complete -p glama
"""
    child = subprocess.run(["bash", "-c", code], capture_output=True, text=True)
    names, options, files, models, bundles, precisions, backends, targets, registered = child.stdout.splitlines()
    assert names == "export"
    assert set(options.split()) == {"--mask-column", "--mask-from", "--mask-name"}
    assert files == bundles == ""  # bash then completes file names (-o default)
    assert (models, precisions, backends, targets) == ("big-lama", "int8+bf16", "openvino", "trt-rtx")
    assert registered == "complete -o default -F _glama_completion glama"


def test_quiet_leaves_results_and_errors_and_verbose_adds_notes(tiny_bundle, tmp_path, photo, hole):
    import numpy as np
    from PIL import Image

    Image.fromarray(photo).save(tmp_path / "image.png")
    Image.fromarray(hole).save(tmp_path / "mask.png")
    Image.fromarray(np.zeros_like(hole)).save(tmp_path / "empty.png")
    common = ["--model", str(tiny_bundle.path), "--image", str(tmp_path / "image.png")]
    files = [*common, "--mask", str(tmp_path / "empty.png"), "--out", str(tmp_path / "out.png")]
    plain = run("glama", "inpaint", *files)
    assert "marks no pixel" in plain.stderr
    assert "OpenVINO" in plain.stderr
    for command in (["glama", "-q", "inpaint"], ["glama", "inpaint", "-q"], ["glama-inpaint", "--quiet"]):
        quiet = run(*command, *files, "--overwrite")
        assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, "", "")
        failed = run(*command, *files)
        assert failed.stderr.endswith("pass --overwrite\n")
        assert failed.stderr.count("\n") == 1
    assert "--quiet and --verbose are both given" in run("glama", "-q", "masks", "-v", "--out", "a.png").stderr
    run("glama-masks", "--out", str(tmp_path / "sheet.png"), "--count", "1")
    (tmp_path / ".glama-1.tmp").write_bytes(b"what a killed process left")
    (tmp_path / ".glama-1.lock").write_bytes(b"")
    sheet = ["glama-masks", "--out", str(tmp_path / "sheet.png"), "--count", "1", "--overwrite"]
    assert "a leftover of a killed process" in run(*sheet, "-v").stderr


def test_quiet_still_lists_the_failures_of_a_folder(tiny_bundle, tmp_path, photo, hole):
    from PIL import Image

    (tmp_path / "images").mkdir()
    Image.fromarray(photo).save(tmp_path / "images" / "a.png")
    (tmp_path / "images" / "b.png").write_text("no image")
    Image.fromarray(hole).save(tmp_path / "mask.png")
    paths = ["--image", "images", "--mask", "mask.png", "--out", "out"]
    child = subprocess.run(
        [BIN / "glama", "inpaint", "-q", "--model", tiny_bundle.path, *paths],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert child.returncode == 2
    assert child.stderr.startswith("failed: images/b.png is not a supported image")
    assert child.stderr.count("\n") == 1
