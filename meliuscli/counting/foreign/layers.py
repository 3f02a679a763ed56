"""The network's layers: products with their bits, weights at their real size, and what is to be said about them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod

import torch
from torch import Tensor, nn

from meliuscli.counting.counts import FLOAT_BITS
from meliuscli.counting.foreign.bits import FLOAT, Bits, Evidence, Ruling, Word, bits_text, ruling
from meliuscli.counting.foreign.statements import BINARY_NAME, Stated, Statement, stated_bits
from meliuscli.counting.foreign.values import Seen
from meliuscli.counting.foreign.watch import Product, Watch, row_of, storage_of
from meliuscli.counting.traced import stored_bn_values

Note = tuple[str, str, str, int, bool]
"""What it is about, in which words, in which module, a number, and whether it is a doubt."""

_CONVS = nn.modules.conv._ConvNd


@dataclass(slots=True)
class Layer:
    """A row. ``names``: all that its module has. ``tensors``: stored in it, and in no row before it, by storage."""

    row: str
    part: nn.Module
    watch: Watch
    names: list[str] = field(default_factory=list)
    tensors: dict[int, Tensor] = field(default_factory=dict)
    packed: list[Tensor] = field(default_factory=list)
    norms: list[nn.modules.batchnorm._BatchNorm] = field(default_factory=list)
    products: list[Product] = field(default_factory=list)
    rulings: tuple[Ruling, ...] = ()
    word: Word | None = None
    statement: Statement = Statement(None, None, None)
    is_guessed: bool = False

    @property
    def shown(self) -> str:
        return self.row or f"({type(self.part).__name__})"

    @property
    def has_weights_or_macs(self) -> bool:
        return bool(self.products) or self._main_weight() is not None or bool(self.packed)

    @property
    def output(self) -> tuple[int, ...]:
        calls = self.watch.shapes.get(self.row)
        shape = calls[-1][1] if calls else self.products[-1].output if self.products else ()
        return shape[1:]

    @property
    def index_bytes(self) -> int:
        """Of sparse weights: where their values are."""
        sparse = [t for t in self.tensors.values() if t.layout != torch.strided and isinstance(t, nn.Parameter)]
        return sum(_index_bytes(t.detach()) for t in sparse)

    def kernels(self, bits: Sequence[Bits]) -> Iterator[tuple[int, int]]:
        """The storages that its products multiply, not biases or scales, at their bits."""
        for product, (weight_bits, _) in zip(self.products, bits, strict=True):
            for key in product.roots:
                tensor = self.watch.tensors[key]
                if key == product.roots[0] or (tensor.dim() > 1 and tensor.numel() > max(tensor.shape)):
                    yield key, weight_bits
        main = self._main_weight()
        if (
            self.word is not None
            and main is not None
            and (not self.products or not any(p.roots for p in self.products))
        ):
            yield storage_of(main), self.word.bits[0]

    def weights(self, kernel_bits: Mapping[int, int], bn_values: int) -> Iterator[tuple[int, int]]:
        """Numbers of weights by bits. A buffer counts where it is what a product multiplies."""
        for norm in self.norms:
            bits = 8 * (norm.weight if norm.weight is not None else norm.running_mean or torch.empty(0)).element_size()
            yield bits, min(stored_bn_values(norm), bn_values) * norm.num_features
        sizes = {p.roots[0]: p.num_weights for p in self.products if p.roots}
        for key, tensor in self.tensors.items():
            decided, number = kernel_bits.get(key, FLOAT_BITS), _number(tensor)
            if decided < FLOAT_BITS and not isinstance(tensor, nn.Parameter) and not tensor.is_floating_point():
                number = sizes.get(key, number)  # several in one integer
            yield (decided if decided < FLOAT_BITS else _type_bits(tensor)), number
        for tensor in self.packed:
            yield _type_bits(tensor), tensor.numel()

    def _main_weight(self) -> Tensor | None:
        """The largest tensor of its own, where that is a matrix or a kernel."""
        largest = max(self.tensors.values(), key=_number, default=None)
        scales = nn.LayerNorm | nn.GroupNorm | nn.LocalResponseNorm | nn.Embedding | nn.EmbeddingBag
        return None if largest is None or largest.dim() < 2 or isinstance(self.part, scales) else largest

    def notes(self) -> Iterator[Note]:
        what, shown = type(self.part).__name__, self.row
        doubts = dict.fromkeys((one.doubt, True) for one in self.rulings if one.doubt)
        for text, doubt in [*doubts, *dict.fromkeys((one.note, False) for one in self.rulings if one.note)]:
            yield what, text, shown, 0, doubt
        if self.statement.wrong and (self.products or self._main_weight() is not None):
            yield (
                what,
                f"{self.statement.wrong}: no bits (1 to 32), ignored; counts as {bits_text(self._bits())}",
                shown,
                0,
                True,
            )
        for operation, times in self.watch.unknown.get(self.row, {}).items():
            for _ in range(times):
                yield (
                    operation,
                    "may hide MACs; torch.utils.flop_counter.register_flop_formula gives it a formula",
                    shown,
                    0,
                    True,
                )
        if self.is_guessed:
            text = "no MACs are seen in it; {n} counted from its weight and output shape"
            yield what, text, shown, sum(p.macs for p in self.products), False
        elif not self.products and self._multiplies_unseen() and self._main_weight() is not None:
            yield what, "has {n} weights, but no MACs are seen in it", shown, self._number_of_weights(), True
        if self.tensors and not self.watch.used & set(self.tensors) and not self.watch.shapes.get(self.row):
            text = "never called: its {n} weights count, its operations do not"
            yield what, text, shown, self._number_of_weights(), self.word is not None
        if any(t.is_complex() for t in self.tensors.values()):
            yield what, "complex: a weight is two real ones, a MAC four", shown, 0, False
        if self.products and any(not isinstance(t, nn.Parameter) for t in self.tensors.values()):
            yield what, "its weights are in buffers, which count", shown, 0, False

    def _bits(self) -> Bits:
        return self.rulings[0].bits if self.rulings else FLOAT

    def _number_of_weights(self) -> int:
        return sum(map(_number, self.tensors.values()))

    def _multiplies_unseen(self) -> bool:
        is_layer = isinstance(self.part, _CONVS | nn.Linear) or self.row in self.watch.unknown
        below = f"{self.row}." if self.row else ""
        inside = any(p.row == self.row or p.row.startswith(below) for p in self.watch.products)
        return is_layer and bool(self.watch.shapes.get(self.row)) and not inside

    def guess(self) -> None:
        """MACs that no road sees (in somebody's compiled operation) are counted from the shapes, where those are of a
        convolution or a linear layer."""
        weight = self._main_weight()
        if weight is None or not self._multiplies_unseen():
            return
        macs = [_macs_of_shapes(self.part, weight, *call) for call in self.watch.shapes[self.row]]
        if all(macs):
            evidence = (Seen(), Seen()), (None, None), (None, None)
            kind = "linear" if weight.dim() == 2 else "conv"
            key, output = storage_of(weight), self.watch.shapes[self.row][-1][1]
            self.products.append(Product(self.row, kind, sum(macs), output, (key,), weight.numel(), *evidence))
            self.is_guessed = True

    def rule(self, binary_names: bool) -> None:
        says = self.statement
        by = type(self.part).__name__
        stated = (says.weight or says.both, says.activation)
        own = tuple(None if bits is None else Stated(bits, by) for bits in stated)

        def of(product: Product) -> Ruling:
            role = own if product.roots or self.packed else (None, None)
            evidence = [Evidence(product.stated[i] or role[i], product.stored[i], product.seen[i]) for i in range(2)]
            return ruling(evidence[0], evidence[1], self.word, binary_names)

        self.rulings = tuple(map(of, self.products))


def layers_of(module: nn.Module, watch: Watch, words: Sequence[Word]) -> list[Layer]:
    """One for each module, in order of registration; a shared module's weights count once."""
    layers: dict[str, Layer] = {}
    multiplied = {product.roots[0] for product in watch.products if product.roots}
    counted: set[int] = set()
    for name, part in module.named_modules():
        layer = layers.setdefault(row_of(name), Layer(row_of(name), part, watch))
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            layer.norms.append(part)
            continue
        for tensor in [*part.parameters(recurse=False), *part.buffers(recurse=False)]:
            key = storage_of(tensor)
            if key not in counted and (isinstance(tensor, nn.Parameter) or key in multiplied):
                counted.add(key)
                layer.tensors[key] = tensor
        layer.packed += _packed(part)
    for product in _merged(watch.products):
        layers[product.row].products.append(product)
    aliases = _aliases(module)
    for layer in layers.values():
        layer.names = [*aliases[id(layer.part)], layer.shown]
        layer.word = next((word for word in words if word.names(layer.names)), None)
        layer.statement = stated_bits(layer.part)
        layer.guess()
        layer.rule(_has_binary_name(layer, layers))
    return list(layers.values())


def _aliases(module: nn.Module) -> dict[int, list[str]]:
    names: dict[int, list[str]] = {}
    for name, part in module.named_modules(remove_duplicate=False):
        names.setdefault(id(part), []).append(name)
    return names


def _packed(part: nn.Module) -> list[Tensor]:
    """What a module of ``torch.ao.nn.quantized`` holds packed: its weight and bias."""
    if not hasattr(part, "_packed_params") or not callable(getattr(part, "weight", None)):
        return []
    return [t for t in (part.weight(), part.bias() if hasattr(part, "bias") else None) if isinstance(t, Tensor)]


def _merged(products: Sequence[Product]) -> list[Product]:
    """Products with the same weights in the same row are one: of several calls the dearest reading counts."""
    merged: dict[object, Product] = {}
    for number, new in enumerate(products):
        key = (new.row, new.kind, new.roots) if new.roots else number
        old = merged.setdefault(key, new)
        if old is not new:
            seen = (old.seen[0] | new.seen[0], old.seen[1] | new.seen[1])
            stated = tuple(max(a, b) if a and b else None for a, b in zip(old.stated, new.stated, strict=True))
            merged[key] = replace(new, macs=old.macs + new.macs, seen=seen, stated=stated)  # type: ignore[arg-type]
    return list(merged.values())


def _has_binary_name(layer: Layer, layers: Mapping[str, Layer]) -> bool:
    """Its class, one that it inherits from outside torch, or that of the module around it."""
    around = layers.get(layer.row.rpartition(".")[0], layer)
    classes = [*type(layer.part).__mro__, type(around.part)]
    own = [cls.__name__.lower().replace("_", "") for cls in classes if cls.__module__.partition(".")[0] != "torch"]
    return any(BINARY_NAME.fullmatch(name) for name in own)


def _type_bits(tensor: Tensor) -> int:
    """Of a value as it is stored; of a real one where it is complex."""
    if tensor.dtype == torch.quint4x2:
        return 4
    return tensor.element_size() * (4 if tensor.is_complex() else 8)


def _number(tensor: Tensor) -> int:
    """Of the real numbers that are stored."""
    if tensor.layout != torch.strided:
        return int(_values_of(tensor.detach()).numel())
    return tensor.numel() * (1 + tensor.is_complex())


def _values_of(tensor: Tensor) -> Tensor:
    return tensor.coalesce().values() if tensor.layout == torch.sparse_coo else tensor.values()


def _index_bytes(tensor: Tensor) -> int:
    if tensor.layout == torch.sparse_coo:
        return tensor.coalesce().indices().nbytes
    by_rows = tensor.layout in (torch.sparse_csr, torch.sparse_bsr)
    compressed = (
        (tensor.crow_indices(), tensor.col_indices()) if by_rows else (tensor.ccol_indices(), tensor.row_indices())
    )
    return sum(indices.nbytes for indices in compressed)


def _macs_of_shapes(part: nn.Module, weight: Tensor, before: tuple[int, ...], after: tuple[int, ...]) -> int:
    """MACs of one call, from the shapes of its input and output; 0 where they are not those of a convolution or linear
    layer with this weight."""
    if not before or not after:
        return 0
    if weight.dim() == 2:
        return prod(after) * before[-1] if (after[-1], before[-1]) == tuple(weight.shape) else 0
    if len(before) != weight.dim() or len(after) != weight.dim():
        return 0
    transposed = isinstance(part, nn.modules.conv._ConvTransposeNd)
    fits = (
        before[1] == weight.shape[0] if transposed else after[1] == weight.shape[0] and not before[1] % weight.shape[1]
    )
    return after[0] * prod((before if transposed else after)[2:]) * weight.numel() if fits else 0
