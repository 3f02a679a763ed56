"""The C library of a network, as gcc -O3 -march=native makes it, against the packed runner and eager torch.

    python tests/benchmarks/bench_c.py [NETWORK] [--runs 15]

One thread and batch 1, processor time, medians of runs in turns. The integers are compared first, by the library's own
test vectors.
"""

from __future__ import annotations

import argparse
import ctypes
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import torch

from meliuscli.arch.zoo import load_name
from meliuscli.export.c.vectors import noise
from meliuscli.export.c.writer import make_library, write_library
from meliuscli.packed.bench import random_network
from meliuscli.packed.runner import pack
from meliuscli.packed.timing import in_turns

FLAGS = ("-std=c11", "-O3", "-march=native", "-ffp-contract=off")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", nargs="?", default="meliusnet22")
    parser.add_argument("--runs", type=int, default=15)
    args = parser.parse_args()
    torch.set_num_threads(1)
    spec = load_name(args.network)
    network, _ = random_network(spec, batch=1, seed=0)
    runner = pack(network, spec)
    library = make_library(runner, args.network, "net")
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory) / "net"
        write_library(library, place, force=False)
        sources = [str(place / name) for name in library.files if name.endswith(".c") and "/" not in name]
        test, shared = place / "net_test", place / "net.so"
        gcc = ["gcc", *FLAGS, f"-I{place}"]
        subprocess.run([*gcc, *sources, str(place / "test/main.c"), "-o", str(test)], check=True)
        print(subprocess.run([test], check=True, capture_output=True, text=True).stdout)
        subprocess.run([*gcc, "-shared", "-fPIC", *sources, "-o", str(shared)], check=True)
        compiled = ctypes.CDLL(str(shared))
    image = noise(spec, 1)
    pixels, logits = image.numpy().copy(), np.zeros(spec.num_classes, np.float32)
    arena = np.zeros(library.arena.size // 4, np.uint32)
    pointers = [ctypes.c_void_p(array.ctypes.data) for array in (pixels, logits, arena)]

    def in_torch() -> object:
        with torch.inference_mode():
            return network(image)

    contenders = {"c": lambda: compiled.net_run(*pointers), "packed": lambda: runner(image), "eager": in_torch}
    samples = in_turns(contenders, args.runs)
    for name, sample in samples.items():
        print(f"{name:8} {1e3 * sample.cpu_median:8.2f} ms")
    print(f"C runs at {samples['packed'].times(samples['c'], 1):.2f} of the packed runner's speed,", end=" ")
    print(f"{samples['eager'].times(samples['c'], 1):.1f} times that of eager torch")


if __name__ == "__main__":
    main()
