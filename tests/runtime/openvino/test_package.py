"""The import of OpenVINO, each time in a fresh process."""

from __future__ import annotations

import subprocess
import sys

import pytest


def run(code: str) -> str:
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert child.returncode == 0, child.stderr
    return child.stdout


def test_opening_an_engine_imports_no_converter():
    code = """
import sys
from glama_deploy.runtime.openvino.runner import core
core()
print([name for name in sys.modules if name.startswith("openvino.tools")])
"""
    assert run(code).strip() == "[]"


@pytest.mark.parametrize(
    "use",
    [
        "openvino.convert_model",
        "openvino.tools.ovc.convert_model",
        "__import__('openvino', fromlist=['convert_model']).convert_model",
        "__import__('openvino.tools.ovc').tools.ovc.convert_model",
    ],
)
def test_a_program_finds_the_converter_beside_an_engine(use):
    code = f"""
from glama_deploy.runtime.openvino.runner import core
core()
import openvino
assert callable({use})
"""
    run(code)


def test_an_attribute_that_openvino_lacks_is_missing():
    code = """
from glama_deploy.runtime.openvino.package import require_openvino
assert not hasattr(require_openvino(), "no_such_name")
"""
    run(code)


def test_an_earlier_import_of_openvino_is_not_changed():
    code = """
import glama_deploy, openvino
before = openvino.convert_model
from glama_deploy.runtime.openvino.package import require_openvino
assert require_openvino().convert_model is before
assert not hasattr(openvino, "__getattr__")
"""
    run(code)
