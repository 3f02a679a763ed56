"""How long the commands that need no torch take, against a process that imports torch and traces with fvcore; and how
long the plan takes to count all named networks, against fvcore's trace of one.

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
    "import torch": [sys.executable, "-c", "import torch"],
    "list": [sys.executable, "-m", "meliuscli", "list"],
    "compare --all": [sys.executable, "-m", "meliuscli", "compare", "--all"],
    "explain conventions": [sys.executable, "-m", "meliuscli", "explain", "conventions"],
    "--help": [sys.executable, "-m", "meliuscli", "--help"],
}
ZOO = (
    "import time\n"
    "from meliuscli.arch.zoo import arch_names, load_name\n"
    "from meliuscli.counting.analytic import count_spec\n"
    "started = time.perf_counter()\n"
    "for name in arch_names(): count_spec(load_name(name)).total\n"
    "zoo = time.perf_counter() - started\n"
    "from meliuscli.counting.traced import trace_module\n"
    "from meliuscli.nn.build import build\n"
    "network = build(load_name('meliusnet22'))\n"
    "started = time.perf_counter()\n"
    "trace_module(network, (3, 224, 224))\n"
    "print(len(arch_names()), zoo, time.perf_counter() - started)\n"
)
"""Specs built, validated and counted from nothing, as the first thing in a process; the trace alone, network built."""


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
    num, zoo, trace = zip(*(zoo_and_trace() for _ in range(rounds)), strict=True)
    ratio = statistics.median(a / b for a, b in zip(zoo, trace, strict=True))
    print(
        f"all {num[0]:.0f} networks by the plan {statistics.median(zoo):.3f} s, fvcore's trace of meliusnet22 alone "
        f"{statistics.median(trace):.3f} s: {ratio:.2f} of it"
    )


def zoo_and_trace() -> tuple[float, ...]:
    done = subprocess.run([sys.executable, "-c", ZOO], capture_output=True, text=True, check=True)
    return tuple(map(float, done.stdout.split()))


if __name__ == "__main__":
    main()
