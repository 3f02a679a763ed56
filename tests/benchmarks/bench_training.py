"""Images a second of one training step of MeliusNet22, ours beside others, in one run on this machine.

    python tests/benchmarks/bench_training.py [--threads 2] [--rounds 7] [--sizes 32 64 search] [--memory]
        [--bitorch DIR] [--larq PYTHON]

Each contestant is a process of its own (``training_step.py``); rounds alternate between them. Medians of wall time and
of CPU time, which counts where the machine is shared; ratios are medians of the pairs of a round. ``+bf16`` is autocast
to bfloat16. OpenMP's threads wait asleep (``OMP_WAIT_POLICY=PASSIVE``, for all): on a busy machine, threads that spin
for one another cost ten times the work. ``--spin`` leaves the system's default.

Peers are measured where they are: ``pip install --no-deps --target DIR bitorch==0.3.0``, and an environment with
``larq larq-zoo tensorflow-cpu==2.15.1`` whose interpreter is PYTHON. ``--memory`` adds the peak memory of a step at
3x224x224, batch 32, above that of the imports.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

from training_step import SIZES

OURS = ("ours", "ours+bf16")
OTHERS = ("plain", "plain+channels_last", "plain+channels_last+bf16", "twin", "twin+bf16")


class Contestant:
    """A process that makes a step when asked."""

    def __init__(self, name: str, size: str, arguments: argparse.Namespace, batch: int | None = None) -> None:
        python = arguments.larq if name == "larq" else sys.executable
        script = str(Path(__file__).with_name("training_step.py"))
        threads = str(arguments.threads)
        command = [python, "-W", "ignore", script, name, size, "--threads", threads]
        command += ["--batch", str(batch)] if batch else []
        environment = {**os.environ, "OMP_NUM_THREADS": threads, "TF_CPP_MIN_LOG_LEVEL": "3"}
        if not arguments.spin:
            environment["OMP_WAIT_POLICY"] = "PASSIVE"
        if name == "bitorch":
            environment["PYTHONPATH"] = os.pathsep.join([arguments.bitorch, environment.get("PYTHONPATH", "")])
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True, env=environment
        )

    def step(self) -> dict[str, float]:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("the process ended: run training_step.py by hand to see why")
        return dict(json.loads(line))

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()


def contestants(size: str, arguments: argparse.Namespace) -> list[str]:
    names = [*OURS, *OTHERS]
    if size == "32" and arguments.bitorch:
        names.append("bitorch")
    if size == "64" and arguments.larq:
        names.append("larq")
    return names


def measure(size: str, arguments: argparse.Namespace) -> None:
    title, _, _, batch, _ = SIZES[size]
    batch = arguments.batch or batch
    running = {name: Contestant(name, size, arguments, batch) for name in contestants(size, arguments)}
    found: dict[str, list[dict[str, float]]] = {name: [] for name in running}
    for turn in range(arguments.rounds + 2):
        for name, contestant in running.items():
            times = contestant.step()
            if turn > 1:  # the first two are a warm-up
                found[name].append(times)
    for contestant in running.values():
        contestant.close()
    print(f"{title}, batch {batch}, {arguments.threads} thread(s), median of {arguments.rounds}")
    print(f"  {'':26s} images/s    by CPU time   ours is, bf16 is (wall)   ours is, bf16 is (CPU)")
    for name, times in found.items():
        rates = [batch / statistics.median(t[kind] for t in times) for kind in ("wall", "cpu")]
        ratios = [
            1 / statistics.median(a[kind] / b[kind] for a, b in zip(found[mine], times, strict=True))
            for kind in ("wall", "cpu")
            for mine in OURS
        ]
        print(f"  {name:26s} {rates[0]:8.1f}     {rates[1]:8.1f}     " + "       ".join(f"{r:6.2f}x" for r in ratios))
    for peer, option in (("bitorch", arguments.bitorch), ("larq", arguments.larq)):
        if not option:
            print(f"  {peer}: not measured (--{peer})")


def memory(arguments: argparse.Namespace) -> None:
    title, _, _, batch, _ = SIZES["224"]
    batch = arguments.batch or batch
    print(f"{title}, batch {batch}: peak memory of a step above that of the imports")
    peaks = {}
    for name in (*OURS, "plain", "twin"):
        contestant = Contestant(name, "224", arguments, batch)
        peaks[name] = contestant.step()["mib"]
        contestant.close()
        print(f"  {name:26s} {peaks[name]:8.0f} MiB   {peaks[name] / peaks.get('plain', peaks[name]):.2f} of plain's")
    print("  ".join(f"  {name} is {peaks[name] / peaks['plain']:.2f} of plain" for name in OURS))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batch", type=int, help="instead of the size's own")
    parser.add_argument("--sizes", nargs="*", choices=SIZES, default=["32", "64", "search"])
    parser.add_argument("--spin", action="store_true", help="leave OpenMP's way of waiting as it is")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--bitorch", help="a folder with bitorch 0.3.0")
    parser.add_argument("--larq", help="the python of an environment with larq-zoo")
    arguments = parser.parse_args()
    for size in arguments.sizes:
        measure(size, arguments)
    if arguments.memory:
        memory(arguments)


if __name__ == "__main__":
    main()
