"""The first road: a spec's layers counted by arithmetic, without torch."""

from __future__ import annotations

from meliuscli.arch.plan import Layer
from meliuscli.arch.spec import ArchSpec
from meliuscli.counting.counts import Count, NetworkCount, layer_size_bytes


def count_spec(spec: ArchSpec) -> NetworkCount:
    """Count a network for one image of ``spec.input_shape``.

    Padded positions are full MACs (larger networks' tools agree; the paper's counter does the same), batch norm has
    two parameters a channel and no MACs."""
    return NetworkCount(tuple(count_layer(layer) for layer in spec.layers()))


def count_layer(layer: Layer) -> Count:
    """Count one layer."""
    if layer.kind == "batch_norm":
        params = 2 * layer.out_channels
        return Count(layer.name, layer.kind, layer.output, params=params, size_bytes=4 * params)
    if layer.kind in ("max_pool", "avg_pool"):
        return Count(layer.name, layer.kind, layer.output)
    weights = layer.kernel**2 * layer.in_channels * layer.out_channels // layer.groups
    macs = weights * layer.out_size**2
    params = weights + (layer.out_channels if layer.bias else 0)
    binary = layer.kind == "binary_conv"
    binary_params = weights if binary else 0
    return Count(
        layer.name,
        layer.kind,
        layer.output,
        binary_macs=macs if binary else 0,
        float_macs=0 if binary else macs,
        params=params,
        binary_params=binary_params,
        size_bytes=layer_size_bytes(params, binary_params),
        linear_macs=macs if layer.kind == "linear" else 0,
    )
