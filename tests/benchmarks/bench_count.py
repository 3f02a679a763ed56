"""How long ``count --no-verify`` and ``compare`` take, against a process that imports torch and traces with fvcore.

    python tests/benchmarks/bench_count.py [--rounds 5]

Whole processes, CPU seconds (user and system) and wall time, in turn; medians and the ratio of pairs.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import time

TRACE = (
    "import torch\n"
    "from fvcore.nn import FlopCountAnalysis\n"
    "from meliuscli.arch.zoo import load_name\n"
    "from meliuscli.nn.build import build\n"
    "network = build(load_name('meliusnet22')).eval()\n"
    "with torch.no_grad(): print(FlopCountAnalysis(network, (torch.zeros(1, 3, 224, 224),)).by_operator())\n"
)
COMMANDS = {
    "import torch, trace meliusnet22 with fvcore": [sys.executable, "-c", TRACE],
    "count --arch meliusnet22 --no-verify": [
        sys.executable,
        "-m",
        "meliuscli",
        *["count", "--arch", "meliusnet22", "--no-verify"],
    ],
    "compare mobilenet-v1 meliusnet22": [
        sys.executable,
        "-m",
        "meliuscli",
        *["compare", "mobilenet-v1", "meliusnet22"],
    ],
    "--help": [sys.executable, "-m", "meliuscli", "--help"],
}


def cpu_and_wall(command: list[str]) -> tuple[float, float]:
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, capture_output=True, check=True)
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    figures: dict[str, list[tuple[float, float]]] = {name: [] for name in COMMANDS}
    for turn in range(rounds + 1):
        for name, command in COMMANDS.items():
            figure = cpu_and_wall(command)
            if turn:  # the first is a warm-up
                figures[name].append(figure)
    reference = next(iter(figures.values()))
    for name, pairs in figures.items():
        cpu, wall = (statistics.median(pair[index] for pair in pairs) for index in (0, 1))
        shares = [
            statistics.median(own[index] / other[index] for own, other in zip(pairs, reference, strict=True))
            for index in (0, 1)
        ]
        print(
            f"{name:45s} {cpu:6.3f} CPU s {wall:6.3f} wall s   {shares[0]:.3f} of the trace's CPU, {shares[1]:.3f} of its wall"
        )


if __name__ == "__main__":
    main()
