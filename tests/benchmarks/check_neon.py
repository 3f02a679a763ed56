"""The NEON kernels, cross-compiled and run under qemu: a whole network must give the logits of this machine's kernels to
the last bit (every sum is made in the same order, with fused multiply-add).

    apt-get install qemu-user gcc-aarch64-linux-gnu libc6-dev-arm64-cross
    python tests/benchmarks/check_neon.py [--arch meliusnet22] [--set input_size=64 ...]
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from meliuscli.arch.families.dense import DenseFamilySpec
from meliuscli.arch.zoo import load_arch
from meliuscli.packed import engine, program, stem
from meliuscli.packed.bench import random_network
from meliuscli.packed.dense import DensePlan, fold_dense
from meliuscli.packed.isa import ISAS, llvm
from meliuscli.packed.runner import pack

# Reads arrays and steps, in which arguments of kind 1 are numbers of arrays; runs; writes one array.
HARNESS = """
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
typedef void (*kernel)(int64_t *, int64_t, int64_t);
%(declarations)s
static kernel kernels[] = {%(names)s};
static int64_t number(void) { int64_t n; if (fread(&n, 8, 1, stdin) != 1) exit(2); return n; }
int main(void) {
  int64_t count = number();
  char **arrays = malloc(count * sizeof *arrays);
  int64_t *sizes = malloc(count * sizeof *sizes);
  for (int64_t i = 0; i < count; i++) {
    sizes[i] = number();
    arrays[i] = aligned_alloc(64, (sizes[i] + 8192) / 64 * 64);
    if (fread(arrays[i], 1, sizes[i], stdin) != (size_t)sizes[i]) return 3;
  }
  for (int64_t steps = number(); steps > 0; steps--) {
    kernel function = kernels[number()];
    int64_t begin = number(), end = number(), num = number(), args[16];
    for (int64_t a = 0; a < num; a++) {
      int64_t kind = number(), value = number();
      args[a] = kind ? (int64_t)arrays[value] : value;
    }
    function(args, begin, end);
  }
  int64_t wanted = number();
  fwrite(arrays[wanted], 1, sizes[wanted], stdout);
  return 0;
}
"""


def neon_plan(
    spec: DenseFamilySpec, tensors: dict[str, np.ndarray], batch: int
) -> tuple[DensePlan, list[program.Step], dict[str, str]]:
    """The plan for NEON and its steps one by one, whose addresses are numbers of the kernels that come with them."""
    kernels: dict[str, str] = {}
    inner: list[program.Step] = []

    def number_of(_isa: object, name: str, make: Callable[[], str]) -> int:
        kernels.setdefault(name, make())
        return list(kernels).index(name)

    def in_line(layer: str, _isa: object, shares: list[list[program.Step]]) -> program.Step:
        inner.extend(step for share in shares for step in share)
        return replace(inner[0], layer=layer, key="sequence")

    with mock.patch.object(program, "address_of", number_of), mock.patch.object(stem, "sequence_step", in_line):
        plan = DensePlan(spec, tensors, ISAS["neon"], batch, threads=1)
    steps = [part for step in plan.steps for part in (inner if step.key == "sequence" else [step])]
    return plan, steps, kernels


def serialised(plan: DensePlan, steps: list[program.Step]) -> bytes:
    arrays: dict[int, np.ndarray] = {}
    for step in steps:
        for array in step.keeps:
            arrays[array.ctypes.data] = array
    order = list(arrays)
    out = [np.int64(len(order)).tobytes()]
    for address in order:
        out += [np.int64(arrays[address].nbytes).tobytes(), arrays[address].tobytes()]
    out.append(np.int64(len(steps)).tobytes())
    for step in steps:
        out.append(np.array([step.address, step.begin, step.end, len(step.arguments)], np.int64).tobytes())
        for value in step.arguments.tolist():
            pair = [1, order.index(value)] if value in arrays else [0, value]
            out.append(np.array(pair, np.int64).tobytes())
    out.append(np.int64(order.index(plan.logits.data.ctypes.data)).tobytes())
    return b"".join(out)


def run_under_qemu(kernels: dict[str, str], data: bytes) -> bytes:
    target = engine.target_machine(ISAS["neon"], jit=False)
    with tempfile.TemporaryDirectory() as folder:
        objects = []
        for name, text in kernels.items():
            path = Path(folder) / f"{len(objects)}.o"
            # Dots are no part of names in C.
            path.write_bytes(target.emit_object(engine.optimised(ISAS["neon"], text.replace(name, _c_name(name)))))
            objects.append(str(path))
        names = [_c_name(name) for name in kernels]
        declarations = "\n".join(f"void {name}(int64_t *, int64_t, int64_t);" for name in names)
        source, binary = Path(folder) / "main.c", Path(folder) / "main"
        source.write_text(HARNESS % {"declarations": declarations, "names": ", ".join(names)})
        subprocess.run(
            ["aarch64-linux-gnu-gcc", "-O1", "-static", "-o", str(binary), str(source), *objects], check=True
        )
        return subprocess.run(["qemu-aarch64", str(binary)], input=data, capture_output=True, check=True).stdout


def _c_name(name: str) -> str:
    return name.replace(".", "_")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", default="meliusnet22")
    parser.add_argument("--set", nargs="*", default=["input_size=64"])
    parser.add_argument("--batch", type=int, default=1)
    arguments = parser.parse_args()
    spec = load_arch(arguments.arch, arguments.set).spec
    assert isinstance(spec, DenseFamilySpec)
    network, images = random_network(spec, arguments.batch, 0)
    ours = pack(network, spec)(images)
    plan, steps, kernels = neon_plan(spec, fold_dense(network, spec), arguments.batch)
    plan.images[..., : spec.input_size] = images.numpy()
    print(f"LLVM {llvm().llvm_version_info}, {len(kernels)} kernels, {len(steps)} steps: {', '.join(kernels)}")
    data = np.frombuffer(run_under_qemu(kernels, serialised(plan, steps)), np.float32)
    theirs = torch.from_numpy(data.reshape(plan.logits.data.shape)[:, 0, 0, : spec.num_classes].copy())
    equal = int((ours == theirs).sum())
    print(f"{equal} of {ours.numel()} logits equal; largest |logit| {float(ours.abs().max()):.3f}")
    raise SystemExit(0 if equal == ours.numel() else 1)


if __name__ == "__main__":
    main()
