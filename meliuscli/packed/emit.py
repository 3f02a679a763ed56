"""What kernels are written with: loops, loads and vectors of LLVM IR."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from meliuscli.packed.isa import no_llvmlite

try:
    from llvmlite import ir
except ImportError:
    raise no_llvmlite() from None


Value = Any
"""An LLVM value; llvmlite has no types of its own."""

BYTE, I32, I64, FLOAT = ir.IntType(8), ir.IntType(32), ir.IntType(64), ir.FloatType()
POINTER = ir.PointerType()


def i64(value: int) -> Value:
    return ir.Constant(I64, value)


class Kernel:
    """A function ``void name(i64 *args, i64 begin, i64 end)`` under construction: the work units from begin to end of
    what the arguments describe. Offsets are in bytes throughout; vectors may lie at any address that floats may."""

    def __init__(self, name: str, lanes: int, arguments: Sequence[str]) -> None:
        self.module = ir.Module(name)
        self.lanes, self._names = lanes, tuple(arguments)
        function = ir.Function(self.module, ir.FunctionType(ir.VoidType(), [POINTER, I64, I64]), name)
        self._args, self.begin, self.end = function.args
        self.builder = ir.IRBuilder(function.append_basic_block("entry"))
        self.floats, self.ints = ir.VectorType(FLOAT, lanes), ir.VectorType(I32, lanes)
        self.bytes = ir.VectorType(BYTE, 4 * lanes)

    # Arguments

    def number(self, name: str) -> Value:
        return self.load(I64, self._args, i64(8 * self._names.index(name)), 8)

    def pointer(self, name: str) -> Value:
        return self.builder.inttoptr(self.number(name), POINTER)

    def real(self, name: str) -> Value:
        """A float, from the low half of its argument."""
        return self.builder.bitcast(self.builder.trunc(self.number(name), I32), FLOAT)

    # Memory

    def at(self, base: Value, offset: Value) -> Value:
        return self.builder.gep(base, [offset], source_etype=BYTE)

    def load(self, kind: Value, base: Value, offset: Value | None = None, align: int = 4) -> Value:
        address = base if offset is None else self.at(base, offset)
        return self.builder.load(address, align=align, typ=kind)

    def load_offset(self, base: Value, offset: Value) -> Value:
        """A 32-bit offset, as 64 bits."""
        return self.builder.sext(self.load(I32, base, offset), I64)

    def store(self, value: Value, base: Value, offset: Value | None = None) -> None:
        address = base if offset is None else self.at(base, offset)
        self.builder.store(value, address, align=4)

    # Vectors

    def splat(self, scalar: Value) -> Value:
        kind = ir.VectorType(scalar.type, self.lanes)
        first = self.builder.insert_element(ir.Constant(kind, ir.Undefined), scalar, ir.Constant(I32, 0))
        mask = ir.Constant(ir.VectorType(I32, self.lanes), [0] * self.lanes)
        return self.builder.shuffle_vector(first, ir.Constant(kind, ir.Undefined), mask)

    def constant(self, kind: Value, value: float) -> Value:
        return ir.Constant(kind, [value] * kind.count)

    def pick(self, low: Value, high: Value, lanes: Sequence[int]) -> Value:
        """Lanes of ``low`` and ``high`` side by side."""
        return self.builder.shuffle_vector(low, high, ir.Constant(ir.VectorType(I32, len(lanes)), list(lanes)))

    def intrinsic(self, name: str, *args: Value) -> Value:
        kind = args[0].type
        letter = "f" if kind.element == FLOAT else "i"
        bits = 32 if kind.element in (FLOAT, I32) else 8
        full = f"llvm.{name}.v{kind.count}{letter}{bits}"
        known = self.module.globals.get(full)
        if known is None:
            known = ir.Function(self.module, ir.FunctionType(kind, [kind] * len(args)), full)
        return self.builder.call(known, args)

    def fma(self, a: Value, b: Value, c: Value) -> Value:
        return self.intrinsic("fmuladd", a, b, c)

    def larger(self, a: Value, b: Value) -> Value:
        return self.builder.select(self.builder.fcmp_ordered(">", a, b), a, b)

    # Control

    def loop(
        self,
        begin: Value,
        end: Value,
        carried: Sequence[Value],
        body: Callable[[Value, list[Value]], Sequence[Value]],
        step: int = 1,
    ) -> list[Value]:
        """``body(index, values)`` gives the next values; the last ones are returned. Runs at least once."""
        b = self.builder
        before, block = b.block, b.append_basic_block("loop")
        b.branch(block)
        b.position_at_end(block)
        index = b.phi(I64)
        index.add_incoming(begin, before)
        values = []
        for value in carried:
            phi = b.phi(value.type)
            phi.add_incoming(value, before)
            values.append(phi)
        following = list(body(index, values))
        after = b.add(index, i64(step))
        for phi, value in zip(values, following, strict=True):
            phi.add_incoming(value, b.block)
        index.add_incoming(after, b.block)
        out = b.append_basic_block("done")
        b.cbranch(b.icmp_signed("<", after, end), block, out)
        b.position_at_end(out)
        return following

    def units(self, body: Callable[[Value], None]) -> str:
        """The outermost loop, over the work units; returns the finished IR."""
        b = self.builder
        work, out = b.append_basic_block("work"), b.append_basic_block("out")
        b.cbranch(b.icmp_signed("<", self.begin, self.end), work, out)
        b.position_at_end(work)

        def unit(index: Value, _: list[Value]) -> list[Value]:
            body(index)
            return []

        self.loop(self.begin, self.end, [], unit)
        b.branch(out)
        b.position_at_end(out)
        b.ret_void()
        return str(self.module)
