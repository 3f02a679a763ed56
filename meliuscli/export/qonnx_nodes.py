"""The nodes of a QONNX graph, and signs as numbers that a ``BipolarQuant`` reads."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from meliuscli.packed.program import Array

DOMAIN = "qonnx.custom_op.general"


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor of the graph: its name, and its shape without the batch."""

    name: str
    shape: tuple[int, ...]


@dataclass(slots=True)
class QonnxGraph:
    """Nodes, constants and shapes, in the order in which they are added."""

    nodes: list[Any] = field(default_factory=list)
    constants: dict[str, Array] = field(default_factory=dict)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def add(self, op: str, name: str, inputs: list[str], shape: tuple[int, ...], **attributes: Any) -> Value:
        """A node whose output has the name and, with its batch of one, the shape."""
        from onnx import helper

        if op in ("Conv", "MaxPool"):  # consumers want all that ONNX lets be left out
            attributes = {"strides": [1, 1], "pads": [0] * 4, "dilations": [1, 1], **attributes}
        if op == "Conv":
            attributes = {"group": 1, **attributes}
        domain = DOMAIN if op in ("BipolarQuant", "Quant") else ""
        self.nodes.append(helper.make_node(op, inputs, [name], name=f"{op}_{name}", domain=domain, **attributes))
        self.shapes[name] = (1, *shape)
        return Value(name, shape)

    def constant(self, name: str, value: Any) -> str:
        self.constants[name] = np.asarray(value)
        return name

    def affine(self, x: Value, name: str, scale: Array, shift: Array) -> Value:
        """scale * x + shift, a channel each."""
        column = [np.asarray(value, np.float32).reshape(1, -1, 1, 1) for value in (scale, shift)]
        scaled = self.add("Mul", f"{name}_scaled", [x.name, self.constant(f"{name}_scale", column[0])], x.shape)
        return self.add("Add", name, [scaled.name, self.constant(f"{name}_shift", column[1])], x.shape)

    def bipolar(self, x: str, name: str, shape: tuple[int, ...]) -> str:
        one = self.constant("one", np.float32(1))
        self.add("BipolarQuant", name, [x, one], shape[1:])
        self.shapes[name] = shape
        return name
