"""Right command lines made wrong at random, over all commands: none may end in our own bug (exit 70), in a traceback, in
silence, or in memory above a limit.

``python tests/benchmarks/wrong_invocations.py [COUNT] [SEED]`` prints what each kind of end was, and fails on those."""

from __future__ import annotations

import os
import random
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

MEMORY = 4 * 2**30
SECONDS = 25.0
SILENT = 4.0
"""Seconds without a line after which something is wrong; torch alone takes two on a busy machine."""

RIGHT = (
    "count meliusnet22 --no-verify --by block --convention larq --format json",
    "count --arch net.toml --set growth_rate=32 --input 3x64x64 --no-verify --max-ops 5e8 --max-size 4MiB",
    "count meliusnet29 --float-bits 8 --bn-params 4 --no-verify -o out.csv",
    "compare mobilenet-v1 meliusnet22 net.toml --input 224 --format latex -o out.tex",
    "compare --all --convention ace --format csv",
    "predict meliusnet29 --set growth_rate=48 --format json",
    "list archs --format csv",
    "list runs --reports reports --format json",
    "show meliusnet22 --set stem=thumbnail --input 32 --toml",
    "show run:12345678 --reports reports",
    "explain conventions -o page.txt",
    "cite meliusnet22 net.toml -o refs.bib",
    "paper-tables",
    "search --budget 5e8 --space tiny.toml --trials 1 --timeout 1s --study s --reports out --finalists 0 --workers 1",
    "search --resume --study none --reports out --trials 3",
    "check-proxy tiny.toml --networks 4 --long-epochs 0.1 --at-fraction 0.5 --name c --reports out --workers 1",
    "train net.toml --epochs 0.01 --seeds 1 --batch-size 50 --input-size 8 --width-divisor 8 --reports out",
    "train net.toml --dataset idx --data here --recipe quick --recipe-set shift=0 --reports out",
    "train net.toml --dataset imagefolder --data here --seed 3 --device cpu --compile off",
    "bench net.toml --batch 2 --threads 1 --opponents none --runs 1 --seed 1 --isa nothing",
    "export net.toml --to packed -o x.safetensors --input 3x32x32 --seed 1",
    "export --weights run:12345678 --reports reports -o x.onnx",
)
VALUES = (
    *(
        "",
        " ",
        "-",
        "--",
        "0",
        "-1",
        "1e308",
        "1e15",
        "99999999999999999999",
        "nan",
        "inf",
        "0x10",
        "1_000",
        "½",
        "\udcff",
    ),
    *(".", "..", "/", "/dev/null", "/dev/full", "nothere", "bin.toml", "broken.toml", "reports", "a" * 5000, "x" * 300),
    *("run:", "run:12345678", "run:deadbeef", "run:zz", "net.toml", "mynet.py:make", "mynet.py", "meliusnet22", "a=b"),
    *("growth_rate=", "=3", "growth_rate=[", "num_blocks=[]", "num_blocks=[1e9]", "num_blocks=[1024,1024]", "family=x"),
    *(
        "3x0x0",
        "3x16384x16384",
        "1x1x1",
        "999999",
        "224x224x3",
        "5ms",
        "5e8,",
        "1,2",
        "💥",
        "on",
        "true",
        "{",
        "[]",
        "null",
    ),
)


@dataclass(frozen=True, slots=True)
class End:
    """How an invocation ended."""

    words: tuple[str, ...]
    code: int
    seconds: float
    silence: float
    said: str

    @property
    def fault(self) -> str:
        """What is wrong with it; nothing for a right answer or a refusal."""
        if self.code == 70:
            return "our own bug"
        if "Traceback" in self.said:
            return "traceback"
        if self.code not in (0, 1, 2, 3, 130, -2):  # interrupted while Python itself was leaving
            return f"exit {self.code}"
        return f"silent for {self.silence:.0f} s" if self.silence > SILENT else ""


def mutate(rng: random.Random) -> tuple[str, ...]:
    """One to three changes of a right command line."""
    words = shlex.split(rng.choice(RIGHT))
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        at = rng.randrange(1, len(words) + 1)
        values = [place for place, word in enumerate(words) if place > 1 and not word.startswith("-")]
        if values and rng.random() < 0.6:  # a wrong value gets further than a wrong option
            words[rng.choice(values)] = rng.choice(VALUES)
            continue
        change = rng.choice(("replace", "insert", "drop", "twice", "misspell", "other"))
        if change == "insert" or at == len(words):
            words.insert(at, rng.choice(VALUES))
        elif change == "replace":
            words[at] = rng.choice(VALUES)
        elif change == "drop":
            del words[at]
        elif change == "twice":
            words[at:at] = words[at : at + rng.randint(1, 2)]
        elif change == "misspell" and words[at]:
            cut = rng.randrange(len(words[at]))
            words[at] = words[at][:cut] + rng.choice("x-=.é") + words[at][cut + 1 :]
        else:
            words[at:at] = rng.choice([word.split() for word in RIGHT])[1:3]
    return tuple(word.replace("\0", "") for word in words)


def prepare(place: Path) -> None:
    """Files that the command lines name: right ones, broken ones, and a record of a run beside a broken one."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from conftest import TINY_SPACE

    net = 'family = "meliusnet"\nnum_blocks = [1, 1]\ntransition_channels = [32]\ngrowth_rate = [16, 16]\ndilation = [1, 1]\n'
    for name, content in {
        "net.toml": net + "input_size = 64\n",
        "tiny.toml": TINY_SPACE,
        "broken.toml": "num_blocks = [1,",
        "mynet.py": "def make():\n    raise ValueError('on purpose')\n",
        "reports/run-deadbeef.json": "{",
    }.items():
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_text(content)
    (place / "bin.toml").write_bytes(b"\xe0\xff\0")
    (place / "here").mkdir()


def run(words: tuple[str, ...], place: Path) -> End:
    """One invocation, with a limit on memory and time; one that takes long is interrupted as by Ctrl-C."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))

    started = last = time.monotonic()
    silence, said = 0.0, b""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1", "MELIUSCLI_CACHE": str(place / "cache")}
    process = subprocess.Popen(
        [sys.executable, "-m", "meliuscli", *words],
        cwd=place,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        preexec_fn=limit,
        start_new_session=True,
    )
    assert process.stdout is not None
    os.set_blocking(process.stdout.fileno(), False)
    interrupted = False
    while process.poll() is None:
        time.sleep(0.02)
        piece, now = process.stdout.read() or b"", time.monotonic()
        said += piece
        last = now if piece or said.endswith(b"...\n") else last  # such a line says what is being done
        silence = max(silence, now - last)
        if now - started > SECONDS and not interrupted:
            interrupted = True
            os.killpg(process.pid, 2)
        if now - started > SECONDS + 10:
            os.killpg(process.pid, 9)
    said += process.stdout.read() or b""
    return End(words, process.returncode, time.monotonic() - started, silence, said.decode(errors="replace"))


def main(count: int = 300, seed: int = 0) -> int:
    """Run so many; the number of faults."""
    rng, ends, faults = random.Random(seed), Counter[str](), 0
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        prepare(place)
        for number in range(count):
            words = mutate(rng)
            try:
                end = run(words, place)
            except ValueError:  # a word that no system passes on
                continue
            ends[f"exit {end.code}"] += 1
            if end.fault:
                faults += 1
                print(f"{number}: {end.fault}: {shlex.join(word[:80] for word in end.words)!a}")
                print("   ", ascii(end.said.strip()[-400:]))
    print(f"{sum(ends.values())} invocations: {dict(ends)}; {faults} faults")
    return faults


if __name__ == "__main__":
    sys.exit(min(1, main(*map(int, sys.argv[1:]))))
