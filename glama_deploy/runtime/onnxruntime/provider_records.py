"""The execution providers of ONNX Runtime, one record for each.

A new provider is a record here, its name in the record `ONNX` of :mod:`glama_deploy.catalogue`, and for another kind of
device a name in :data:`glama_deploy.runtime.base.DeviceKind`. A provider on a GPU takes the bundle's half graph where
the bundle has one. The TensorRT providers build engines from the graph on the device, and keep them in the cache. The
engines are for the sizes of the bundle's own TensorRT engine, or for the default profile. DirectML and CoreML need
fixed shapes, so they have a session for each size.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from glama_deploy.bundle import Bundle, Precision, SizeRange
from glama_deploy.io import cache
from glama_deploy.node_names import FFT
from glama_deploy.runtime.base import DeviceKind
from glama_deploy.runtime.onnxruntime.model_file import read_model

#: Makes a provider's options from the bundle, the precision of the graph, and the sizes that the session takes.
MakeSettings = Callable[[Bundle, Precision, SizeRange], dict[str, str]]

_INSTALL_GPU = "pip uninstall --yes onnxruntime, then pip install onnxruntime-gpu"

#: What a GPU needs before WebGPU can use it.
_WEBGPU_DRIVER = "install the GPU's driver (on Linux with Vulkan), or take another `backend`"

#: Systems, by the names of `platform.system`, with the names for people.
SYSTEM_TITLES = {"Windows": "Windows", "Darwin": "macOS"}


@dataclass(frozen=True)
class ProviderRecord:
    """An execution provider.

    Attributes:
        name: The name behind the colon in `onnxruntime:NAME`.
        ort_name: ONNX Runtime's name of the provider.
        label: The name for people.
        device: Where the provider computes.
        graph_precisions: The precisions, besides fp32, of the graphs that the provider runs, the preferred one first.
        make_settings: Makes the provider's options.
        install_remedy: How to install an ONNX Runtime that has the provider.
        needs_cuda: Whether CUDA's libraries are loaded before the session is opened.
        has_profile: Whether the provider builds an engine for a range of sizes, which then bounds the sizes.
        library: A part of the file name of the library that ONNX Runtime loads the provider from, in its folder `capi`;
            empty for a provider in ONNX Runtime itself or in a plugin.
        plugin_package: The Python package that brings the provider as a plugin; empty for providers without a plugin.
        plugin_devices: Where the plugin computes, too.
        is_built_in: Whether some ONNX Runtime has the provider itself. A plugin goes before it.
        fallbacks: Names of the providers that run the nodes that this one does not support. The CPU runs the rest.
        system: The only system that the provider exists for, by the name of `platform.system`; empty: several.
        device_option: The option that has the number of the GPU; empty: the provider chooses the GPU, or is a plugin.
        fixes_sizes: Whether a session is opened for each size, because the provider needs fixed shapes.
        lacks_bytes: Whether the provider cannot round and cannot move booleans, as a graph of bytes does at its end.
        device_remedy: What to do where the provider finds no device that it can compute on.
        refusals: Parts of messages of ONNX Runtime, each with the cause and the remedy that an error gives in its
            place.
    """

    name: str
    ort_name: str
    label: str
    device: DeviceKind
    graph_precisions: tuple[Precision, ...]
    make_settings: MakeSettings
    install_remedy: str
    needs_cuda: bool = False
    has_profile: bool = False
    library: str = ""
    plugin_package: str = ""
    plugin_devices: tuple[DeviceKind, ...] = ()
    is_built_in: bool = True
    fallbacks: tuple[str, ...] = ()
    system: str = ""
    device_option: str = ""
    fixes_sizes: bool = False
    lacks_bytes: bool = False
    device_remedy: str = "take another `backend`"
    refusals: Mapping[str, str] = field(default_factory=dict)


def _make_no_settings(bundle: Bundle, precision: Precision, sizes: SizeRange) -> dict[str, str]:
    return {}


def _make_cuda_settings(bundle: Bundle, precision: Precision, sizes: SizeRange) -> dict[str, str]:
    """Return the options of the CUDA provider. An fp32 graph computes in fp32, not in TF32.

    `use_tf32=0` keeps all convolutions off the tensor cores, whatever their type (ONNX Runtime,
    core/providers/cuda/nn/conv.cc). Half graphs go without the option. Their fp32 layers may then have TF32's 10 bits
    of mantissa, as many as fp16 has.
    """
    return {"use_tf32": "0" if precision == "fp32" else "1", "cudnn_conv_algo_search": "HEURISTIC"}


def _make_tensorrt_settings(bundle: Bundle, precision: Precision, sizes: SizeRange) -> dict[str, str]:
    """Return the options of the TensorRT provider, which has no option against TF32.

    `trt_fp16_enable` and `trt_bf16_enable` stay off. They would let TensorRT choose types, and the graph has them.
    """
    settings = _make_profile("trt", bundle, sizes)
    folder = _find_cache_folder("tensorrt", bundle, precision)
    if folder is None:
        return settings
    settings |= {"trt_engine_cache_enable": "1", "trt_engine_cache_path": str(folder)}
    return settings | {"trt_timing_cache_enable": "1", "trt_timing_cache_path": str(folder.parent)}


def _make_rtx_settings(bundle: Bundle, precision: Precision, sizes: SizeRange) -> dict[str, str]:
    settings = _make_profile("nv", bundle, sizes)
    folder = _find_cache_folder("tensorrt-rtx", bundle, precision)
    return settings if folder is None else settings | {"nv_runtime_cache_path": str(folder)}


def _make_webgpu_settings(bundle: Bundle, precision: Precision, sizes: SizeRange) -> dict[str, str]:
    """Return the options of the WebGPU provider.

    A graph of any size computes the bases of its FFTs from sines and cosines. Their absolute error may be 2⁻¹¹ on a GPU
    (WebGPU Shading Language, "Accuracy of Built-in Functions"), so the CPU computes the bases.
    """
    if bundle.sizes.static:
        return {}
    nodes = read_model(bundle.graph(precision)).graph.node
    return {"forceCpuNodeNames": "\n".join(node.name for node in nodes if f"/{FFT}/" in f"/{node.name}")}


def _make_coreml_settings(bundle: Bundle, precision: Precision, sizes: SizeRange) -> dict[str, str]:
    """Return the options of the CoreML provider.

    The older model format, NeuralNetwork, has no half graphs. A cache of compiled models (`ModelCacheDirectory`) stays
    off: ONNX Runtime finds models there by the graph's path alone, which the models of all sizes share.
    """
    return {"ModelFormat": "MLProgram", "RequireStaticInputShapes": "1"}


def _make_openvino_settings(bundle: Bundle, precision: Precision, sizes: SizeRange) -> dict[str, str]:
    """Return the options of the OpenVINO provider, which computes in half types by itself where the device is fast."""
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    return {"load_config": json.dumps({"CPU": exact, "GPU": exact})}


def _make_profile(prefix: str, bundle: Bundle, sizes: SizeRange) -> dict[str, str]:
    """Return the options that give the optimization profile: the inputs' shapes at its three corners."""
    corners = {"min": (1, sizes.min), "opt": (1, sizes.opt), "max": (sizes.max_batch or 1, sizes.max)}
    return {
        f"{prefix}_profile_{corner}_shapes": ",".join(
            f"{tensor.name}:{'x'.join(map(str, tensor.shape_for(batch, *size)))}" for tensor in bundle.manifest.inputs
        )
        for corner, (batch, size) in corners.items()
    }


def _find_cache_folder(provider: str, bundle: Bundle, precision: Precision) -> Path | None:
    """Return a folder for each graph: the providers tell engines apart by names in the graph, not by weights."""
    return cache.folder(f"onnxruntime-{provider}/{bundle.manifest.graphs[precision].file.sha256[:16]}")


#: All providers by name.
PROVIDERS: dict[str, ProviderRecord] = {
    record.name: record
    for record in (
        ProviderRecord(
            name="cpu",
            ort_name="CPUExecutionProvider",
            label="CPU",
            device="cpu",
            graph_precisions=("int8",),
            make_settings=_make_no_settings,
            install_remedy="pip install onnxruntime",
        ),
        ProviderRecord(
            name="cuda",
            ort_name="CUDAExecutionProvider",
            label="CUDA",
            device="cuda",
            graph_precisions=("fp16",),
            make_settings=_make_cuda_settings,
            install_remedy=_INSTALL_GPU,
            needs_cuda=True,
            library="onnxruntime_providers_cuda",
            device_option="device_id",
        ),
        ProviderRecord(
            name="tensorrt",
            ort_name="TensorrtExecutionProvider",
            label="TensorRT",
            device="cuda",
            graph_precisions=("fp16", "bf16"),
            make_settings=_make_tensorrt_settings,
            install_remedy=_INSTALL_GPU,
            needs_cuda=True,
            library="onnxruntime_providers_tensorrt",
            device_option="device_id",
            has_profile=True,
            fallbacks=("cuda",),
        ),
        ProviderRecord(
            name="tensorrt-rtx",
            ort_name="NvTensorRTRTXExecutionProvider",
            label="TensorRT-RTX",
            device="cuda",
            graph_precisions=("fp16", "bf16"),
            make_settings=_make_rtx_settings,
            install_remedy="pip install onnxruntime-ep-nv-tensorrt-rtx",
            has_profile=True,
            plugin_package="onnxruntime_ep_nv_tensorrt_rtx",
            is_built_in=False,
        ),
        ProviderRecord(
            name="webgpu",
            ort_name="WebGpuExecutionProvider",
            label="WebGPU",
            device="gpu",
            graph_precisions=("fp16",),
            make_settings=_make_webgpu_settings,
            install_remedy="pip install onnxruntime-ep-webgpu (Python 3.11 or later)",
            plugin_package="onnxruntime_ep_webgpu",
            is_built_in=False,
            lacks_bytes=True,
            device_remedy=_WEBGPU_DRIVER,
            refusals={
                "Failed to get a WebGPU adapter": f"no WebGPU adapter; {_WEBGPU_DRIVER}",
                "requires f16": "the GPU does not compute in fp16 (no feature shader-f16); take `precision` fp32",
            },
        ),
        ProviderRecord(
            name="directml",
            ort_name="DmlExecutionProvider",
            label="DirectML",
            device="gpu",
            graph_precisions=("fp16",),
            make_settings=_make_no_settings,
            install_remedy="pip uninstall --yes onnxruntime, then pip install onnxruntime-directml",
            system="Windows",
            device_option="device_id",
            fixes_sizes=True,
        ),
        ProviderRecord(
            name="coreml",
            ort_name="CoreMLExecutionProvider",
            label="CoreML",
            device="gpu",
            graph_precisions=("fp16",),
            make_settings=_make_coreml_settings,
            install_remedy="pip install --upgrade onnxruntime",
            system="Darwin",
            fixes_sizes=True,
        ),
        ProviderRecord(
            name="openvino",
            ort_name="OpenVINOExecutionProvider",
            label="OpenVINO",
            device="cpu",
            graph_precisions=(),
            make_settings=_make_openvino_settings,
            install_remedy="pip install onnxruntime-ep-openvino on an Intel CPU; on others pip uninstall --yes "
            "onnxruntime, then pip install onnxruntime-openvino",
            plugin_package="onnxruntime_ep_openvino",
            plugin_devices=("gpu",),
            device_remedy="the package onnxruntime-ep-openvino is for Intel's processors; take the `backend` openvino",
        ),
    )
}

#: The order in which providers are tried where the user names none. A user must name the others: some build engines on
#: the device, which can take minutes, and WebGPU may have no more than a driver that computes on the CPU.
ANY_DEVICE_ORDER = ("cuda", "cpu")
