"""Right command lines made wrong at random, over all commands: none may end in our own bug (exit 70), in a traceback, in
silence, in memory above a limit, or deaf to Ctrl-C.

``python tests/benchmarks/wrong_invocations.py [COUNT] [SEED] [ENDS]`` prints what each kind of end was, and fails on those; the
file ENDS gets a line an invocation. Each is a fork of this process, in which torch is loaded already."""

from __future__ import annotations

import os
import random
import resource
import shlex
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

os.environ["OMP_NUM_THREADS"] = "1"

import torch  # noqa: F401 - once for all

from meliuscli.cli.app import COMMANDS
from meliuscli.cli.app import main as meliuscli_main

MEMORY = 4 * 2**30
SECONDS = 6.0
"""After which an invocation is interrupted as by Ctrl-C: it was no wrong one."""
SILENT, DEAF = 3.0, 3.0
"""Seconds without a line, and between Ctrl-C and an answer, after which something is wrong: two, and one for a busy machine."""

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
    "export net.toml --to c -o lib --prefix net_ --input 3x32x32 --force",
    "count mynet.py:make --input 3x8x8 --bits layer*=1x8 --binary conv* --no-verify",
    "evaluate run:12345678 --reports reports --dataset fashion-mnist-mini --limit 10 --threads 1 --split test",
    "predict run:12345678 here --reports reports --top 3",
    "import here/x.params --arch bmxnet-resnet18 --reports out",
    "report meliusnet22 net.toml --html page.html",
    "report study:none --reports out --storage journal",
    "worker --study none --storage journal:out/none.log --time-limit 1s --max-trials 1",
    "show space:meliusnet -o space.toml",
    "show recipe:paper --format json -o recipe.json",
    "train --resume run:12345678 --reports reports",
    "search --budget 5ms --objectives accuracy,latency --space tiny.toml --trials 1 --timeout 1s --study l --reports out",
    "help count",
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


assert {words.split()[0] for words in RIGHT} >= set(COMMANDS)


@dataclass(frozen=True, slots=True)
class End:
    """How an invocation ended."""

    words: tuple[str, ...]
    code: int
    seconds: float
    silence: float
    deaf: float
    memory: int
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
        if self.deaf > DEAF:
            return f"deaf for {self.deaf:.0f} s"
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


def child(words: tuple[str, ...], place: Path, out: int) -> NoReturn:
    """What the forked process does: the command line with its output on a pipe and a limit on its memory."""
    code = 99
    try:
        os.setsid()
        os.chdir(place)
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
        for number in (1, 2):
            os.dup2(out, number)
        sys.stdout, sys.stderr = (open(number, "w", buffering=1, closefd=False) for number in (1, 2))  # noqa: SIM115
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.environ.update(NO_COLOR="1", MELIUSCLI_CACHE=str(place / "cache"))
        sys.argv = ["meliuscli", *words]
        meliuscli_main()
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else int(left.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def run(words: tuple[str, ...], place: Path) -> End:
    """One invocation, with a limit on memory and time; one that takes long is interrupted as by Ctrl-C."""
    ours, its = os.pipe()
    started = last = time.monotonic()
    sys.stdout.flush()
    process = os.fork()
    if process == 0:
        child(words, place, its)
    os.close(its)
    os.set_blocking(ours, False)
    silence, said, interrupted, deaf = 0.0, b"", 0.0, 0.0
    done = status = 0
    while done == 0:
        time.sleep(0.02)
        done, status, usage = os.wait4(process, os.WNOHANG)
        piece, now = _read(ours), time.monotonic()
        said += piece
        last = now if piece or said.endswith((b"...\n", b"left)\n")) else last  # such a line says what is being done
        silence = max(silence, now - last)
        if interrupted and not deaf and (piece or done):
            deaf = now - interrupted
        if now - started > SECONDS and not interrupted:
            interrupted = now
            os.killpg(process, signal.SIGINT)
        if now - started > SECONDS + 20:
            os.killpg(process, signal.SIGKILL)
    said += _read(ours)
    os.close(ours)
    code = os.waitstatus_to_exitcode(status)
    return End(words, code, now - started, silence, deaf, usage.ru_maxrss * 1024, said.decode(errors="replace"))


def _read(pipe: int) -> bytes:
    try:
        return os.read(pipe, 2**20)
    except BlockingIOError:
        return b""


def main(count: int = 300, seed: int = 0, log: Path = Path(os.devnull)) -> int:
    """Run so many; the number of faults."""
    rng, ends, faults, most = random.Random(seed), Counter[str](), 0, 0
    signal.signal(signal.SIGINT, signal.default_int_handler)  # behind nohup it would be ignored in all of them
    with tempfile.TemporaryDirectory() as directory, log.open("w") as lines:
        place = Path(directory)
        prepare(place)
        for number in range(count):
            words = mutate(rng)
            try:
                end = run(words, place)
            except ValueError:  # a word that no system passes on
                continue
            most = max(most, end.memory)
            last = ascii(end.said.strip().splitlines()[-1:])
            lines.write(f"{end.code} {end.seconds:.1f}s {end.memory >> 20}M {shlex.join(words)[:200]!a} {last[:200]}\n")
            ends[f"exit {end.code}"] += 1
            if end.fault:
                faults += 1
                print(f"{number}: {end.fault}: {shlex.join(word[:80] for word in end.words)!a}")
                print("   ", ascii(end.said.strip()[-400:]))
    print(f"{sum(ends.values())} invocations: {dict(ends)}; {faults} faults; {most / 2**30:.2f} GiB at most")
    return faults


if __name__ == "__main__":
    sys.exit(min(1, main(*map(int, sys.argv[1:3]), *map(Path, sys.argv[3:]))))
