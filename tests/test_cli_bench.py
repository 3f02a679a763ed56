"""``meliuscli bench``: what it prints, what it refuses."""

from __future__ import annotations

import csv
import io
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import Cli

pytest.importorskip("llvmlite")

from meliuscli.packed.timing import BenchResult, PartTime, Samples, Timed, in_turns
from meliuscli.report.bench import busy_warning, parts_table, runs_table
from meliuscli.report.bench_value import bench_object
from meliuscli.report.tables import to_text

SMALL = ("--set", "input_size=48", "--set", "num_classes=10", "--runs", "2")


def result(wall: float = 0.008, conv_seconds: dict[str, float] | None = None) -> BenchResult:
    runs = {
        "packed": Samples((wall, wall, 2 * wall), (0.008, 0.008, 0.016)),
        "eager": Samples((0.1, 0.2, 0.4), (0.08, 0.16, 0.16)),
    }
    return BenchResult(
        arch="net",
        archid="0123456789ab",
        input_shape=(3, 32, 32),
        batch=1,
        threads=1,
        isa="avx2",
        checked_layers=3,
        checked_values=1234,
        runs=runs,
        parts=(PartTime("stem", 0.0, 0.0, 0.001, 0), PartTime("stage1", 0.004, 0.001, 0.0, 4_000_000_000)),
        binary_seconds=0.004,
        conv_seconds={"fp32": 0.08} if conv_seconds is None else conv_seconds,
        num_convs=7,
        left=(),
        missing={"compiled bf16": "no compiler"},
        compile_seconds=0.0,
        size_bytes=2**20,
        twin_size_bytes=8 * 2**20,
    )


def test_ratios_are_of_pairs_by_processor_time_on_one_thread() -> None:
    eager, packed = result().runs["eager"], result().first
    assert eager.times(packed, threads=1) == pytest.approx(10)  # of 10, 20, 10
    assert eager.times(packed, threads=2) == pytest.approx(25)  # of 12.5, 25, 25
    assert packed.median == 0.008


def test_the_divisor_and_the_rate_follow_from_the_times() -> None:
    value = bench_object(result(), [result()])
    assert value["convolutions"]["divisor"] == pytest.approx(20)
    assert value["convolutions"]["divisor_with_pack"] == pytest.approx(16)
    assert value["convolutions"]["gmac_per_second"] == pytest.approx(1000)
    assert value["parts"][0]["gmac_per_second"] is None
    text = to_text(runs_table([result()])) + to_text(parts_table(result()))
    for words in ("effective divisor 20.0 (16.0 with", "OPs take it to be 64", "8.000 MiB (8.0x)", "no compiler"):
        assert words in " ".join(text.split())


def test_without_fp32_times_there_is_no_divisor() -> None:
    assert bench_object(result(conv_seconds={}), [result()])["convolutions"]["divisor"] is None
    assert "divisor" not in to_text(runs_table([result(conv_seconds={})]))


def test_files_are_held_against_the_first_row_and_say_what_they_weigh() -> None:
    """Each was held against itself, so that all were as fast; and the theoretical size of weights was taken for the file's."""

    def timed(name: str, ms: float) -> Timed:
        samples = Samples((2e-3 * ms,) * 3, (1e-3 * ms,) * 3)
        return Timed(name, "0" * 12, (3, 8, 8), 1, 1, {"C" if name == "c" else "onnxruntime": samples}, {}, 0.0, 45_000)

    files = [replace(timed("a.onnx", 4), file_bytes=1_063_264), timed("c", 2)]
    table = runs_table(files)
    assert [column.heading for column in table.columns][-1] == "first row is faster"
    assert [row[-1] for row in table.rows] == ["1.00x", "0.50x"]
    text = to_text(table)
    assert "onnxruntime is faster" not in text
    assert "a.onnx: the file has 1.014 MiB, its weights at their bits 43.945 KiB" in text
    assert [record["times_first"] for record in table.records or ()] == [1.0, 0.5]
    assert bench_object(files[1], files)["runs"][0]["times_first"] == 0.5
    both = runs_table([result(), files[1]])
    assert [row[-2:] for row in both.rows] == [("1.00x", "1.00x"), ("10.00x", "10.00x"), ("", "0.25x")]
    assert [column.heading for column in both.columns][-2:] == ["packed is faster", "first row is faster"]


def test_a_busy_machine_is_told() -> None:
    assert busy_warning(result()) is None
    warning = busy_warning(result(wall=0.0096))
    assert warning is not None
    assert "1.20 times the processor time" in warning


def test_contenders_run_in_turns() -> None:
    order: list[str] = []
    samples = in_turns({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 3)
    assert order == ["a", "a", "b", "b"] * 5
    assert len(samples["a"].wall) == len(samples["b"].cpu) == 3


def test_bench_as_json_and_csv(cli: Cli, tmp_path: Path) -> None:
    done = cli("bench", "--arch", "meliusnet22", *SMALL, "--format", "json", "--output", "bench.json")
    assert done.returncode == 0, done.stderr
    assert "checking every layer" in done.stderr
    value = json.loads((tmp_path / "bench.json").read_text())
    (network,) = value["networks"]
    assert network["self_test"]["layers"] == 39
    assert [run["name"] for run in network["runs"]][:2] == ["packed", "eager"]
    assert network["runs"][0]["times_packed"] == 1
    assert network["parts_timed_by"] == "CPU time"
    assert network["convolutions"]["number"] == 34
    assert network["convolutions"]["theory"] == 64
    assert network["convolutions"]["divisor"] > 0
    assert {part["name"] for part in network["parts"]} == {
        *("stem", "stage1", "stage2", "stage3", "stage4", "transition1", "transition2", "transition3", "head")
    }
    assert "llvmlite" in value["origin"]["versions"]


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (("--arch", "meliusnet22", "--arch", "resnet18"), 2, "no binary convolution"),
        (("--arch", "meliusnet22", "--arch", "dorefanet-alexnet"), 2, "more than one bit"),
        (("--arch", "meliusnet22", "--output", "nowhere/bench.json"), 3, "no such directory"),
    ],
)
def test_nothing_is_measured_that_would_be_lost(args: tuple[str, ...], code: int, says: str, cli: Cli) -> None:
    done = cli("bench", *args)
    assert done.returncode == code
    assert says in done.stderr
    assert "checking" not in done.stderr


def test_bench_of_two_networks_as_csv(cli: Cli) -> None:
    done = cli("bench", "--arch", "quicknet", "--arch", "resnete18", *SMALL, "--opponents", "none", "--format", "csv")
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [row["network"].partition("[")[0] for row in rows] == ["quicknet", "resnete18"]
    assert {row["how"] for row in rows} == {"packed"}
    assert {(row["input"], row["batch"], row["threads"]) for row in rows} == {("3x48x48", "1", "1")}
    assert all(row["isa"] for row in rows)
    assert all(float(row["cpu_ms"]) > 0 for row in rows)


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (("--arch", "meliusnet2"), 2, "did you mean"),
        (("--arch", "net.py:make"), 2, "no such file"),
        (("--arch", "run.py:make", "--set", "x=1"), 2, "--set changes the field of a spec"),
        (("--arch", "meliusnet22", "--isa", "avx9"), 2, "unknown instruction set"),
        (("--arch", "meliusnet22", "--input", "3x32x64"), 2, "square images"),
        (("--arch", "meliusnet22", "--batch", "0"), 2, "batch"),
        ((), 2, "--arch"),
    ],
)
def test_what_cannot_be_measured_is_refused(cli: Cli, args: tuple[str, ...], code: int, says: str) -> None:
    done = cli("bench", *args)
    assert done.returncode == code, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_without_llvmlite_bench_says_what_to_install(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "llvmlite.py").write_text("raise ImportError('not here')")
    done = cli("bench", "--arch", "meliusnet22", PYTHONPATH=f"{tmp_path}:{':'.join(sys.path)}")
    assert done.returncode == 3
    assert "pip install 'meliuscli[packed]'" in done.stderr
    assert done.stdout == ""
