"""The commands that look things up: list, show, explain, compare on everything, paper-tables, and counting options."""

from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
import tomllib
from pathlib import Path
from xml.etree import ElementTree

import pytest
from conftest import Cli

from meliuscli.arch.families.bnext import BNextSpec
from meliuscli.arch.published import contradictions
from meliuscli.arch.zoo import arch_names, load_arch, load_name
from meliuscli.counting.agreement import prints_as
from meliuscli.counting.analytic import count_spec
from meliuscli.counting.conventions import CONVENTIONS, MELIUS
from meliuscli.report.compare import compare_table
from meliuscli.report.counted import Counted, View
from meliuscli.report.explain import explain_page
from meliuscli.report.prose import part_text

ROOT = Path(__file__).parents[1]


# list


def test_list_names_everything(cli: Cli) -> None:
    done = cli("list")
    assert done.returncode == 0, done.stderr
    words = done.stdout.split()
    assert set(arch_names()) | set(CONVENTIONS) | {"meliusnet", "fashion-mnist-mini", "fashion-mnist"} <= set(words)
    assert max(map(len, done.stdout.splitlines())) <= 100


def test_lists_as_csv_and_json_hold_exact_values(cli: Cli) -> None:
    rows = list(csv.DictReader(io.StringIO(cli("list", "archs", "--format", "csv").stdout)))
    assert [row["name"] for row in rows] == list(arch_names())
    assert rows[0]["ops"] == "208130048"
    value = json.loads(cli("list", "archs", "conventions", "--format", "json").stdout)
    assert list(value) == ["schema_version", "archs", "conventions"]
    assert value["archs"][0]["size_bytes"] == 4_065_568


def test_an_unknown_list_is_refused(cli: Cli) -> None:
    done = cli("list", "archz")
    assert done.returncode == 2
    assert "did you mean archs?" in done.stderr


# show


def test_show_draws_and_its_toml_is_the_network(cli: Cli, tmp_path: Path) -> None:
    done = cli("show", "meliusnet22")
    assert done.returncode == 0, done.stderr
    assert "4 blocks: 8 binary 3x3" in done.stdout
    assert "hpi-xnor/BMXNet-v2-wiki" in done.stdout
    text = done.stdout[done.stdout.index('family = "meliusnet"') :]
    assert tomllib.loads(text)["num_blocks"] == [4, 5, 4, 4]
    cli("show", "meliusnet22", "--toml", "--output", "mine.toml")
    assert load_arch(str(tmp_path / "mine.toml")).spec == load_arch("meliusnet22").spec


@pytest.mark.parametrize("name", ["pokebnn-1.4", "binaryalexnet", "bnext-l", "birealnet50", "mobilenet-v2"])
def test_show_fits_a_hundred_columns(cli: Cli, name: str) -> None:
    done = cli("show", name)
    assert done.returncode == 0, done.stderr
    drawing = done.stdout.partition("\n\n")[0]
    assert max(map(len, drawing.splitlines())) <= 100


def test_show_as_json(cli: Cli) -> None:
    value = json.loads(cli("show", "reactnet-b", "--format", "json").stdout)
    assert value["spec"]["widening_groups"] == 4
    assert value["published"][0]["disputed"] == {"ops": "reactnet-b-ops"}


# explain


def test_explain_lists_its_topics_and_pages_fit_a_hundred_columns(cli: Cli) -> None:
    topics = [line.split()[0] for line in cli("explain").stdout.splitlines()[1:-1]]
    assert {"conventions", "contradictions"} <= set(topics)
    for topic in topics:
        done = cli("explain", topic)
        assert done.returncode == 0, done.stderr
        assert max(map(len, done.stdout.splitlines())) <= 100


def test_the_option_lists_every_convention(cli: Cli) -> None:
    assert "|".join(CONVENTIONS) in cli("count", "--help", COLUMNS="200").stdout


def test_explain_conventions_names_every_rule_with_its_source(cli: Cli) -> None:
    page = cli("explain", "conventions").stdout
    assert all(f"\n{name}: " in page for name in CONVENTIONS)
    assert "208.13M" in page


def test_explain_contradictions_gives_every_reason(cli: Cli) -> None:
    page = cli("explain", "contradictions").stdout
    assert all(entry.title in page for entry in contradictions())
    assert "1.63e8     1.172e8" in page


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("ReActNet-B", "error of the paper"),
        ("meliusnet59", "71.06 %"),
        ("meliusnet22", "without its ImprovementBlocks"),
        ("quicknet", "nothing is disputed"),
        ("mobilenet-v1-0.75", "317e6"),
        ("pokebnn-2.0", "nothing is published"),
    ],
)
def test_explain_a_network(cli: Cli, name: str, says: str) -> None:
    assert says in " ".join(cli("explain", name).stdout.split())


def test_explain_an_unknown_topic(cli: Cli) -> None:
    done = cli("explain", "convention")
    assert done.returncode == 2
    assert "did you mean conventions" in done.stderr


# compare


def test_compare_on_everything_is_one_table_of_a_hundred_columns(cli: Cli) -> None:
    done = cli("compare", "--all")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 100
    assert [line.split()[0] for line in lines[3 : 3 + len(arch_names())]] == list(arch_names())


def test_compare_on_everything_in_the_other_formats(cli: Cli) -> None:
    markdown = cli("compare", "--all", "--format", "markdown").stdout
    assert sum(line.startswith("| ") for line in markdown.splitlines()) == 2 + len(arch_names())
    rows = list(csv.DictReader(io.StringIO(cli("compare", "--all", "--format", "csv").stdout)))
    by_name = {row["network"]: row for row in rows}
    assert by_name["meliusnet22"]["ops"] == "208130048"
    assert by_name["reactnet-b"]["published_ops_agrees"] == "False"
    assert by_name["reactnet-a"]["published_ops_convention"] == "reactnet"
    assert len(rows[0]) == len(set(rows[0]))
    assert len(json.loads(cli("compare", "--all", "--format", "json").stdout)["networks"]) == len(arch_names())


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no LaTeX on this machine")
def test_latex_compiles(cli: Cli, tmp_path: Path) -> None:
    commands = {
        "all": ["compare", "--all"],
        "two": ["compare", "mobilenet-v1", "meliusnet22"],
        "count": ["count", "--arch", "pokebnn-1.0", "--no-verify"],
        "list": ["list"],
        "show": ["show", "reactnet-b"],
    }
    for name, args in commands.items():
        cli(*args, "--format", "latex", "--output", f"{name}.tex")
    inputs = "".join(f"\\input{{{name}.tex}}\\clearpage\n" for name in commands)
    packages = "\\usepackage{booktabs,graphicx,longtable}"
    (tmp_path / "main.tex").write_text(
        f"\\documentclass{{article}}{packages}\\begin{{document}}{inputs}\\end{{document}}"
    )
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "main.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout[-2000:]


def test_marks_say_how_a_published_figure_relates_to_ours(cli: Cli) -> None:
    lines = {line.split()[0]: line for line in cli("compare", "--all").stdout.splitlines() if line}
    assert " 208.13M  " in lines["meliusnet22"]
    assert "87M*" in lines["reactnet-a"]
    assert "163M!" in lines["reactnet-b"]
    assert "2.6G ACE" in lines["pokebnn-0.75"]
    under_its_own = cli("compare", "reactnet-a", "--convention", "reactnet").stdout
    assert "87M " in under_its_own
    assert "87M*" not in under_its_own


@pytest.mark.parametrize("suffix", ["png", "svg", pytest.param("pdf", marks=pytest.mark.slow)])
def test_pareto_picture(cli: Cli, tmp_path: Path, suffix: str) -> None:
    done = cli("compare", "--all", "--pareto", f"front.{suffix}")
    assert done.returncode == 0, done.stderr
    assert "meliusnet23" in done.stderr
    content = (tmp_path / f"front.{suffix}").read_bytes()
    if suffix == "png":
        assert content.startswith(b"\x89PNG")
    elif suffix == "pdf":
        assert content.startswith(b"%PDF")
    else:
        ElementTree.fromstring(content)
        assert b"<!-- meliusnet42 -->" in content
    again = cli("compare", "--all", "--pareto", f"again.{suffix}")
    assert again.returncode == 0
    assert (tmp_path / f"again.{suffix}").read_bytes() == content


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["compare"], "no network to compare"),
        (["compare", "meliusnet22", "--pareto", "front.gif"], "not a picture file"),
        (["count", "--arch", "pokebnn-0.9"], "did you mean pokebnn-1.0 --set width_multiplier=0.9?"),
        (["count", "--arch", "MobileNetV1-0.6"], "did you mean mobilenet-v1 --set width_multiplier=0.6?"),
        (["count", "--arch", "mobilenet-v1", "--set", "width=0.6"], "did you mean width_multiplier?"),
        (["compare", "meliusnet23", "--pareto", "front.png"], "none of these networks has a published top-1"),
        (["compare", "meliusnet22", "--convention", "larq", "--pareto", "front.png"], "has no total"),
        (["compare", "meliusnet22", "--binary", "x"], "--binary is for modules of your own"),
        (["count", "--arch", "meliusnet22", "--binary", "x"], "--binary is for modules of your own"),
        (["count", "--arch", "meliusnet22", "--convention", "larq", "--max-ops", "1e9"], "has no total"),
        (["count", "--arch", "meliusnet22", "--convention", "larc"], "did you mean larq"),
        (["count", "--arch", "meliusnet22", "--input", "3x224"], "not an input shape"),
        (["count", "--arch", "meliusnet22", "--input", "0"], "not an input shape"),
        (["count", "--arch", "meliusnet22", "--input", "3x224x192"], "square images only"),
        (["count", "--arch", "meliusnet22", "--input", "16"], "too small"),
        (["count", "--arch", "meliusnet22", "--float-bits", "0"], "--float-bits"),
        (["show", "meliusnet22", "--toml", "--format", "csv"], "--toml has a format of its own"),
    ],
)
def test_wrong_use_is_a_message_and_exit_code_2(cli: Cli, args: list[str], says: str) -> None:
    done = cli(*args)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_too_small_an_input_says_which_stem_small_images_take(cli: Cli) -> None:
    done = cli("count", "--arch", "meliusnet22", "--input", "16", "--no-verify")
    assert "hint: small images take another stem: stem=thumbnail" in done.stderr
    assert cli("count", "--arch", "meliusnet22", "--input", "16", "--set", "stem=thumbnail").returncode == 0


# Options of counting


def test_conventions_and_storage_on_the_command_line(cli: Cli) -> None:
    def derived(*args: str) -> dict[str, float]:
        done = cli("count", "--no-verify", "--format", "json", *args)
        assert done.returncode == 0, done.stderr
        value = json.loads(done.stdout)
        return {**value["derived"], **{key: value["total"][key] for key in ("params", "size_bytes")}}

    assert derived("--arch", "reactnet-a", "--convention", "ace")["ops"] == 7_853_572_096
    assert derived("--arch", "bnext-t", "--convention", "bnext")["ops"] == 76_932_064
    assert derived("--arch", "dorefanet-alexnet", "--convention", "larq")["ops"] is None
    assert derived("--arch", "binarydensenet28", "--bn-params", "4")["params"] == 5_150_504
    assert derived("--arch", "meliusnet22", "--float-bits", "8")["size_bytes"] == 1_590_088


def test_verification_holds_under_other_storage_too(cli: Cli) -> None:
    options = ("--set", "input_size=32", "--bn-params", "4", "--float-bits", "8", "--convention", "ace")
    for name in ("quicknet-small", "xnornet-alexnet"):
        stem = ("--set", "stem=thumbnail") if "alexnet" in name else ()
        done = cli("count", "--arch", name, *options, *stem)
        assert done.returncode == 0, done.stderr
        assert "verified" in done.stdout


# paper-tables


def test_the_committed_paper_tables_are_what_the_command_writes(cli: Cli, tmp_path: Path) -> None:
    done = cli("paper-tables", "tables")
    assert done.returncode == 0, done.stderr
    committed = ROOT / "reports" / "paper-tables"
    names = {path.name for path in (tmp_path / "tables").iterdir()}
    assert names == {path.name for path in committed.iterdir()}
    for name in names - {"pareto.png"}:
        assert (tmp_path / "tables" / name).read_text() == (committed / name).read_text(), name


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["count", "--arch", "meliusnet22", "--max-ops", "many"], "--max-ops: 'many' is not a count"),
        (["count", "--arch", "meliusnet22", "--max-size", "0"], "--max-size: '0' is out of range"),
        (["search", "--budget", "1.5"], "--budget: '1.5' is not a whole number"),
        (["search", "--budget", "5e8", "--timeout", "soon"], "--timeout: 'soon' is not a duration"),
        (["count", "--arch", "meliusnet22", "--set", "groups=2", "--set", "groups=4"], "--set groups: given twice"),
    ],
)
def test_the_option_at_fault_is_named(cli: Cli, args: list[str], says: str) -> None:
    done = cli(*args)
    assert done.returncode == 2
    assert says in done.stderr


def test_bnexts_sizes_are_the_authors_without_the_prelus_that_they_never_call() -> None:
    sizes = {"bnext-t": "13.32", "bnext-s": "26.75", "bnext-m": "46.57", "bnext-l": "106.32"}
    for name, printed in sizes.items():
        spec = load_name(name)
        assert isinstance(spec, BNextSpec)
        unused = spec.stem_channels
        for index, (before, after) in enumerate(zip((spec.stem_channels, *spec.channels), spec.channels, strict=False)):
            unused += before * ((index % 2 == 0) + (1 if before == after else 2))
        total = count_spec(spec).total.size_bytes
        assert prints_as(printed, (total + 4 * unused) / 2**20)
        page = " ".join(map(part_text, explain_page(name)))
        assert all(number in page for number in (printed, f"{total / 2**20:.2f}", f"{unused:,}"))


def test_published_figures_of_one_row_say_where_they_are_from() -> None:
    networks = [
        Counted(name, spec, spec.input_shape, count_spec(spec)) for name in arch_names() for spec in [load_name(name)]
    ]
    table = compare_table(networks, View(MELIUS))
    heads = [column.heading for column in table.columns]
    marked = 0
    for record, row in zip(table.records, table.rows, strict=True):
        for key, head in (("ops", "pub.OPs"), ("size_mib", "pub.MiB")):
            cell, source = str(row[heads.index(head)]), record[f"published_{key}_source"]
            assert bool(cell) == (source is not None)
            other = bool(cell and record["published_top1"]) and source != record["published_top1_source"]
            assert cell.endswith("+") == other
            marked += other
    assert marked
    assert any(note.startswith("+ ") for note in table.notes)
    row = next(record for record in table.records if record["network"] == "xnornet-alexnet")
    assert (row["published_size_mib_source"], row["published_top1_source"]) == (
        "larq/docs zoo index",
        "allenai/XNOR-Net README",
    )
