"""Counts as the JSON object that other programs read: a frozen interface."""

from __future__ import annotations

from typing import Any

from meliuscli.counting.counts import By, Count
from meliuscli.counting.memory import Memory
from meliuscli.report.counted import Counted, View, shown_rows
from meliuscli.report.own import left_out, own_object

_FIELDS = ("binary_macs", "float_macs", "quantized_macs", "params", "binary_params", "size_bytes")


def count_object(network: Counted, by: By, view: View, verified: bool | None) -> dict[str, Any]:
    """The JSON of ``count`` (and, with ``published``, one entry of that of ``compare``): a frozen interface.

    ``rows`` and ``total`` are raw integers, every convolution and linear MAC whatever the convention; ``derived`` is
    the total under the convention."""
    derived = view.convention.derive(network.count.total, view.float_bits)
    memory = network.memory(view.storage)
    return {
        "arch": network.name,
        "archid": None if network.spec is None else network.spec.archid,
        "input": list(network.input_shape),
        "convention": view.convention.name,
        "rows": [_row_object(row) for row in shown_rows(network.count, by)],
        "total": _row_object(network.count.total),
        "derived": {
            "bops": derived.bops,
            "flops": derived.flops,
            "quantized_macs": derived.quantized,
            "ops": derived.ops,
        },
        "memory": None if memory is None else memory_object(memory, by),
        "verified": verified,
        **_own_fields(network, view),
    }


def _own_fields(network: Counted, view: View) -> dict[str, Any]:
    if network.own is None:
        return {}
    return own_object(network.own, _assumes_much(network, view), left_out(network.count.total, view.convention))


_MUCH = 1.05


def _assumes_much(network: Counted, view: View) -> bool:
    """Would the network cost 5 % more, were the doubts true?"""
    assert network.own is not None
    ops = view.convention.derive(network.count.total, view.float_bits).ops
    dearest = view.dearest_ops(network.own)
    if ops is None or dearest is None:
        return network.own.dearest != network.own.count
    return dearest > _MUCH * ops


def _row_object(row: Count) -> dict[str, Any]:
    return {
        "name": row.name,
        "kind": row.kind,
        "output": list(row.output),
        **{f: getattr(row, f) for f in _FIELDS},
        **row.by_bits(),
    }


def memory_object(memory: Memory, by: By = "stage") -> dict[str, Any]:
    """The JSON of what a network needs of a device: of each stage, or of each block."""
    parts = memory.by_part("block" if by == "block" else "stage")
    return {
        "ram_bytes": memory.ram_bytes,
        "flash_bytes": memory.flash_bytes,
        "order": memory.order,
        "parts": [
            {
                "part": name,
                "float_bytes": alive.float_bytes,
                "integer_bytes": alive.integer_bytes,
                "sign_bytes": alive.sign_bytes,
                "total_bytes": alive.total,
                "flash_bytes": flash,
            }
            for name, (alive, flash) in parts.items()
        ],
    }
