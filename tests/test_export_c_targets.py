"""The C library on other processors, under qemu, and on a thousand images: minutes long. qemu proves bits, not speed."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import at_size
from test_export_c import SANITIZED, SMALL, STRICT, library_of, need, packed, run
from test_export_c_chain import chain_library, chain_of, images_of, network_of
from test_export_c_int8 import int8_of, runner_of

from meliuscli.arch.families.dense import DenseFamilySpec
from meliuscli.export.c.chain import Chain
from meliuscli.export.c.compiled import compile_library
from meliuscli.export.c.exact import run_chain
from meliuscli.export.c.vectors import Expected, checksum, checksum_of_floats, noise, packed_answer
from meliuscli.export.c.writer import CLibrary, lay_out, make_library
from meliuscli.packed.runner import PackedDense

pytestmark = pytest.mark.slow

FIVE = {
    "meliusnet22": ("meliusnet22", 32, "growth_rate=16", "stem_channels=16", "transition_channels=[40,56,64]"),
    "meliusnet-c": ("meliusnet-c", 32, "growth_rate=16", "stem_channels=32", "transition_channels=[16,32,48]"),
    "binarydensenet28": (
        "binarydensenet28",
        40,
        "growth_rate=16",
        "stem_channels=24",
        "transition_channels=[40,56,64]",
    ),
    "thumbnail": ("meliusnet23", 16, "stem=thumbnail", "growth_rate=8", "transition_channels=[24,32,40]"),
    "dilated": ("binarydensenet37-dilated", 32, "num_blocks=[2,2,2,2]", "growth_rate=16", "stem_channels=24"),
}
IMAGES = 1000
START = """
extern void _start(void);
static void reset(void)
{
#ifdef __ARM_FP
    *(volatile unsigned *)0xE000ED88u |= 0xFu << 20; /* the floating-point unit is off at first */
#endif
    _start();
}
__attribute__((section(".vectors"), used)) const void *const vectors[2] = {(void *)STACK, (void *)reset};
"""
CORTEX_M = {
    "cortex-m3": ("mps2-an385", ()),
    "cortex-m4": ("mps2-an386", ("-mfloat-abi=hard", "-mfpu=fpv4-sp-d16")),
    "cortex-m7": ("mps2-an500", ("-mfloat-abi=hard", "-mfpu=fpv5-sp-d16")),
}
LINUX = {
    "cortex-a53": ("aarch64-linux-gnu-gcc", ("-mcpu=cortex-a53",), ("qemu-aarch64", "-cpu", "cortex-a53")),
    "armhf": ("arm-linux-gnueabihf-gcc", (), ("qemu-arm",)),
    "rv64": ("riscv64-linux-gnu-gcc", (), ("qemu-riscv64",)),
}


CHAINED = ("resnete", "resnete-same+0", "bottleneck", "resnet", "cnv", "int8")
INT8 = ("groups", "one-stage", "resnete", "reactivated-same", "bottleneck", "resnet", "vgg-small")
"""Networks whose stem and head are in int8 on a thousand images."""


def either(key: str) -> CLibrary:
    """The library of a key of this file's, with stem and head of one in int8."""
    if key == "int8":
        return make_library(runner_of("reactivated"), key, "net", None, int8_of("reactivated"))
    return library_of(key) if key in SMALL else chain_library(key)


@cache
def five(key: str) -> tuple[PackedDense, CLibrary, tuple[tuple[int, int, int], ...]]:
    """A network, its library, and for a thousand images the class, the checksum of all layers' and that of the logits."""
    name, size, *changes = FIVE[key]
    spec = at_size(str(name), int(size), "num_classes=10", *map(str, changes))
    assert isinstance(spec, DenseFamilySpec)
    runner = packed(spec)
    answers = (packed_answer(runner, noise(spec, seed)) for seed in range(IMAGES))
    return runner, make_library(runner, key, "net"), tuple(map(_line, answers))


def _line(answer: Expected) -> tuple[int, int, int]:
    return answer.top1, checksum(torch.tensor(answer.units).numpy()), answer.logits


@pytest.mark.parametrize("cc", ["gcc", "clang"])
@pytest.mark.parametrize("key", FIVE)
def test_a_thousand_images(key: str, cc: str, tmp_path: Path) -> None:
    need(cc)
    runner, library, expected = five(key)
    program = compile_library(library, tmp_path, cc, "-std=c11", *STRICT, *SANITIZED)
    images = torch.cat([noise(runner.spec, seed) for seed in range(IMAGES)])
    (tmp_path / "images.f32").write_bytes(images.numpy().tobytes())
    lines = [line.split() for line in run(program, tmp_path / "images.f32").splitlines()]
    assert tuple((int(top1), int(counts, 16), int(logits, 16)) for top1, counts, logits in lines) == expected
    assert len({top1 for top1, *_ in expected}) > 1


@pytest.mark.parametrize("cc", ["gcc", "clang"])
@pytest.mark.parametrize(
    "key",
    [
        *("resnete", "reactivated", "bottleneck", "resnet", "resnet-bottleneck", "vgg-small", "tfc", "cnv"),
        *("resnete-same+0", "resnete-same+1", "reactivated-same"),
    ],
)
def test_a_thousand_images_of_a_chain(key: str, cc: str, tmp_path: Path) -> None:
    """All whole numbers and logits of the run in NumPy, and torch's top-1 but where two logits are as good as equal."""
    need(cc)
    program = compile_library(chain_library(key), tmp_path, cc, "-std=c11", *STRICT, *SANITIZED)
    images = images_of(key, IMAGES)
    (tmp_path / "images.f32").write_bytes(images.numpy().tobytes())
    logits = hold_against(chain_of(key), images, run(program, tmp_path / "images.f32"))
    with torch.inference_mode():
        torchs = network_of(key)(images).numpy()
    assert (torchs.argmax(1) == logits.argmax(1)).mean() >= 0.999


@pytest.mark.parametrize("cc", ["gcc", "clang"])
@pytest.mark.parametrize("key", INT8)
def test_a_thousand_images_with_stem_and_head_in_int8(key: str, cc: str, tmp_path: Path) -> None:
    """All whole numbers and logits of the run in NumPy or, of a MeliusNet, of the packed runner between ends in NumPy."""
    need(cc)
    int8 = int8_of(key)
    library = make_library(int8.runner, key, "net", None, int8)
    program = compile_library(library, tmp_path, cc, "-std=c11", *STRICT, *SANITIZED)
    images = torch.cat([noise(int8.runner.spec, seed) for seed in range(IMAGES)])
    (tmp_path / "images.f32").write_bytes(images.numpy().tobytes())
    said = run(program, tmp_path / "images.f32")
    if key not in SMALL:
        hold_against(int8.chain, images, said)
        return
    lines = [line.split() for line in said.splitlines()]
    answers = tuple(_line(int8.answer(image[None])) for image in images)
    assert tuple((int(top1), int(sums, 16), int(last, 16)) for top1, sums, last in lines) == answers


def hold_against(chain: Chain, images: torch.Tensor, said: str) -> np.ndarray:
    """What a program says of images is what the chain gives, to the last bit; the chain's logits."""
    ran = [run_chain(chain, part.numpy()) for part in images.split(50)]
    logits: np.ndarray = np.concatenate([one.logits for one in ran])
    counts = [np.concatenate([one.counts[step.name] for one in ran]) for step in chain.binary]
    lines = [line.split() for line in said.splitlines()]
    assert len(lines) == len(images)
    for number, (top1, sums, last) in enumerate(lines):
        units = np.array([checksum(numbers[number]) for numbers in counts])
        assert (int(top1), int(sums, 16)) == (logits[number].argmax(), checksum(units))
        assert int(last, 16) == checksum_of_floats(logits[number])
    return logits


@pytest.mark.parametrize("key", [*SMALL, *CHAINED])
@pytest.mark.parametrize("target", LINUX)
def test_under_linux_on(target: str, key: str, tmp_path: Path) -> None:
    """NEON on the A53; no fused multiply-add on armhf; one in RISC-V's F."""
    cc, flags, emulator = LINUX[target]
    need(cc, emulator[0])
    program = compile_library(either(key), tmp_path, cc, "-std=c11", *STRICT, "-O2", "-static", *flags)
    assert run(*emulator, program).endswith("all 4 vectors are as expected\n")


@pytest.mark.parametrize("key", [*SMALL, *CHAINED])
@pytest.mark.parametrize("core", CORTEX_M)
def test_on_bare_metal(core: str, key: str, tmp_path: Path) -> None:
    machine, flags = CORTEX_M[core]
    assert on_board(either(key), core, machine, 0x003FF000, tmp_path, *flags).endswith("as expected\n")


def test_on_a_cortex_m0_with_16_kib(tmp_path: Path) -> None:
    """The network, its arena, and the C library's printing within 256 KiB of flash and 16 KiB of RAM."""
    changes = ["stem=thumbnail", "stem_channels=8", "num_blocks=[2]", "growth_rate=8", "transition_channels=[]"]
    spec = at_size("meliusnet22", 8, "num_classes=10", "input_channels=1", *changes)
    assert isinstance(spec, DenseFamilySpec)
    library = make_library(packed(spec), "smallest", "net")
    assert on_board(library, "cortex-m0", "microbit", 0x20004000, tmp_path, "-Wl,-Tdata=0x20000000").endswith(
        "expected\n"
    )


def on_board(library: CLibrary, core: str, machine: str, stack: int, place: Path, *flags: str) -> str:
    """What the program of the test vectors prints on a board of qemu."""
    need("arm-none-eabi-gcc", "qemu-system-arm")
    lay_out(library, place)
    (place / "start.c").write_text(START)
    command = ["arm-none-eabi-gcc", "-std=c11", "-O2", f"-mcpu={core}", "-mthumb", *flags, f"-DSTACK={stack}u", "-I."]
    sources = [name for name in library.files if name.endswith(".c")]
    linked = ["--specs=rdimon.specs", "-Wl,--section-start=.vectors=0", "start.c", *sources, "-o", "vectors.elf"]
    subprocess.run([*command, *linked], cwd=place, check=True, capture_output=True)
    emulator = ["qemu-system-arm", "-M", machine, "-nographic", "-monitor", "none", "-serial", "none"]
    return run(*emulator, "-semihosting-config", "enable=on,target=native", "-kernel", place / "vectors.elf")
