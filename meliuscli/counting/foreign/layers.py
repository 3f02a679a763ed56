"""The network's layers: products with their rulings, weights at their real size, and what is to be said of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod

import torch
from torch import Tensor, nn

from meliuscli.counting.batch_norm import stored_bn_values
from meliuscli.counting.counts import FLOAT_BITS
from meliuscli.counting.foreign.bits import FLOAT, Ruling, Word, bits_text, ruling
from meliuscli.counting.foreign.formulas import Kind
from meliuscli.counting.foreign.statements import BINARY_NAME, Stated, Statement, stated_bits
from meliuscli.counting.foreign.tensors import held_by, is_matrix, key_of, num_reals, packed_in, stored_bits, type_bits
from meliuscli.counting.foreign.watch import Product, Watch, row_of

Kernels = tuple[int, Mapping[int, int]]
"""Bits of what is made of a tensor, and numbers of weights by what they are."""

Note = tuple[str, str, str, int, bool]
"""What it is about, in which words, in which module, a number, and whether it is a doubt."""

_BatchNorm = nn.modules.batchnorm._BatchNorm
_WITHOUT_MACS = (nn.LayerNorm, nn.GroupNorm, nn.LocalResponseNorm, nn.Embedding, nn.EmbeddingBag)


@dataclass(slots=True)
class ModuleRow:
    """A row. ``names``: all that its module has. ``tensors``: stored in it, and in no row before it, by storage; in
    ``packed`` those of ``torch.ao``. ``rulings``: one a product."""

    row: str
    part: nn.Module
    watch: Watch
    statement: Statement
    names: list[str] = field(default_factory=list)
    tensors: dict[int, Tensor] = field(default_factory=dict)
    packed: list[Tensor] = field(default_factory=list)
    norms: list[_BatchNorm] = field(default_factory=list)
    products: list[Product] = field(default_factory=list)
    rulings: list[Ruling] = field(default_factory=list)
    word: Word | None = None
    is_guessed: bool = False
    has_buffers: bool = False

    @property
    def shown(self) -> str:
        return self.row or f"({type(self.part).__name__})"

    @property
    def calls(self) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
        """Shapes of the input and the output of each call."""
        return self.watch.shapes.get(self.row, [])

    @property
    def output(self) -> tuple[int, ...]:
        return (self.calls[-1][1] if self.calls else self.products[-1].output if self.products else ())[1:]

    @property
    def main_weight(self) -> Tensor | None:
        """The largest tensor of its own, where that is a matrix or a kernel."""
        largest = max(self.tensors.values(), key=num_reals, default=None)
        return None if largest is None or largest.dim() < 2 or isinstance(self.part, _WITHOUT_MACS) else largest

    @property
    def is_counted(self) -> bool:
        return bool(self.products or self.packed) or self.main_weight is not None

    def kernels(self, dearest: bool) -> Iterator[tuple[int, int, Mapping[int, int]]]:
        """Storages of what its products multiply (not of biases and scales), the bits that they take, and what is made of
        them."""
        for product, rule in zip(self.products, self.rulings, strict=True):
            for number, key in enumerate(product.roots):
                if number == 0 or is_matrix(self.watch.tensors[key]):
                    yield key, (rule.dearer if dearest else rule.bits)[0], {} if number else product.kernels
        if self.word is not None and self.main_weight is not None and not any(p.roots for p in self.products):
            yield key_of(self.main_weight), self.word.bits[0], {}

    def weights(self, kernels: Mapping[int, Kernels], bn_values: int) -> Iterator[tuple[int, int, int]]:
        """Numbers of weights by bits, and the bits at which they are stored: other ones for a float of another size."""
        for norm in self.norms:
            like = next((t for t in (norm.weight, norm.running_mean) if t is not None), torch.empty(0))
            yield *_type(like), min(stored_bn_values(norm), bn_values) * norm.num_features
        for key, tensor in self.tensors.items():
            bits, made = kernels.get(key, (FLOAT_BITS, {}))
            is_packed = bool(made) and not (tensor.is_floating_point() or tensor.is_complex())
            number = max(sum(made.values()), 0 if is_packed else num_reals(tensor))
            fits = bits < FLOAT_BITS and (
                tensor.is_floating_point() or bits * number <= type_bits(tensor) * num_reals(tensor)
            )
            yield (bits, bits, number) if fits else (*_type(tensor), num_reals(tensor))
        yield from ((*_type(tensor), tensor.numel()) for tensor in self.packed)

    def told(self) -> Iterator[Ruling]:
        """The rulings of products, then those of tables that are not float."""
        pairs = sorted(zip(self.products, self.rulings, strict=True), key=lambda pair: not pair[0].macs)
        yield from (rule for product, rule in pairs if product.macs or rule.bits != FLOAT)

    def notes(self) -> Iterator[Note]:
        what, number = type(self.part).__name__, sum(map(num_reals, self.tensors.values()))
        said = [*((rule.doubt, True) for rule in self.rulings), *((rule.note, False) for rule in self.rulings)]
        if self.statement.wrong and self.is_counted:
            counted = bits_text(self.rulings[0].bits if self.rulings else FLOAT)
            said.append((f"{self.statement.wrong}: no bits (1 to 32), ignored; counts as {counted}", True))
        if self.is_guessed:
            said.append(("no MACs are seen in it; those of its weight's and its output's shape count", False))
        elif self.main_weight is not None and self.multiplies_unseen():
            said.append(("has {n} weights, but no MACs are seen in it", True))
        if self.tensors and not self.calls and not self.watch.used & set(self.tensors):
            said.append(("never called: its {n} weights count, its operations do not", self.word is not None))
        if any(t.is_complex() for t in self.tensors.values()):
            said.append(("complex: a weight counts as two real ones, a MAC as four", False))
        if self.has_buffers:
            said.append(("its weights are in buffers, which count", False))
        yield from ((what, text, self.row, number, doubt) for text, doubt in dict.fromkeys(said) if text)
        for operation, doubt in self.watch.unknown.get(self.row, ()):
            yield operation, doubt, self.row, 0, True

    def multiplies_unseen(self) -> bool:
        """Is it a layer that was called, and no product seen in it?"""
        is_layer = isinstance(self.part, nn.modules.conv._ConvNd | nn.Linear) or self.row in self.watch.unknown
        below = f"{self.row}." if self.row else ""
        return (
            is_layer
            and bool(self.calls)
            and not any(p.macs and f"{p.row}.".startswith(below) for p in self.watch.products)
        )

    def guess(self) -> None:
        """MACs that are not seen are counted from the shapes, where those are of a convolution or a linear layer."""
        weight = self.main_weight
        if weight is None or not self.multiplies_unseen():
            return
        macs = [_macs_of_shapes(self.part, weight, *call) for call in self.calls]
        if all(macs):
            kind: Kind = "linear" if weight.dim() == 2 else "conv"
            roots = (key_of(weight),)
            self.products.append(Product(self.row, kind, sum(macs), self.calls[-1][1], roots, {0: weight.numel()}))
            self.is_guessed = True

    def rule(self, has_binary_name: bool) -> None:
        """What the module itself states holds where nothing nearer to the operand does."""
        says, by = self.statement, type(self.part).__name__
        own = [None if bits is None else Stated(bits, by) for bits in (says.weight or says.both, says.activation)]
        for product in self.products:
            known = own if product.roots or self.packed else [None, None]
            pair = [replace(e, stated=e.stated or s) for e, s in zip(product.evidence, known, strict=True)]
            self.rulings.append(ruling(pair[0], pair[1], self.word, has_binary_name))


def _type(tensor: Tensor) -> tuple[int, int]:
    """The bits that a tensor counts at, and those that it takes: a float of more than a byte is a float."""
    is_float = stored_bits(tensor) is None and (tensor.is_floating_point() or tensor.is_complex())
    return FLOAT_BITS if is_float else type_bits(tensor), type_bits(tensor)


def layers_of(module: nn.Module, watch: Watch, words: Sequence[Word]) -> list[ModuleRow]:
    """One for each module, in order of registration; what two share counts in the first. A buffer counts where it is
    what a product multiplies."""
    layers: dict[str, ModuleRow] = {}
    counted: set[int] = set()
    multiplied = {
        root
        for product in watch.products
        for root in product.roots
        if (root == product.roots[0] and product.macs) or stored_bits(watch.tensors[root])
    }
    aliases: dict[int, list[str]] = {}
    for name, part in module.named_modules(remove_duplicate=False):
        aliases.setdefault(id(part), []).append(name)
    for name, part in module.named_modules():
        layer = layers.setdefault(row_of(name), ModuleRow(row_of(name), part, watch, stated_bits(part)))
        layer.names += aliases[id(part)]
        if isinstance(part, _BatchNorm):
            layer.norms += [part] if list(part.parameters(recurse=False)) else []
            continue
        for tensor, is_parameter in held_by(part):
            key = key_of(tensor)
            if key not in counted and (is_parameter or key in multiplied):
                counted.add(key)
                layer.tensors[key] = tensor
                layer.has_buffers |= not is_parameter
        layer.packed += [
            t for value in vars(part).values() if isinstance(value, torch.ScriptObject) for t in packed_in(value)
        ]
    for product in _merged(watch.products):
        layers[product.row].products.append(product)
    for layer in layers.values():
        layer.names.append(layer.shown)
        layer.word = next((word for word in words if word.names(layer.names)), None)
        layer.guess()
        layer.rule(_has_binary_name(layer, layers))
    return list(layers.values())


def _merged(products: Sequence[Product]) -> list[Product]:
    """Products with the same weights in the same row are one: of several calls the dearest reading counts."""
    merged: dict[object, Product] = {}
    for number, new in enumerate(products):
        is_float = 0 in new.kernels
        old = merged.get(key := (new.row, new.kind, new.roots, is_float, not new.macs) if new.roots else number)
        if old is not None:
            pair = tuple(a | b for a, b in zip(old.evidence, new.evidence, strict=True))
            kernels = {**old.kernels, **new.kernels}
            new = replace(new, macs=old.macs + new.macs, kernels=kernels, evidence=(pair[0], pair[1]))
        merged[key] = new
    return list(merged.values())


def _has_binary_name(layer: ModuleRow, layers: Mapping[str, ModuleRow]) -> bool:
    """Its class, one that it inherits from outside torch, or that of the module around it."""
    around = layers.get(layer.row.rpartition(".")[0], layer)
    classes = [*type(layer.part).__mro__, type(around.part)]
    own = [cls.__name__.lower().replace("_", "") for cls in classes if cls.__module__.partition(".")[0] != "torch"]
    return any(map(BINARY_NAME.fullmatch, own))


def _macs_of_shapes(part: nn.Module, weight: Tensor, before: tuple[int, ...], after: tuple[int, ...]) -> int:
    """MACs of one call, where the shapes of its input and output are those of a convolution or linear layer with this
    weight: each position of the output, of the input where it is transposed, meets all of it. Else 0."""
    is_linear, is_transposed = weight.dim() == 2, isinstance(part, nn.modules.conv._ConvTransposeNd)
    if not before or not after or (not is_linear and not len(before) == len(after) == weight.dim()):
        return 0
    met, other = (before, after) if is_transposed else (after, before)
    channels = -1 if is_linear else 1
    fits = met[channels] == weight.shape[0] and other[channels] % weight.shape[1] == 0
    return prod(met) // met[channels] * weight.numel() if fits else 0
