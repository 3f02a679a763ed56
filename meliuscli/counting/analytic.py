"""The first road: a spec's layers counted by arithmetic, without torch."""

from __future__ import annotations

from functools import lru_cache

from meliuscli.arch.plan import Layer
from meliuscli.arch.spec import ArchSpec
from meliuscli.counting.counts import FLOAT_BITS, Count, NetworkCount, Op, Storage, merged, size_bytes

ELEMENTWISE = {"batch_norm": 2, "relu": 2, "add": 1, "multiply": 1}
"""Operations an element, as Real-to-Binary's tool counts them. It does not know PReLU, ReLU6, sigmoid and sign; it sees
the additions and multiplications that shifts and mixtures are made of (``Layer.work``)."""


@lru_cache(maxsize=32)
def count_spec(spec: ArchSpec, storage: Storage = Storage()) -> NetworkCount:  # noqa: B008
    """Count a network for one image of ``spec.input_shape``.

    Padded positions are full MACs, as all tools of the field have it; batch norm has no MACs."""
    return NetworkCount(tuple(count_layer(layer, storage) for layer in spec.layers()))


@lru_cache(maxsize=2**16)
def count_layer(layer: Layer, storage: Storage) -> Count:
    """Count one layer; kept, since the networks of a search have most of their layers in common."""
    macs: tuple[tuple[Op, int], ...] = ()
    kind, elements = str(layer.kind), layer.out_channels * layer.out_size**2
    if layer.kind == "conv" or layer.kind == "linear":
        op = Op(layer.kind, layer.weight_bits, layer.activation_bits)
        kind, macs = f"{op.prefix}{kind}", merged([(op, layer.macs)])
        bias = layer.out_channels if layer.bias else 0
        by_bits = merged([(op.weight_bits, layer.weights), (FLOAT_BITS, bias)])
        # The tool behind ``elementwise`` adds a convolution's bias and forgets a linear layer's.
        work = elements if layer.bias and layer.kind == "conv" else 0
    else:
        stored = min(layer.stored, storage.bn_params) * layer.out_channels
        by_bits = merged([(FLOAT_BITS, stored if layer.kind == "batch_norm" else layer.params)])
        work = _elementwise(layer, elements)
    size = size_bytes(by_bits, storage)
    return Count(layer.name, kind, layer.output, macs, by_bits, size, work, layer.stage, layer.block)


def _elementwise(layer: Layer, elements: int) -> int:
    if layer.kind == "avg_pool":
        return layer.kernel**2 * elements
    if layer.kind == "max_pool":
        return (layer.kernel**2 - 1) * elements
    return (ELEMENTWISE.get(layer.kind, 0) + layer.work) * elements
