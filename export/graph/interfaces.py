"""The inputs and outputs of each `io`."""

from __future__ import annotations

from glama_deploy.bundle import Io
from glama_deploy.export.graph.drop_in_ends import CarveInterface, MiganInterface
from glama_deploy.export.graph.inputs_outputs import ByteInterface, FloatInterface

INTERFACES: dict[Io, type[FloatInterface | ByteInterface | CarveInterface | MiganInterface]] = {
    "float": FloatInterface,
    "uint8": ByteInterface,
    "carve": CarveInterface,
    "migan": MiganInterface,
}
