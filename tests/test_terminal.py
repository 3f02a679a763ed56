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
    assert (len(told) < len(lines)) == (columns == 80)
