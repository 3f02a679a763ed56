"""The first road: a spec's layers counted by arithmetic, without torch."""

from __future__ import annotations

from functools import lru_cache

from meliuscli.arch.plan import Layer
from meliuscli.arch.spec import ArchSpec
from meliuscli.counting.counts import FLOAT_BITS, Count, NetworkCount, Op, Storage, layer_count, merged, size_bytes

ELEMENTWISE = {"batch_norm": 2, "relu": 2, "add": 1, "multiply": 1}
"""Operations an element, as Real-to-Binary's tool counts them. It does not know PReLU, ReLU6, sigmoid and sign; it sees
the additions and multiplications that shifts and mixtures are made of (``Layer.work``)."""


def count_spec(spec: ArchSpec, storage: Storage = Storage()) -> NetworkCount:  # noqa: B008
    """Count a network for one image of ``spec.input_shape``.

    Padded positions are full MACs, as all tools of the field have it; batch norm has no MACs."""
    return NetworkCount(tuple(count_layer(layer, storage) for layer in spec.layers()))


@lru_cache(maxsize=2**16)
def count_layer(layer: Layer, storage: Storage) -> Count:
    """Count one layer; kept, since the networks of a search have most of their layers in common."""
    if layer.kind == "conv" or layer.kind == "linear":
        weights = layer.kernel**2 * layer.in_channels * layer.out_channels // layer.groups
        op = Op(layer.kind, layer.weight_bits, layer.activation_bits)
        bias, pixels = layer.out_channels if layer.bias else 0, layer.out_size**2
        # The tool behind ``elementwise`` adds a convolution's bias and forgets a linear layer's.
        additions = bias * pixels if layer.kind == "conv" else 0
        return layer_count(
            layer.name, layer.kind, layer.output, op, weights * pixels, weights, bias, storage, additions
        )
    channels, elements = layer.out_channels, layer.out_channels * layer.out_size**2
    params = min(layer.stored, storage.bn_params) * channels if layer.kind == "batch_norm" else layer.params
    by_bits = merged([(FLOAT_BITS, params)])
    return Count(
        layer.name,
        layer.kind,
        layer.output,
        weights=by_bits,
        size_bytes=size_bytes(by_bits, storage),
        elementwise=_elementwise(layer, elements),
    )


def _elementwise(layer: Layer, elements: int) -> int:
    if layer.kind == "avg_pool":
        return layer.kernel**2 * elements
    if layer.kind == "max_pool":
        return (layer.kernel**2 - 1) * elements
    return (ELEMENTWISE.get(layer.kind, 0) + layer.work) * elements
