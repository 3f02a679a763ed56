"""How much memory it takes to run a network, roughly: enough to refuse what would take the machine down. No torch."""

from __future__ import annotations

from meliuscli.arch.spec import ArchSpec
from meliuscli.counting.analytic import count_spec
from meliuscli.memory import require_memory

BASE = 2**29
"""Bytes of Python, torch and its caches."""
TRACED = 0.5
"""Of all maps of an image, this many times their bytes are there at once when a network runs and forgets them."""
COMPARED = 1.5
"""And when every layer is kept to be held against another implementation of it."""
TRAINED = 2.0
"""And when gradients are to be had of it."""


def map_bytes(spec: ArchSpec) -> int:
    """The outputs of all layers for one image, in float32."""
    return sum(4 * layer.out_channels * layer.out_size**2 for layer in spec.layers())


def require_room(spec: ArchSpec, images: int, share: float, what: str, hint: str, copies: int = 2) -> None:
    """Raise ``MissingError`` where ``images`` at a time, with ``share`` of their maps at once, and ``copies`` of the
    parameters would take more memory than is free. ``what`` is the subject of the message."""
    params = 4 * count_spec(spec).total.params
    require_memory(int(BASE + share * images * map_bytes(spec) + copies * params), what, hint)
