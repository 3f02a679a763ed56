"""What a manifest says that follows from its network: written by one function, and held against it when it is read. No torch."""

from __future__ import annotations

from typing import Any

from meliuscli.arch.families.dense import runs_whole
from meliuscli.arch.spec import ArchSpec
from meliuscli.counting.analytic import count_spec
from meliuscli.counting.memory_int8 import has_float_ends

FORMAT = "meliuscli-c-1"
COUNTED = ("binary_macs", "quantized_macs", "float_macs", "params")
"""What a manifest says of a network's cost."""
OTHERS = frozenset(("meliuscli", "network", "spec", "int8", "preprocessing", "weights_sha256", "files_sha256"))
"""The other fields of a manifest."""


def stated_of(spec: ArchSpec, is_int8: bool) -> dict[str, Any]:
    """Fields by name, as JSON gives them back."""
    total = count_spec(spec).total
    return {
        "format": FORMAT,
        "archid": spec.archid,
        "counts": {name: getattr(total, name) for name in COUNTED},
        "float_parts": _float_parts(spec, is_int8),
        "input": {"shape": list(spec.input_shape), "type": "float32", "order": "channels, rows, columns"},
    }


def _float_parts(spec: ArchSpec, is_int8: bool) -> str:
    """Which parts are no whole numbers."""
    if runs_whole(spec):
        kinds = "stem and head are int8, transitions float32" if is_int8 else "stem, transitions and head are float32"
        return f"{kinds}; binary convolutions and thresholds of their counts are integers"
    if not has_float_ends(spec):
        return "a scale and a shift of each logit are float32; all layers and thresholds of their numbers are integers"
    kinds = "stem and head are int8, shortcuts float32" if is_int8 else "stem, shortcuts and head are float32"
    return f"{kinds}, and so are sums of blocks; binary convolutions and thresholds of their numbers are integers"
