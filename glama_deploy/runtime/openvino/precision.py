"""What OpenVINO computes in on this CPU and on other devices, and what is fast on this CPU."""

from __future__ import annotations

from glama_deploy import catalogue
from glama_deploy.bundle import Bundle, EngineName
from glama_deploy.errors import EngineError
from glama_deploy.runtime.openvino.core import core
from glama_deploy.system import cpu
from glama_deploy.text.excerpts import MAX_ENGINE_LINE, last_line

#: OpenVINO's names of the types that a model computes in: in its setting, and among a CPU's capabilities.
PRECISION_HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}
_CAPABILITIES = {"fp32": "FP32", "bf16": "BF16", "fp16": "FP16"}


def _has_int8_products() -> bool:
    """Return whether the CPU has int8 dot products (VNNI on x86, dotprod on Arm). Unknown CPUs count as such."""
    features = cpu.features()
    return not features or not features.isdisjoint(("avx512_vnni", "avx_vnni", "amx_int8", "asimddp"))


def has_costly_products(computed: str) -> bool:
    """Return whether the rewrite with the channels last, which trades products for sums, is faster on this CPU.

    On CPUs with matrix units, in a half type, and on other CPUs than x86 this was not measured: the answer is no. A CPU
    whose system does not list the features may have matrix units.

    Args:
        computed: The type that the model computes in.

    Returns:
        True if it is.
    """
    if not cpu.is_x86():
        return False
    features = cpu.features()
    return computed == "fp32" or (bool(features) and features.isdisjoint(("amx_bf16", "amx_fp16")))


def choose_precision(precision: str, *, quantized: bool) -> tuple[str, str]:
    """Choose the type that the model computes in; of a quantized graph, the type of all layers that are not int8.

    Args:
        precision: The precision that was requested, as :func:`glama_deploy.load` takes it.
        quantized: Whether the graph is in int8.

    Returns:
        The type, and a note for people where the CPU does not support the type that was requested.
    """
    notes, computed = [], "fp32"
    if quantized and not _has_int8_products():
        notes.append("no VNNI: no faster than fp32")
    wanted = precision if precision == "auto" else catalogue.PRECISIONS[precision].computed
    if wanted in _CAPABILITIES:
        if _can_compute_in(wanted):
            computed = wanted
        else:
            notes.append(f"no {wanted}")
    return computed, f" (this CPU has {', '.join(notes)})" if notes else ""


def advise(computed: str) -> str:
    """Return the advice for a type that this CPU computes in, as `Runner.advice` has it.

    Args:
        computed: The type that the model computes in; of a quantized graph, the type of all layers that are not int8.

    Returns:
        One line where the type is slower than fp32; else empty.
    """
    if computed == "fp32" or not cpu.has_slow_half_types():
        return ""
    return (
        f"this CPU has no AMX and computes {computed} more slowly than fp32; `precision=fastest` takes the fastest "
        "precision"
    )


def _can_compute_in(computed: str) -> bool:
    """Return whether this CPU computes in a type."""
    # OpenVINO lists what the CPU has, also where `ONEDNN_MAX_CPU_ISA` keeps it from computing so (2026.4)
    has = _CAPABILITIES.get(computed) in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return has and (computed == "fp32" or not cpu.is_half_switched_off(computed))


def find_precisions(*, has_int8: bool) -> tuple[str, ...]:
    """Find the precisions that this CPU computes a bundle in.

    Args:
        has_int8: Whether the bundle has a graph in int8 for OpenVINO.

    Returns:
        The precisions' names.
    """
    return tuple(
        record.name
        for record in catalogue.PRECISIONS.values()
        if _can_compute_in(record.computed) and (has_int8 or not record.is_quantized)
    )


def choose_device_precision(name: str, asked: str) -> tuple[str, str]:
    """Choose the type that a model computes in on a GPU or an NPU.

    Args:
        name: OpenVINO's name of the device.
        asked: The precision that was requested, as :func:`glama_deploy.load` takes it.

    Returns:
        The type of all layers that are not int8, and a note for people where the device computes in fp32 instead. With
        `auto` the type is fp16, which OpenVINO recommends for these devices.

    Raises:
        EngineError: the device computes neither in the type that was requested nor in fp32.
    """
    types = _list_types(name)
    wanted = "fp16" if asked == "auto" else catalogue.PRECISIONS[asked].computed
    if wanted in types:
        return wanted, ""
    if "fp32" in types:
        return "fp32", f" ({name} has no {wanted})"
    names = catalogue.join_names(types) if types else "none of OpenVINO's types"
    raise EngineError(f"`precision` is {asked}, and {name} computes in {names}; give `precision=auto`")


def find_device_precisions(name: str, *, has_int8: bool) -> tuple[str, ...]:
    """Find the precisions that a GPU or an NPU computes a bundle in.

    Args:
        name: OpenVINO's name of the device.
        has_int8: Whether the bundle has a graph in int8 for OpenVINO.

    Returns:
        The precisions' names.
    """
    types = _list_types(name)
    records = catalogue.PRECISIONS.values()
    return tuple(
        record.name for record in records if record.computed in types and (has_int8 or not record.is_quantized)
    )


def _list_types(name: str) -> list[str]:
    """List the types that a device computes in, without int8. Raise EngineError where its driver does not answer."""
    try:
        has = core().get_property(name, "OPTIMIZATION_CAPABILITIES")
    except RuntimeError as error:
        raise EngineError(f"OpenVINO cannot open {name}: {last_line(error, MAX_ENGINE_LINE)}") from error
    return [precision for precision, capability in _CAPABILITIES.items() if capability in has]


def uses_int8(bundle: Bundle, name: EngineName, precision: str) -> bool:
    """Return whether to run the engine's int8 graph. A bundle in int8 also has the fp32 graph.

    Args:
        bundle: The bundle.
        name: The engine.
        precision: The precision that was requested, as :func:`glama_deploy.load` takes it.

    Returns:
        True if the graph is in int8, and int8 or no precision was requested.

    Raises:
        EngineError: int8 was requested, and the engine is not in int8.
    """
    there = catalogue.PRECISIONS[bundle.manifest.engines[name].precision].is_quantized
    asked = precision != "auto" and catalogue.PRECISIONS[precision].is_quantized
    if asked and not there:
        remedy = "export it with `precision=int8` `calibration=FOLDER` `targets=openvino`"
        if "int8" in bundle.manifest.graphs:
            remedy = f"`build({bundle.path}, target=openvino, precision=int8)`"
        raise EngineError(f"{bundle.path} is not in int8 for OpenVINO; {remedy}")
    return there and (precision == "auto" or asked)
