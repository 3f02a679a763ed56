"""The fenced blocks of Markdown pages: read, executed in order in one folder, and compared with what they say.

A page's blocks are of these kinds:

- ``console``: ``$ COMMAND`` lines (going on after ``\\``) with what each prints. Stdout is compared; where a command fails, the
  lines are its stderr. A line ``$ echo $?`` asks for the exit code, and without it a command must end with 0.
- ``pycon``: Python as at its prompt, run by doctest.
- any block with ``title="NAME"``: written to that file, for the blocks that follow.
- ``text``, ``toml``, ``json``, ``yaml`` without a title, ``bibtex``: shown only; nothing in them is a command.

``...`` stands for what differs from run to run, within a line, or for lines. ``<!-- slow: REASON -->`` above a block runs it with
the slow tests only, ``<!-- not run: REASON -->`` never."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from forked import Forks

ROOT = Path(__file__).parents[1]
SHOWN = ("text", "toml", "json", "yaml", "bibtex")
_FENCE = re.compile(r"^( *)```(\w*)(?: title=\"([^\"]+)\")?\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)
_MARK = re.compile(r"<!-- (slow|not run): (.+?) -->\n\s*$", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Block:
    """``mark`` is "slow", "not run" or empty, and ``reason`` says why."""

    line: int
    language: str
    title: str | None
    text: str
    mark: str
    reason: str

    @property
    def is_executed(self) -> bool:
        return self.language in ("console", "pycon")


@dataclass(frozen=True, slots=True)
class Step:
    """A command of a console block, and the lines that the page shows under it."""

    command: str
    shown: tuple[str, ...]


def documents() -> list[Path]:
    """README and every page of docs."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(text: str) -> Iterator[Block]:
    """The fenced blocks of a page."""
    for match in _FENCE.finditer(text):
        indent, language, title, content = match.groups()
        mark = _MARK.search(text[: match.start()])
        lines = content.splitlines(keepends=True)
        yield Block(
            text.count("\n", 0, match.start()) + 1,
            language,
            title,
            "".join(line.removeprefix(indent) for line in lines),
            mark[1] if mark else "",
            mark[2] if mark else "",
        )


def steps(text: str) -> Iterator[Step]:
    """The commands of a console block."""
    command, shown = "", list[str]()
    for line in text.replace("\\\n", " ").splitlines():
        if line.startswith("$ "):
            if command:
                yield Step(command, tuple(shown))
            command, shown = re.sub(r" +", " ", line[2:].partition("  #")[0]).strip(), []
        else:
            shown.append(line)
    yield Step(command, tuple(shown))


def matches(shown: tuple[str, ...] | list[str], printed: list[str]) -> bool:
    """Do the lines of a page say what was printed? ``...`` stands for any lines, and within a line for anything."""
    if not shown:
        return not printed
    if shown[0] == "...":
        return any(matches(shown[1:], printed[start:]) for start in range(len(printed) + 1))
    pattern = ".*".join(map(re.escape, shown[0].split("...")))
    return bool(printed) and re.fullmatch(pattern, printed[0]) is not None and matches(shown[1:], printed[1:])


def environment(folder: Path) -> dict[str, str]:
    """With ``meliuscli`` and ``python`` that are those of the tests, in a folder that is given."""
    programs = folder / ".bin"
    if not programs.exists():
        programs.mkdir()
        for name, words in (("meliuscli", "-m meliuscli"), ("python", "")):
            (programs / name).write_text(f'#!/bin/sh\nexec {sys.executable} {words} "$@"\n')
            (programs / name).chmod(0o755)
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        **os.environ,
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(paths),
        "NO_COLOR": "1",
    }


def run_block(block: Block, folder: Path, forks: Forks) -> list[str]:
    """Execute a block in a folder; what differs from the page, nothing where all is as it says."""
    if block.language == "pycon":
        return _run_python(block, folder)
    wrong = []
    asked = list(steps(block.text))
    for index, step in enumerate(asked):
        if step.command == "echo $?":
            continue
        follows = asked[index + 1] if index + 1 < len(asked) else None
        done = _run(step.command, folder, forks)
        code = int(follows.shown[0]) if follows is not None and follows.command == "echo $?" else 0
        talk = [
            line for line in done.stderr.splitlines() if not line.endswith(" ...")
        ]  # which a slow machine has more of
        printed = done.stdout.splitlines() + (talk if done.returncode else [])
        if done.returncode != code:
            wrong.append(f"{step.command}: exit code {done.returncode}, not {code}\n{done.stderr[-2000:]}")
        elif any(step.shown) and not matches(step.shown, printed):
            wrong.append(
                f"{step.command}: prints\n{chr(10).join(printed)}\n-- but the page says\n{chr(10).join(step.shown)}"
            )
    return wrong


def _run(command: str, folder: Path, forks: Forks) -> subprocess.CompletedProcess[str]:
    """A command line in a folder: in a shell, but for a command of ours that needs none."""
    if command.startswith("meliuscli ") and not set(command) & set("|&;<>()$`*?~#!{\\\n"):
        return forks.run(shlex.split(command)[1:], folder, environment(folder), timeout=1200)
    asked = {"cwd": folder, "env": environment(folder), "timeout": 1200}
    return subprocess.run(["bash", "-c", command], **asked, capture_output=True, text=True, check=False)  # type: ignore[call-overload, no-any-return]


def _run_python(block: Block, folder: Path) -> list[str]:
    """In a process of its own, in the folder."""
    program = (
        "import doctest, sys\n"
        "test = doctest.DocTestParser().get_doctest(sys.stdin.read(), {}, 'page', None, 0)\n"
        "runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)\n"
        "runner.run(test)\n"
        "sys.exit(runner.failures > 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=block.text,
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    return [] if done.returncode == 0 else [done.stdout + done.stderr]
