"""RAM of networks whose blocks have several convolutions, as the C library runs them: float ResNet, and Bi-Real Net's bottlenecks
of two streams. No torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby

from meliuscli.arch.families.residual import ResidualSpec
from meliuscli.arch.families.resnet import ResNetSpec
from meliuscli.arch.plan import HEAD, STEM, Layer
from meliuscli.counting.memory_parts import PIXELS, Alive, map_bytes, sign_bytes, stem_rows


def block_parts(spec: ResidualSpec, layers: tuple[Layer, ...]) -> Iterator[Alive]:
    """Every moment of each block and part."""
    size = next(layer for layer in layers if layer.stage == "stage1").out_size
    wide = map_bytes(spec.stem_channels, size)
    yield Alive(STEM, wide + stem_rows(spec, [layer for layer in layers if layer.stage == STEM]))
    blocks = [list(own) for _, own in groupby((one for one in layers if one.block), lambda one: (one.stage, one.block))]
    narrow = 0
    for number, block in enumerate(blocks):
        if isinstance(spec, ResNetSpec):
            moments = _float_block(block, wide)
        else:
            moments = _bottleneck(block, wide, narrow, is_last=number + 1 == len(blocks))
            narrow = _map(_named(block, "conv2"))
        yield from (replace(moment, block=block[0].block) for moment in moments)
        wide = max(
            _map(layer) for layer in block if layer.name.endswith((".conv3", ".conv2")) and _is_last(layer, block)
        )
    yield Alive(HEAD, wide + 4 * spec.channels[-1])


def _map(layer: Layer) -> int:
    return map_bytes(layer.out_channels, layer.out_size)


def _named(block: Sequence[Layer], what: str) -> Layer:
    return next(layer for layer in block if layer.name.endswith(f".{what}"))


def _convs(block: Sequence[Layer]) -> list[Layer]:
    """Those in a row, without the shortcuts."""
    names = tuple(f".conv{number}" for number in (1, 2, 3))
    return [layer for layer in block if layer.kind == "conv" and layer.name.endswith(names)]


def _is_last(layer: Layer, block: Sequence[Layer]) -> bool:
    return layer is _convs(block)[-1]


def _float_block(block: Sequence[Layer], stream: int) -> Iterator[Alive]:
    """What is added to is there from the first convolution on; each reads the map of the one before it."""
    stage, convs = block[0].stage, _convs(block)
    changes = any(layer.name.endswith(".shortcut.conv") for layer in block)
    target = _map(convs[-1]) if changes else stream
    if changes:
        yield Alive(stage, stream + target)
    before = stream if changes else 0
    for conv in convs[:-1]:
        yield Alive(stage, target + before + _map(conv))
        before = _map(conv)


def _bottleneck(block: Sequence[Layer], wide: int, narrow: int, *, is_last: bool) -> Iterator[Alive]:
    """Both streams, and the signs of one of them from where they are taken to their convolution."""
    stage, (first, second, third) = block[0].stage, _convs(block)
    size, entering = first.out_size, first.in_channels
    inner = _map(first)
    if first.activation_bits > 1:
        yield Alive(stage, wide + inner + 4 * PIXELS * entering)
    else:
        widened = inner if any(layer.name.endswith(".narrow") for layer in block) else 0
        yield Alive(stage, wide + narrow + widened, 0, sign_bytes(entering, size))
    pooled = _map(second) if second.stride > 1 else 0
    yield Alive(stage, wide + inner + pooled, 0, sign_bytes(second.in_channels, size))
    signs = sign_bytes(third.in_channels, third.out_size)
    yield Alive(stage, wide + _map(second), 0, signs)
    if any(layer.name.endswith(".shortcut.conv") for layer in block):
        made = 4 * PIXELS * entering if second.stride > 1 else 0
        yield Alive(stage, wide + (0 if is_last else _map(second)) + _map(third) + made, 0, signs)
