"""The C library: on any compiler and processor it counts and answers as the packed runner, to the last bit."""

from __future__ import annotations

import ctypes
import json
import shutil
import subprocess
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from conftest import at_size, run_here

from meliuscli.arch.families.dense import DenseFamilySpec
from meliuscli.errors import BadInputError, MissingError
from meliuscli.export.c import writer
from meliuscli.export.c.compiled import compile_library, compiler
from meliuscli.export.c.prefix import prefix_of, require_prefix
from meliuscli.export.c.tables import whole_thresholds
from meliuscli.export.c.vectors import checksum, noise
from meliuscli.export.c.writer import CLibrary, make_library, write_library
from meliuscli.packed.bench import random_network
from meliuscli.packed.runner import PackedDense, pack

STRICT = ("-pedantic", "-Wall", "-Wextra", "-Werror")
SANITIZED = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
SMALL = {
    "one-stage": ("meliusnet22", 9, "stem=thumbnail", "num_blocks=[2]", "growth_rate=5", "transition_channels=[]"),
    "groups": (
        *("meliusnet22", 33, "stem=grouped", "num_blocks=[2,1]", "stem_channels=32", "growth_rate=[16,24]"),
        *("transition_channels=[32]", "groups=4"),
    ),
    "dilated": (
        *("binarydensenet28", 29, "num_blocks=[1,2,1]", "stem_channels=20", "growth_rate=33", "dilation=[1,2,1]"),
        *("transition_channels=[17,40]", "groups=1"),
    ),
}


def small(key: str) -> DenseFamilySpec:
    name, size, *changes = SMALL[key]
    spec = at_size(str(name), int(size), "num_classes=19", *map(str, changes))
    assert isinstance(spec, DenseFamilySpec)
    return spec


def packed(spec: DenseFamilySpec) -> PackedDense:
    runner = pack(random_network(spec, 1, seed=0)[0], spec)
    assert isinstance(runner, PackedDense)
    return runner


@cache
def library_of(key: str) -> CLibrary:
    return make_library(packed(small(key)), key, "net")


def need(*programs: str) -> str:
    """The first one's path, or the test is skipped."""
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    return str(shutil.which(programs[0]))


def run(*command: str | Path) -> str:
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


@pytest.mark.parametrize("key", SMALL)
def test_every_binary_layer_and_the_logits_are_the_packed_runners(key: str, tmp_path: Path) -> None:
    """Without the instructions of this machine: popcount in whole numbers, fused multiply-add in double."""
    library = library_of(key)
    assert run(compile_library(library, tmp_path, need("gcc"), "-std=c11", *STRICT, *SANITIZED)).endswith(
        "all 4 vectors are as expected\n"
    )


@pytest.mark.parametrize("cc", ["gcc", "clang"])
@pytest.mark.parametrize("flags", [("-march=native", *SANITIZED), ("-O2", "-mavx2", "-mfma", "-mpopcnt")])
def test_vectors_of_any_width(cc: str, flags: tuple[str, ...], tmp_path: Path) -> None:
    program = compile_library(library_of("groups"), tmp_path, need(cc), "-std=c11", *STRICT, *flags)
    assert run(program).count("logits equal") == 4


def test_a_wrong_weight_is_noticed(tmp_path: Path) -> None:
    library = library_of("one-stage")
    name, text = "weights.c", library.files["weights.c"].decode()
    number = text.partition("dense_weights[")[2].partition("{\n    ")[2].partition("u,")[0]
    assert number.isdigit()
    changed = {**library.files, name: text.replace(f"    {number}u,", f"    {int(number) ^ 1}u,", 1).encode()}
    program = compile_library(CLibrary(changed, 0, library.arena), tmp_path, need("gcc"), "-std=c11")
    assert subprocess.run([program], capture_output=True, check=False).returncode == 1


def test_it_compiles_as_cpp(tmp_path: Path) -> None:
    compile_library(library_of("groups"), tmp_path, need("g++"), "-x", "c++", "-std=c++11", *STRICT)
    assert run(tmp_path / "vectors").count("logits equal") == 4


def test_the_library_calls_nobody_and_writes_nowhere_but_in_what_it_is_given(tmp_path: Path) -> None:
    """All that is outside is memcpy and memset, which compilers call anyway; nothing lies in writable memory, and every
    name begins with the prefix."""
    compile_library(library_of("groups"), tmp_path, need("gcc", "nm", "size"), "-std=c11")
    objects = ["net.c", "kernels.c", "weights.c"]
    subprocess.run(["gcc", "-std=c11", "-O2", "-fno-pic", "-c", *objects], cwd=tmp_path, check=True)
    undefined, defined = set[str](), set[str]()
    for name in objects:
        for line in run("nm", tmp_path / name.replace(".c", ".o")).splitlines():
            kind, symbol = line.split()[-2:]
            assert kind in "UTtRr", line
            (undefined if kind == "U" else defined).add(symbol) if kind in "UTR" else None
    assert undefined - defined <= {"memcpy", "memset"}
    assert all(symbol.startswith("net_") for symbol in defined)


@pytest.mark.parametrize("key", SMALL)
def test_flash_and_memory_are_what_is_said(key: str, tmp_path: Path) -> None:
    """The constants as the object file holds them; of the arena all but a few bytes of borders are written in a run."""
    library = library_of(key)
    compile_library(library, tmp_path, need("gcc", "size"), "-std=c11")
    flags = ["-std=c11", "-O2", "-shared", "-fPIC", "-o", "net.so"]
    subprocess.run(["gcc", *flags, "net.c", "kernels.c", "weights.c"], cwd=tmp_path, check=True)
    subprocess.run(["gcc", "-std=c11", "-c", "weights.c"], cwd=tmp_path, check=True)
    sections = dict(line.split()[:2] for line in run("size", "-A", tmp_path / "weights.o").splitlines() if "." in line)
    assert abs(int(sections[".rodata"]) / library.flash_bytes - 1) < 0.02
    assert sections[".data"] == sections[".bss"] == "0"
    memory = json.loads(library.files["memory.json"])
    assert (memory["constant_bytes"], memory["arena_bytes"]) == (library.flash_bytes, library.arena.size)
    spec = small(key)
    image, logits = noise(spec, 1).numpy(), np.zeros(spec.num_classes, np.float32)
    run_network, written = ctypes.CDLL(str(tmp_path / "net.so")).net_run, np.zeros(library.arena.size, bool)
    for fill in (0x00, 0xFF, 0xA5):
        arena = np.full(library.arena.size + 64, fill, np.uint8)
        run_network(*(ctypes.c_void_p(array.ctypes.data) for array in (image, logits, arena)))
        written |= arena[:-64] != fill
        assert (arena[-64:] == fill).all()
    assert written.mean() > 0.9


def test_whole_thresholds_decide_as_the_float_ones() -> None:
    floats = np.array([-3.5, -0.0, 0.0, 0.5, 7.0, 7.000001, 65534.5, 3e38, -3e38, np.nan], np.float32)
    counts = np.arange(65535, dtype=np.float32)[:, None]
    whole = whole_thresholds(floats, 16)
    assert whole.dtype == np.uint16
    assert ((counts >= floats) == (counts >= whole)).all()


def test_checksums_see_every_value_and_its_place() -> None:
    values = np.arange(100)
    assert checksum(values) != checksum(values[::-1])
    assert checksum(values) != checksum(np.append(values, 0))


def test_the_same_network_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = (make_library(packed(small("dilated")), "dilated", "net") for _ in range(2))
    assert first.files == second.files
    write_library(first, tmp_path / "out")
    written = {
        str(p.relative_to(tmp_path / "out")): p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()
    }
    assert written == first.files


def test_a_directory_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library, place = library_of("one-stage"), tmp_path / "out"

    def full(library: CLibrary, directory: Path) -> None:
        directory.mkdir()
        (directory / "net.h").write_bytes(library.files["net.h"])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(writer, "lay_out", full)
        with pytest.raises(MissingError, match="No space left"):
            write_library(library, place)
    assert list(tmp_path.iterdir()) == []
    write_library(library, place)
    with pytest.raises(BadInputError, match="exists"):
        write_library(library, place)
    write_library(library, place, force=True)
    (tmp_path / "mine").mkdir()
    with pytest.raises(BadInputError, match="no C library"):
        write_library(library, tmp_path / "mine", force=True)


def test_prefixes_are_names_in_c() -> None:
    names = ["meliusnet22[growth_rate=3]", "net.v2", "2nd", "test", "A-b"]
    assert [prefix_of(name) for name in names] == ["meliusnet22", "net_v2", "net_2nd", "net_test", "a_b"]
    for wrong in ("Net", "2nd", "", "a-b", "test"):
        with pytest.raises(BadInputError, match="no name in C"):
            require_prefix(wrong)


def test_no_prefix_takes_the_place_of_another_header() -> None:
    for taken in ("kernels", "weights", "vectors", "main", "stdint", "string", "math", "features"):
        with pytest.raises(BadInputError, match="would take the place of") as caught:
            require_prefix(taken)
        assert caught.value.hint == f"take another, as net_{taken}"
        assert prefix_of(f"{taken}[growth_rate=3]") == f"net_{taken}"
    assert require_prefix("kernels_net") == "kernels_net"


def test_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    narrow = [f"--set={change}" for change in ("stem=thumbnail", "num_blocks=[1]", "transition_channels=[]")]
    command = ["export", "meliusnet22", "--input", "3x8x8", "--to", "c", *narrow, "-o", "out"]
    run_here(*command, "--prefix", "mine")
    out = capsys.readouterr().out
    assert "arena of" in out
    assert ("to the last bit" in out) == (compiler() is not None)
    assert (tmp_path / "out/mine.h").is_file()
    with pytest.raises(BadInputError, match="exists"):
        run_here(*command)
    run_here("export", "meliusnet22", "--input", "3x8x8", "--to", "packed", *narrow, "-o", "net.packed.safetensors")
    run_here("export", "net.packed.safetensors", "--to", "c", "-o", "again", "--prefix", "mine")
    assert (tmp_path / "again/weights.c").read_bytes() == (tmp_path / "out/weights.c").read_bytes()
    with pytest.raises(BadInputError, match="not for real2binary"):
        run_here("export", "real2binary", "--to", "c", "-o", "other")
    with pytest.raises(BadInputError, match="--prefix"):
        run_here("export", "meliusnet22", "--to", "onnx", "--prefix", "mine")
