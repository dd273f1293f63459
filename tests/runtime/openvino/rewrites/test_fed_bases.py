"""The DFT bases as inputs of the model of any size."""

from __future__ import annotations

import numpy as np
import pytest

from glama_deploy.errors import EngineError
from glama_deploy.export.graph.network import build
from glama_deploy.fourier.bases import column_basis, inverse_row_basis, row_basis
from glama_deploy.network import NetworkConfig
from glama_deploy.psnr import compute_psnr
from glama_deploy.reference.random_weights import untrained
from glama_deploy.runtime.base import Request
from glama_deploy.runtime.openvino import runner as openvino
from glama_deploy.runtime.openvino.core import core
from glama_deploy.runtime.openvino.rewrites import fed_bases

pytest.importorskip("openvino")

TWO_STAGES = NetworkConfig(ngf=8, n_blocks=1, coarse=NetworkConfig(ngf=8, n_blocks=1), coarse_side=64)
WIDE = NetworkConfig(ngf=32, n_blocks=1)

#: Height and width of images, multiples of 8, and the number of images.
SHAPES = [(64, 64, 1), (72, 40, 2), (136, 264, 1)]


def read(bundle, name):
    return core().read_model(str(bundle.files(name)[0]))


def compiled(model, precision="f32"):
    return core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": precision})


def tensors(height, width, batch=1):
    rng = np.random.default_rng(0)
    image = rng.random((batch, 3, height, width), np.float32)
    return image, (rng.random((batch, 1, height, width)) < 0.3).astype(np.float32)


@pytest.fixture
def half(monkeypatch):
    """Every CPU runs in bf16, as far as the runner knows; it computes in fp32, which all CPUs have."""
    monkeypatch.setattr(openvino, "choose_precision", lambda *_, **__: ("bf16", ""))
    monkeypatch.setitem(openvino.PRECISION_HINTS, "bf16", "f32")


# ---------------------------------------------------------------- the rewrite


@pytest.mark.parametrize("engine", ["openvino", "onnx"])
def test_a_network_that_is_given_its_bases_computes_the_same(tiny_bundle, engine):
    before, after = read(tiny_bundle, engine), read(tiny_bundle, engine)
    assert fed_bases.rewrite(after) == fed_bases.COUNT
    assert not [node for node in after.get_ops() if node.get_type_name() in ("Cos", "Sin")]
    before, after = compiled(before), compiled(after)
    for height, width, batch in SHAPES:
        image, mask = tensors(height, width, batch)
        inputs = {"image": image, "mask": mask}
        expected = before(inputs)["predicted"]
        found = after(inputs | fed_bases.compute(height // 8, width // 8))["predicted"]
        # the same sums in fp32: what parity asks of any engine
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5)


def test_the_bases_are_those_of_float64_and_lie_in_memory_as_openvino_reads_them():
    expected = {
        "fft/row": row_basis(9),
        "fft/column": column_basis(13),
        "fft/column_inverse": column_basis(13).T,
        "fft/row_inverse": inverse_row_basis(9),
    }
    found = fed_bases.compute(13, 9)
    assert found.keys() == expected.keys()
    for name, basis in expected.items():
        assert found[name].dtype == np.float32
        assert found[name].flags.c_contiguous
        np.testing.assert_array_equal(found[name], basis.astype(np.float32))


def test_a_fixed_model_has_its_bases_as_constants_and_two_inputs(tiny_bundle):
    model = read(tiny_bundle, "openvino")
    fed_bases.rewrite(model)
    assert len(model.inputs) == 2 + fed_bases.COUNT
    fed_bases.fix(model, 8, 5)
    assert [port.get_any_name() for port in model.inputs] == ["image", "mask"]
    image, mask = tensors(64, 40)
    model.reshape({"image": list(image.shape), "mask": list(mask.shape)})
    inputs = {"image": image, "mask": mask}
    expected = compiled(read(tiny_bundle, "openvino"))(inputs)["inpainted"]
    # the same sums in fp32: what parity asks of any engine
    np.testing.assert_allclose(compiled(model)(inputs)["inpainted"], expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize(("size", "fft"), [((64, 72), "matmul"), ((64, 72), "split"), (None, "dft")])
def test_a_graph_that_computes_no_bases_is_left_alone(size, fft):
    network = NetworkConfig(ngf=8, n_blocks=1)
    model = core().read_model(build(network, untrained(network), size, fft=fft).SerializeToString())
    nodes = len(model.get_ops())
    assert fed_bases.rewrite(model) == 0
    assert (len(model.inputs), len(model.get_ops())) == (2, nodes)


def test_only_the_bases_of_any_size_become_inputs_in_a_network_of_two_stages():
    """Stage one is of one size, so that its bases are constants."""
    model = core().read_model(build(TWO_STAGES, untrained(TWO_STAGES)).SerializeToString())
    expected = compiled(model.clone())
    assert fed_bases.rewrite(model) == fed_bases.COUNT
    image, mask = tensors(128, 96)
    inputs = {"image": image, "mask": mask}
    found = compiled(model)(inputs | fed_bases.compute(16, 12))["inpainted"]
    # the same sums in fp32: what parity asks of any engine
    np.testing.assert_allclose(found, expected(inputs)["inpainted"], rtol=0, atol=2e-5)


# ---------------------------------------------------------------- the runner


@pytest.mark.parametrize("io", ["float", "uint8"])
def test_in_half_precision_one_model_serves_every_size(make_bundle, tiny, half, io):
    bundle = make_bundle(tiny, io=io)
    runner, exact = (openvino.open(bundle, Request(precision)) for precision in ("bf16", "fp32"))
    assert not runner.compiles_sizes
    for height, width, batch in SHAPES:
        image, mask = tensors(height, width, batch)
        if io == "uint8":
            image, mask = (255 * image.transpose(0, 2, 3, 1)).astype(np.uint8), mask[:, 0].astype(np.uint8)
        np.testing.assert_array_equal(runner.run(image, mask), exact.run(image, mask))
        assert runner.holder[0] == ()


def test_a_wide_network_in_half_precision_has_two_forms_which_parity_measures(make_bundle, make_checkpoint, half):
    bundle = make_bundle(make_checkpoint(WIDE))
    runner = openvino.open(bundle, Request("bf16", compile_sizes=True))
    assert runner.has_compiled_form((64, 64)) == runner._uses_winograd
    found = runner.run(*tensors(64, 72))
    assert (runner.holder[0] != ()) == runner._uses_winograd
    expected = openvino.open(bundle, Request("bf16", compile_sizes=False)).run(*tensors(64, 72))
    # the same sums in fp32: what parity asks of any engine
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5)


def test_two_stages_in_half_precision_are_compiled_for_each_size(make_bundle, make_checkpoint, half):
    """A graph of any size would compute the weights of its resamplings in the half type."""
    runner = openvino.open(make_bundle(make_checkpoint(TWO_STAGES)), Request("bf16", compile_sizes=False))
    assert runner.compiles_sizes
    runner.run(*tensors(64, 72))
    assert runner.holder[0] == (1, 3, 64, 72)


@pytest.mark.usefixtures("bf16_cpu")
def test_in_bf16_the_model_of_any_size_is_as_near_to_fp32_as_the_compiled_one(make_bundle, make_checkpoint):
    bundle = make_bundle(make_checkpoint(WIDE))
    exact, of_any_size, of_one_size = (
        openvino.open(bundle, Request(precision, compile_sizes=compiles))
        for precision, compiles in (("fp32", False), ("bf16", False), ("bf16", True))
    )
    given = tensors(256, 256)
    expected = exact.run(*given, "predicted")
    errors = [runner.run(*given, "predicted") - expected for runner in (of_any_size, of_one_size)]
    any_size, one_size = (compute_psnr(float((error.astype(np.float64) ** 2).mean())) for error in errors)
    # with angles in bf16 the loss was above 10 dB; between the forms the order of sums differs, by some tenths of a dB
    assert any_size > one_size - 1


def test_an_image_whose_size_the_bases_do_not_fit_is_an_error(tiny_bundle, monkeypatch):
    runner = openvino.open(tiny_bundle, Request("fp32"))
    monkeypatch.setattr(openvino, "bottleneck_size", lambda *_: (5, 5))
    with pytest.raises(EngineError, match="OpenVINO failed"):
        runner.run(*tensors(64, 64))
