"""An OpenVINO that finds Intel's GPUs and an NPU, and runs their models on the CPU."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

#: What the plugins of 2026.4 report of such devices.
_PROPERTIES: dict[str, dict[str, Any]] = {
    "GPU": {"OPTIMIZATION_CAPABILITIES": ["FP32", "BIN", "FP16", "INT8", "EXPORT_IMPORT"]},
    "NPU": {"OPTIMIZATION_CAPABILITIES": ["FP16", "INT8", "EXPORT_IMPORT"]},
}


class CoreWithDevices:
    """An `openvino.Core`. All that is asked of the CPU is asked of the real core.

    A model for another device is checked as the device's plugin does: its shapes are fixed, its inputs are of types
    that an NPU takes, and its settings are among those that the plugin lists as writable. The model then runs on the
    CPU, in fp32.

    Attributes:
        available_devices: the devices.
        auto: the device that AUTO chooses.
        compiled: of each model for another device, the device, the shape of the first input, and the settings.
        models: the models themselves.
        values: properties of devices, by device and name, that replace those of a usual device.
        fault: the message of the next compilation that fails; empty: none fails.
    """

    def __init__(self, real: Any, *devices: str, auto: str = "CPU") -> None:
        self._real = real
        self.available_devices, self.auto = ["CPU", *devices], auto
        self.compiled: list[tuple[str, tuple[int, ...], dict[str, Any]]] = []
        self.models: list[Any] = []
        self.values: dict[tuple[str, str], Any] = {}
        self.fault = ""

    def read_model(self, path: str) -> Any:
        return self._real.read_model(path)

    def import_model(self, *arguments: Any) -> Any:
        return self._real.import_model(*arguments)

    def get_property(self, name: str, key: str) -> Any:
        kind = name.partition(".")[0]
        if kind == "CPU":
            return self._real.get_property(name, key)
        assert name in self.available_devices or f"{name}.0" in self.available_devices
        known = {**_PROPERTIES[kind], **{at: value for (of, at), value in self.values.items() if of == name}}
        if key not in known:
            raise RuntimeError(f"Unsupported configuration key: {key}")
        return known[key]

    def compile_model(self, model: Any, name: str, config: dict[str, Any]) -> Any:
        kind = name.partition(".")[0].partition(":")[0]
        if kind == "CPU":
            return self._real.compile_model(model, name, config)
        if kind == "AUTO":
            assert config["ENABLE_STARTUP_FALLBACK"] is False
            return SimpleNamespace(get_property={"EXECUTION_DEVICES": [self.auto]}.__getitem__)
        assert name in self.available_devices or f"{name}.0" in self.available_devices
        settings = self._real.get_property(kind, "SUPPORTED_PROPERTIES")
        assert {key: settings.get(key) for key in config} == dict.fromkeys(config, "RW")
        assert not model.is_dynamic()
        assert {port.get_element_type().to_string() for port in model.inputs} <= {"f32", "f16", "u8", "i8"}
        if self.fault:
            raise RuntimeError(f"Exception from src/plugin.cpp:1:\n{self.fault}\n")
        self.models.append(model)
        self.compiled.append((name, tuple(model.inputs[0].shape), dict(config)))
        return self._real.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
