"""README and docs: every command and output in them is executed and compared, every link leads somewhere."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from forked import Forks
from pages import ROOT, SHOWN, blocks, documents, matches, run_block, steps

PAGES = [path.relative_to(ROOT).as_posix() for path in documents()]


def run_page(page: str, folder: Path, slow: bool, forks: Forks) -> None:
    """Execute a page's blocks in order in a folder; a ``slow`` run has all of them."""
    wrong = []
    for block in blocks((ROOT / page).read_text(encoding="utf-8")):
        if block.mark == "not run" or (block.mark == "slow" and not slow):
            continue
        if block.title is not None:
            (folder / block.title).write_text(block.text, encoding="utf-8")
        elif block.is_executed:
            wrong += [f"{page}:{block.line}: {problem}" for problem in run_block(block, folder, forks)]
    assert not wrong, "\n".join(wrong)


def pages_with(mark: str) -> list[str]:
    """Pages that have an executed block of this mark."""
    return [
        page
        for page in PAGES
        if any(block.mark == mark and block.is_executed for block in blocks((ROOT / page).read_text(encoding="utf-8")))
    ]


@pytest.mark.parametrize("page", pages_with(""))
def test_the_commands_of_a_page_print_what_it_shows(page: str, tmp_path: Path, forks: Forks) -> None:
    run_page(page, tmp_path, False, forks)


@pytest.mark.slow
@pytest.mark.parametrize("page", pages_with("slow"))
def test_the_long_commands_of_a_page_print_what_it_shows(page: str, tmp_path: Path, forks: Forks) -> None:
    run_page(page, tmp_path, True, forks)


@pytest.mark.parametrize("page", PAGES)
def test_every_block_is_executed_or_says_why_not(page: str) -> None:
    for block in blocks((ROOT / page).read_text(encoding="utf-8")):
        where = f"{page}:{block.line}"
        assert block.is_executed or block.title or block.language in SHOWN, f"{where}: a block of {block.language!r}"
        if block.language in SHOWN:
            assert not re.search(r"^\$ ", block.text, re.MULTILINE), f"{where}: a command in a block that no test runs"


def test_a_page_that_is_wrong_is_found_out(tmp_path: Path, forks: Forks) -> None:
    text = "```console\n$ meliuscli list conventions\nSomething else\n```\n"
    (block,) = blocks(text)
    assert run_block(block, tmp_path, forks)


def test_dots_stand_for_lines_and_for_parts_of_them() -> None:
    assert matches(("a", "...", "d ... f"), ["a", "b", "c", "d e f"])
    assert not matches(("a", "d"), ["a", "b", "d"])
    assert not matches(("a",), [])


def test_a_command_goes_on_after_a_backslash() -> None:
    (step,) = steps("$ meliuscli count \\\n    meliusnet22  # talk\nout\n")
    assert (step.command, step.shown) == ("meliuscli count meliusnet22", ("out",))


# Links


def anchors(path: Path) -> set[str]:
    """What headings of a page can be linked to as, by GitHub's and MkDocs' rule."""
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    heads = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES)
def test_every_link_of_a_page_leads_somewhere(page: str) -> None:
    text = re.sub(r"```.*?```", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        path = (ROOT / page).parent / name if name else ROOT / page
        assert path.exists(), f"{page}: {target}"
        if page != "README.md" and name:
            assert (ROOT / "docs") in path.resolve().parents, f"{page}: {target} is not part of the site"
        if anchor:
            assert anchor in anchors(path), f"{page}: {target}"


# README


def test_the_readme_is_one_that_is_read() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 150
    assert max(map(len, lines)) <= 160


def test_ci_runs_the_readmes_test_command() -> None:
    assert "$ make test" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert "$ make demo" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()[-1] == "make test"


# The site


def test_every_page_is_in_the_sites_menu() -> None:
    menu = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    missing = [page for page in PAGES if page != "README.md" and page.removeprefix("docs/") not in menu]
    assert not missing


@pytest.fixture(scope="module")
def zensical() -> str:
    beside = Path(sys.executable).with_name("zensical")
    program = str(beside) if beside.exists() else shutil.which("zensical")
    if program is None:
        pytest.skip("Zensical is not installed: pip install 'meliuscli[docs]'")
    return program


def build_site(zensical: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [zensical, "build", "--strict"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)


def copy_site(folder: Path) -> None:
    shutil.copytree(ROOT / "docs", folder / "docs")
    shutil.copy(ROOT / "mkdocs.yml", folder)


def test_the_site_builds_strictly(zensical: str, tmp_path: Path) -> None:
    copy_site(tmp_path)
    done = build_site(zensical, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    site = tmp_path / "site"
    assert all((site / name).exists() for name in ("index.html", "llms.txt", "search.json"))
    for page in PAGES[1:]:
        assert (site / page.removeprefix("docs/")).with_suffix(".html").exists()


def test_a_broken_link_stops_the_site(zensical: str, tmp_path: Path) -> None:
    copy_site(tmp_path)
    with (tmp_path / "docs" / "index.md").open("a") as page:
        page.write("[nowhere](nowhere.md)\n")
    assert build_site(zensical, tmp_path).returncode != 0


# Figures


def cells(line: str) -> list[str]:
    """The words of a table's row, whatever stands between its columns."""
    return line.replace("|", " ").split()


@pytest.mark.parametrize("page", ["README.md", "docs/results/search.md"])
def test_the_search_that_is_shown_is_the_committed_one(page: str) -> None:
    report = (ROOT / "reports" / "transfer-cifar10" / "report.md").read_text(encoding="utf-8")
    rows = [cells(line) for line in report.splitlines()]
    sentences = " ".join(report.split())
    (shown,) = (one for one in blocks((ROOT / page).read_text(encoding="utf-8")) if "found-10:" in one.text)
    lines = [line for line in shown.text.splitlines() if line != "..." and not line.startswith(("$", "-"))]
    networks = [line for line in lines if re.match(r"(found-\d+:|meliusnet)", line)]
    assert len(networks) >= 4
    assert [line for line in networks if cells(line) not in rows] == []
    text = " ".join(line for line in lines if line not in networks and "believed ImageNet %" not in line)
    for sentence in re.findall(r"[^;.]+(?:\.\d[^;.]*)*[;.]", text):
        assert sentence.strip() in sentences


def test_the_readme_says_how_many_figures_contradict_themselves() -> None:
    from meliuscli.arch.published import published_rows

    disputed = sum(len(row.disputed) for row in published_rows())
    for page in ("README.md", "docs/results/counting.md"):
        assert f"{disputed} figures" in (ROOT / page).read_text(encoding="utf-8"), page
