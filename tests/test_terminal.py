"""On terminals of 40 to 200 columns: no line is wider, no word is broken, and a table stays one where it can."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from conftest import Cli

from meliuscli.arch.zoo import arch_names

WIDTHS = (40, 80, 120, 200)


def on_a_terminal(columns: int, folder: Path, *args: str) -> list[str]:
    """What the command shows, line by line, without bold and colours."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES")}
    command = [sys.executable, "-m", "meliuscli", *args]
    process = subprocess.Popen(
        command,
        cwd=folder,
        env={**environment, "TERM": "xterm", "NO_COLOR": "1"},
        stdin=subprocess.DEVNULL,
        stdout=its,
        stderr=subprocess.DEVNULL,
    )
    os.close(its)
    shown = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        shown += part
    os.close(ours)
    assert process.wait(timeout=60) == 0
    return re.sub(r"\x1b\[[0-9;]*m", "", shown.decode()).splitlines()


def words(text: str) -> set[str]:
    return set(re.sub(r"[-|─━]{2,}", " ", text).replace("|", " ").replace("*", "").replace("\\", "").split())


@pytest.mark.parametrize("columns", WIDTHS)
def test_explain_breaks_no_word_and_fits(columns: int, cli: Cli, tmp_path: Path) -> None:
    lines = on_a_terminal(columns, tmp_path, "explain", "conventions")
    assert max(map(len, lines)) <= columns
    assert words(" ".join(lines)) <= words(cli("explain", "conventions").stdout)


@pytest.mark.parametrize("columns", WIDTHS)
def test_a_comparison_of_all_fits_and_is_a_table_from_80_columns_on(columns: int, cli: Cli, tmp_path: Path) -> None:
    lines = on_a_terminal(columns, tmp_path, "compare", "--all")
    assert max(map(len, lines)) <= columns
    whole = words(cli("compare", "--all", "--format", "markdown").stdout)
    told = [line for line in lines if not line.startswith("no room for: ")]
    assert words(" ".join(told)) <= whole
    if columns >= 80:
        rows = [match[1] for line in lines if (match := re.match(r"(\S+) +[\d.]+[kMG]? ", line))]
        assert sorted(rows) == sorted(arch_names())
    assert (len(told) < len(lines)) == (columns in (80, 120))


STUDY = ("show", "study:transfer-cifar10", "--reports", str(Path(__file__).parents[1] / "reports"))


def test_a_study_is_drawn_on_terminals_that_have_room_and_nowhere_else(cli: Cli, tmp_path: Path) -> None:
    wide = on_a_terminal(80, tmp_path, *STUDY)
    (begin,) = (index for index, line in enumerate(wide) if line == "believed ImageNet top-1 % against OPs")
    drawing = wide[begin : begin + 20]
    assert max(map(len, drawing)) <= 80
    assert any("found-18" in line and "●" in line for line in drawing)
    assert drawing[19] == "● front   · found   ■ published   ┊ budget"
    assert all("● front" not in line for line in on_a_terminal(40, tmp_path, *STUDY))
    assert "┊ budget" not in cli(*STUDY).stdout


def test_a_terminal_of_ascii_gets_a_drawing_of_ascii() -> None:
    from meliuscli.report.study import read_study
    from meliuscli.report.text_plot import NARROWEST, front_drawing

    report, *_ = read_study(Path(STUDY[-1]) / "transfer-cifar10")
    for width in (NARROWEST, 80, 200):
        text = front_drawing(report, width, with_unicode=False)
        assert text.isascii()
        assert max(map(len, text.splitlines())) <= width
    assert front_drawing(report, NARROWEST - 1, with_unicode=True) == ""
    # The published networks are below and on the right of where the search put its own.
    lines = text.splitlines()
    rows = {name: next(at for at, line in enumerate(lines) if name in line) for name in ("found-18", "meliusnet22")}
    assert rows["found-18"] < rows["meliusnet22"]


def test_learning_curves_are_drawn_with_a_digit_a_seed() -> None:
    from meliuscli.report.text_plot import curves_drawing

    values = {0: (0.1, 0.3, 0.5), 11: (0.2, 0.4, 0.6)}
    runs = [
        {"seed": seed, "curve": [{"epoch": at, "validation_top1": value} for at, value in enumerate(curve, 1)]}
        for seed, curve in values.items()
    ]
    lines = curves_drawing({"runs": runs}, 80, with_unicode=False).splitlines()
    assert lines[0] == "validation top-1 % against epochs"
    drawn = [line.partition("|")[2] for line in lines if "|" in line]
    assert drawn[0].strip() == "1"
    assert lines[1].startswith("  60.0 |")
    assert drawn[-1] == "0"
    assert sum(line.count("0") for line in drawn) == sum(line.count("1") for line in drawn) == 3
    assert curves_drawing({"runs": [{"seed": 0, "curve": runs[0]["curve"][:1]}]}, 80, with_unicode=True) == ""
    assert curves_drawing({"runs": [{"seed": 0}]}, 80, with_unicode=True) == ""
