"""The command line as a user meets it: answers, interfaces, exit codes, pipes, and what it never imports."""

from __future__ import annotations

import csv
import io
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Cli, check_golden

from meliuscli.cli import console
from meliuscli.cli.app import COMMANDS

# The three commands of the user


def test_count_meliusnet29_as_written(cli: Cli) -> None:
    done = cli("count", "--arch", "meliusnet29")
    assert done.returncode == 0, done.stderr
    assert "214,314,240" in done.stdout
    assert "verified: the fvcore trace" in done.stdout


def test_compare_as_written(cli: Cli) -> None:
    done = cli("compare", "mobilenet-v1", "meliusnet22")
    assert done.returncode == 0, done.stderr
    check_golden("compare.txt", done.stdout)


# Interfaces


@pytest.mark.parametrize("fmt", ["table", "markdown", "csv", "latex"])
def test_count_in_every_format(cli: Cli, fmt: str) -> None:
    done = cli("count", "--arch", "meliusnet22", "--no-verify", "--format", fmt)
    assert done.returncode == 0, done.stderr
    check_golden(f"count.{fmt}", done.stdout)


def test_the_json_of_count_is_frozen(cli: Cli) -> None:
    done = cli("count", "--arch", "meliusnet22", "--format", "json")
    value = json.loads(done.stdout)
    about = ["schema_version", "arch", "archid", "input", "convention"]
    assert list(value) == [*about, "rows", "total", "derived", "memory", "verified"]
    keys = ["name", "kind", "output", "binary_macs", "float_macs", "quantized_macs", "params", "binary_params"]
    assert all(list(row) == [*keys, "size_bytes", "macs", "weights"] for row in [*value["rows"], value["total"]])
    assert value["arch"] == "meliusnet22"
    assert value["archid"] == "397250e88b64"
    assert value["input"] == [3, 224, 224]
    assert value["convention"] == "melius"
    assert value["verified"] is True
    assert value["derived"] == {
        "bops": 4_624_220_160,
        "flops": 135_876_608,
        "quantized_macs": 0,
        "ops": 208_130_048,
    }
    assert value["total"]["macs"] == {"conv 1x1": 4_624_220_160, "conv 32x32": 135_876_608, "linear 32x32": 512_000}
    assert value["total"]["weights"] == {"1": 6_119_424, "32": 825_160}
    assert value["total"]["float_macs"] == 136_388_608
    assert value["total"]["output"] == [1000]
    for key in (*keys[3:], "size_bytes"):
        assert isinstance(value["total"][key], int)
        assert sum(row[key] for row in value["rows"]) == value["total"][key]


def test_verified_is_null_without_verification_and_layers_can_be_had(cli: Cli) -> None:
    done = cli("count", "--arch", "meliusnet22", "--format", "json", "--no-verify", "--by", "layer")
    value = json.loads(done.stdout)
    assert value["verified"] is None
    assert len(value["rows"]) == 87
    assert {row["kind"] for row in value["rows"]} == {
        *("conv", "binary_conv", "linear", "batch_norm", "max_pool", "avg_pool")
    }


def test_the_json_of_compare_has_the_same_of_every_network(cli: Cli) -> None:
    one = json.loads(cli("count", "--arch", "mobilenet-v1", "--format", "json", "--no-verify").stdout)
    both = json.loads(cli("compare", "mobilenet-v1", "meliusnet22", "--format", "json").stdout)["networks"]
    assert {"schema_version": 1} | {
        key: value for key, value in both[0].items() if key not in ("published", "believed", "run")
    } == one
    assert (both[0]["believed"], both[0]["run"]) == (None, None)
    assert list(both[1]["believed"]) == ["top1", "low", "high", "level"]
    published = both[1]["published"][0]
    assert (published["ops"], published["top1"], published["disputed"]) == (208_130_000, 63.6, {})
    assert (published["printed"]["ops"], published["printed"]["top1"]) == ("208.13e6", "63.6")
    assert [value["arch"] for value in both] == ["mobilenet-v1", "meliusnet22"]


def test_csv_is_raw_numbers(cli: Cli) -> None:
    done = cli("count", "--arch", "meliusnet22", "--no-verify", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert rows[-1]["part"] == "total"
    assert int(rows[-1]["binary MACs"]) == 4_624_220_160


def test_compare_fits_a_hundred_columns_with_every_name_whole(cli: Cli) -> None:
    names = ["binarydensenet37-dilated", "mobilenet-v1-0.75", "meliusnet59"]
    done = cli("compare", *names)
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 100
    assert all(any(line.startswith(name) for line in lines) for name in names)


def test_an_answer_can_go_to_a_file(cli: Cli, tmp_path: Path) -> None:
    done = cli("count", "--arch", "meliusnet22", "--no-verify", "--format", "markdown", "--output", "out.md")
    assert done.stdout == ""
    assert (tmp_path / "out.md").read_text() == (Path(__file__).parent / "golden" / "count.markdown").read_text()


def test_the_convention_can_include_the_classifier(cli: Cli) -> None:
    done = cli("count", "--arch", "mobilenet-v1", "--no-verify", "--format", "json", "--convention", "full")
    derived = json.loads(done.stdout)["derived"]
    assert derived == {"bops": 0, "flops": 568_740_352, "quantized_macs": 0, "ops": 568_740_352}


# Limits and wrong input


def test_limits_are_exit_code_1(cli: Cli) -> None:
    base = ("count", "--arch", "meliusnet22", "--no-verify")
    assert cli(*base, "--max-ops", "208.14M", "--max-size", "3.88MiB").returncode == 0
    assert cli(*base, "--max-ops", "208M").returncode == 1
    over = cli(*base, "--max-size", "3.8MiB")
    assert over.returncode == 1
    assert "4,065,568 bytes (3.877 MiB) are more than --max-size 3,984,588 bytes" in over.stderr


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (["count", "--arch", "melusnet22"], 2, "meliusnet22"),
        (["count", "--arch", "nothere.toml"], 2, "no such file"),
        (["count", "--arch", "bad.toml"], 2, "not valid TOML"),
        (["count", "--arch", "meliusnet22", "--set", "groups=3"], 2, "are not divisible by 3"),
        (["count", "--arch", "meliusnet22", "--set", "num_blocks=[4,-5,4,4]"], 2, "num_blocks"),
        (["count", "--arch", "meliusnet22", "--set", "blocks=3"], 2, "unknown key"),
        (["count", "--arch", "meliusnet22", "--max-ops", "abc"], 2, "'abc' is not a count"),
        (["count", "--arch", "meliusnet22", "--convention", "melis"], 2, "did you mean melius"),
        (["count", "--arch", "meliusnet22", "--format", "xml"], 2, "xml"),
        (["count"], 2, "--arch"),
        (["cuont"], 2, "count"),
        (["compare", "meliusnet22", "--output", "/proc/x"], 3, "cannot be written"),
        (["train", "--arch", "meliusnet22", "--dataset", "fashon"], 2, "fashion-mnist"),
        (["train", "--arch", "meliusnet22", "--dataset", "fashion-mnist", "--data", "nowhere"], 3, "nowhere"),
        (["train", "--arch", "meliusnet22", "--recipe", "papr"], 2, "paper"),
        (["train", "--arch", "meliusnet22", "--data", "nowhere"], 2, "embedded"),
        (["count", "--arch", "meliusnet22", "--no-verify", "--output", "no/where.txt"], 3, "no such directory"),
        (["list", "--output", "bad.toml/x"], 3, "a file stands where a directory is needed"),
        (["list", "--output", "."], 3, "it is a directory: name a file"),
        (["train", "--arch", "meliusnet22", "--epochs", "-1"], 2, "epochs"),
        (["train", "--arch", "meliusnet22", "--input-size", "2"], 2, "input_size"),
        (["search", "--budget", "abc"], 2, "5e8, 500M or 0.5G"),
        (["search", "--budget", "-5e8"], 2, "not a count"),
        (["search"], 2, "--budget"),
        (["search", "--budget", "5e8", "--space", "melius"], 2, "meliusnet"),
        (["search", "--budget", "5e8", "--space", "bad.toml"], 2, "not valid TOML"),
        (["search", "--budget", "1e6"], 2, "the smallest network of this space needs 22.778M OPs"),
        (["search", "--budget", "5e8", "--resume"], 2, "no study"),
        (["search", "--budget", "5e8", "--resume", "--force"], 2, "exclude"),
        (["search", "--budget", "5e8", "--study", "../x"], 2, "plain folder name"),
        (["search", "--budget", "5e8", "--timeout", "soon"], 2, "duration"),
        (["search", "--budget", "5e8", "--reports", "/proc/nothing"], 3, "cannot be written"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_wrong_input_is_a_message_and_an_exit_code(
    cli: Cli, tmp_path: Path, args: list[str], code: int, says: str
) -> None:
    (tmp_path / "bad.toml").write_text("num_blocks = [1,")
    done = cli(*args)
    assert done.returncode == code, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_debug_shows_the_traceback(cli: Cli) -> None:
    assert "Traceback" in cli("--debug", "count", "--arch", "melusnet22").stderr


def test_a_bug_of_ours_is_exit_code_70(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import meliuscli.counting.analytic as a\n"
        "def broken(spec): raise RuntimeError('on purpose')\n"
        "a.count_spec = broken\n"
    )
    done = cli("count", "--arch", "meliusnet22", PYTHONPATH=str(tmp_path))
    assert done.returncode == 70
    assert "bug in meliuscli" in done.stderr


def test_a_trace_that_differs_is_exit_code_1(cli: Cli, tmp_path: Path) -> None:
    """A network built without its ImprovementBlocks, as in bitorch 0.4.1, does not verify."""
    (tmp_path / "sitecustomize.py").write_text(
        "import meliuscli.nn.families.dense as d\n"
        "import torch\n"
        "class Lost(torch.nn.Identity):\n"
        "    def __init__(self, *a): super().__init__()\n"
        "d.ImprovementBlock = Lost\n"
    )
    args = ("count", "--arch", "meliusnet22", "--set", "input_size=64")
    done = cli(*args, PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    assert "not verified: stage1.block1.improvement" in done.stderr
    as_json = cli(*args, "--format", "json", PYTHONPATH=str(tmp_path))
    assert as_json.returncode == 1
    assert json.loads(as_json.stdout)["verified"] is False


# What is loaded, pipes, help


@pytest.mark.parametrize(
    "args",
    [
        ["--help"],
        ["count", "--help"],
        ["search", "--help"],
        ["count", "--arch", "meliusnet22", "--no-verify"],
        ["compare", "mobilenet-v1", "meliusnet22"],
        ["compare", "--all"],
        ["list"],
        ["show", "bnext-l"],
        ["explain", "conventions"],
        ["explain", "contradictions"],
        ["cite", "reactnet18"],
    ],
    ids=" ".join,
)
def test_light_commands_load_nothing_heavy(args: list[str]) -> None:
    code = (
        "import sys\nfrom meliuscli.cli.app import make_app\n"
        f"try: make_app({args!r})({args!r}, standalone_mode=False)\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'pandas', 'optuna', 'fvcore', 'matplotlib', 'numpy'} & set(sys.modules)\n"
        "print('loaded:', sorted(heavy), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert "loaded: []" in done.stderr


def test_the_command_surface_is_frozen(cli: Cli) -> None:
    """The options of every command: changing one is changing the interface."""
    lines = []
    for command in COMMANDS:
        words = cli(command, "--help", COLUMNS="200").stdout.replace(",", " ").split()
        options = sorted({word.rstrip(".") for word in words if word.startswith("--")})
        lines.append(f"{command}: {' '.join(options)}")
    check_golden("surface.txt", "\n".join(lines) + "\n")


def test_a_reader_that_leaves_early_is_no_error(tmp_path: Path) -> None:
    command = f"{sys.executable} -m meliuscli count --arch meliusnet59 --no-verify --by layer | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, cwd=tmp_path, timeout=60, check=False
    )
    assert done.returncode == 0
    assert done.stderr in ("", "count is at work ...\n")  # the latter on a slow machine
    assert len(done.stdout.splitlines()) == 1


@pytest.mark.parametrize("redirection", [">/dev/full", ">&-"])
def test_a_stdout_that_cannot_be_written_to(tmp_path: Path, redirection: str) -> None:
    command = f"{sys.executable} -m meliuscli count --arch meliusnet22 --no-verify {redirection}"
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, cwd=tmp_path, timeout=60, check=False
    )
    assert done.returncode == 3
    assert "stdout: cannot be written" in done.stderr
    assert "bug" not in done.stderr


@pytest.mark.parametrize("kind", ["no reader", "full disk"])
def test_talk_that_cannot_be_written_ends_no_work(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A search whose ``2>&1 | tee`` was killed ended with 0 in the middle of it."""
    if kind == "no reader":
        reader, writer = os.pipe()
        os.close(reader)
    else:
        writer = os.open("/dev/full", os.O_WRONLY)
    with os.fdopen(writer, "w") as stream, monkeypatch.context() as patch:  # closing it writes what is left, too
        patch.setattr(sys, "stderr", stream)
        console.talk("trial 1/3")
        console.talk("trial 2/3")


def small_files_only() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path) -> None:
    count = ("count", "--arch", "meliusnet59", "--no-verify", "--by", "layer", "--format", "csv", "--output", "big.csv")
    done = subprocess.run(
        [sys.executable, "-m", "meliuscli", *count],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        preexec_fn=small_files_only,
        check=False,
    )
    assert done.returncode == 3
    assert "cannot be written" in done.stderr
    assert list(tmp_path.iterdir()) == []
