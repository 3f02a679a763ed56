"""Citations: every network has a paper, the right one, and what is printed is BibTeX."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import meliuscli.arch.references as references
from meliuscli import __version__
from meliuscli.arch.families import FAMILIES, family_class
from meliuscli.arch.references import references_for, to_bibtex, tool_reference
from meliuscli.arch.zoo import arch_names, load_arch, load_name
from meliuscli.cli.cite import cite
from meliuscli.errors import BadInputError

ROOT = Path(__file__).parents[1]
TABLE = tomllib.loads(Path(references.__file__).with_name("references.toml").read_text(encoding="utf-8"))
ALL = [tool_reference(), *dict.fromkeys(paper for name in arch_names() for paper in references_for(load_name(name)))]


def parse(text: str) -> dict[str, dict[str, str]]:
    """BibTeX as we write it, a field a line: key -> fields, with the kind of entry as the field ``@``."""
    entries: dict[str, dict[str, str]] = {}
    for block in text.rstrip("\n").split("\n\n"):
        head, *lines, last = block.split("\n")
        opening = re.fullmatch(r"@([a-z]+)\{([a-z0-9-]+),", head)
        assert opening is not None, head
        assert last == "}"
        kind, key = opening.groups()
        fields = [re.fullmatch(r"  ([a-z]+) = \{(.+)\},", line) for line in lines]
        assert all(fields), lines
        assert key not in entries
        entries[key] = {"@": kind, **{field[1]: field[2] for field in fields if field}}
        assert len(entries[key]) == 1 + len(lines)
    return entries


def keys(arch: str) -> list[str]:
    return [paper.key for paper in references_for(load_arch(arch).spec)]


@pytest.mark.parametrize("name", arch_names())
def test_every_network_has_a_paper(name: str) -> None:
    assert keys(name)


def test_every_family_has_a_paper_whatever_its_fields() -> None:
    parts = [part for paper in TABLE.values() for part in paper["behind"]]
    always = {part["family"] for part in parts if len(part) == 1}
    assert always | {"xnor-resnet"} == set(FAMILIES)
    assert {part["scaling"] for part in parts if part["family"] == "xnor-resnet"} == {True, False}


def test_what_a_paper_is_behind_are_fields_that_exist() -> None:
    for paper in TABLE.values():
        for part in paper["behind"]:
            assert set(part) <= set(family_class(part["family"]).model_fields)


def test_every_paper_is_behind_a_named_network() -> None:
    assert {paper.key for paper in ALL} == {"meliuscli", *TABLE}


@pytest.mark.parametrize(
    ("arch", "expected"),
    [
        ("meliusnet22", ["meliusnet"]),
        ("binarydensenet37-dilated", ["back-to-simplicity"]),
        ("resnete18", ["back-to-simplicity"]),
        ("birealnet18", ["birealnet"]),
        ("birealnet50", ["birealnet", "birealnet-journal"]),
        ("reactnet18", ["birealnet", "reactnet"]),
        ("reactnet-a", ["reactnet"]),
        ("real2binary", ["real2binary"]),
        ("abcnet18", ["abcnet"]),
        ("bmxnet-resnet18", ["bmxnet"]),
        ("tfc", ["finn"]),
        ("cnv", ["finn"]),
        ("vgg-small", ["lq-nets"]),
        ("binaryalexnet", ["bnn"]),
        ("xnornet-alexnet", ["xnornet"]),
        ("dorefanet-alexnet", ["dorefanet"]),
        ("bnn-resnet18", ["bnn", "resnet"]),
        ("xnornet-resnet18", ["xnornet"]),
        ("resnet50", ["resnet"]),
        ("quicknet", ["larq-compute-engine"]),
        ("bnext-t", ["bnext"]),
        ("pokebnn-1.0", ["pokebnn"]),
        ("mobilenet-v1-0.5", ["mobilenet-v1"]),
        ("mobilenet-v2", ["mobilenet-v2"]),
    ],
)
def test_the_papers_are_the_right_ones(arch: str, expected: list[str]) -> None:
    assert keys(arch) == expected


def test_a_file_is_cited_by_what_it_holds_not_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "meliusnet22.toml"
    path.write_text(load_arch("reactnet18", ["num_classes=10"]).spec.to_toml())
    assert keys(str(path)) == ["birealnet", "reactnet"]


@pytest.mark.parametrize("reference", ALL, ids=lambda reference: reference.key)
def test_an_entry_is_bibtex(reference: references.Reference) -> None:
    ((key, fields),) = parse(to_bibtex(reference)).items()
    assert key == reference.key
    for value in fields.values():
        assert value.strip() == value != ""
        assert not re.search(r"[%#&_$~^\\\"]", value), "special in TeX"
        depth = 0
        for char in value:
            depth += {"{": 1, "}": -1}.get(char, 0)
            assert depth >= 0
        assert depth == 0
    needed = {"article": {"journal", "year"}, "inproceedings": {"booktitle", "year"}, "misc": set()}[fields["@"]]
    assert {"title", "author"} | needed <= set(fields)
    if key != "meliuscli":
        assert re.fullmatch(r"\d{4}\.\d{5}", fields["eprint"])
        assert fields["archiveprefix"] == "arXiv"
        submitted = 2000 + int(fields["eprint"][:2])
        assert submitted <= int(fields["year"]) <= submitted + 2
        for author in fields["author"].split(" and "):
            assert re.fullmatch(r"(de )?[A-Z][\w-]+, [A-Z][\w.-]+( [A-Z]\.)?", author), author


@pytest.mark.parametrize("reference", ALL, ids=lambda reference: reference.key)
def test_braces_keep_the_capitals_of_names(reference: references.Reference) -> None:
    outside = re.sub(r"\{[^{}]*\}", "", reference.title)
    assert not re.search(r"[^\W_][A-Z]", outside), "a capital within a word would be lost"


def test_titles_and_arxiv_numbers_are_unique() -> None:
    assert len({paper.title for paper in ALL}) == len({paper.eprint for paper in ALL}) == len(ALL)


def test_the_tools_entry_is_that_of_citation_cff() -> None:
    text = (ROOT / "CITATION.cff").read_text().partition("\nreferences:")[0]
    (fields,) = parse(to_bibtex(tool_reference())).values()
    assert re.search(r"^title: (.+)$", text, re.M)[1] == fields["title"]  # type: ignore[index]
    assert [f"{{{name}}}" for name in re.findall(r"- name: (.+)", text)] == [fields["author"]]
    assert re.search(r"^version: (.+)$", text, re.M)[1] == __version__  # type: ignore[index]
    assert fields["note"] == f"Version {__version__}"
    assert ("url" in fields) == bool(re.search(r"^(url|repository)", text, re.M))


def test_without_networks_the_tool_and_meliusnet(capsys: pytest.CaptureFixture[str]) -> None:
    cite()
    entries = parse(capsys.readouterr().out)
    assert list(entries) == ["meliuscli", "meliusnet"]
    assert entries["meliusnet"]["author"].startswith("Bethge, Joseph and Bartz, Christian and ")
    assert entries["meliusnet"]["howpublished"] == "arXiv:2001.05936"


def test_each_paper_is_cited_once(capsys: pytest.CaptureFixture[str]) -> None:
    cite(["BiRealNet50", "reactnet-18", "birealnet18"])
    entries = parse(capsys.readouterr().out)
    assert list(entries) == ["meliuscli", "birealnet", "birealnet-journal", "reactnet"]
    assert [fields["@"] for fields in entries.values()] == ["misc", "inproceedings", "article", "inproceedings"]


def test_citations_can_go_to_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cite(["mobilenet-v1"], tmp_path / "refs.bib")
    assert capsys.readouterr().out == ""
    assert list(parse((tmp_path / "refs.bib").read_text())) == ["meliuscli", "mobilenet-v1"]


def test_an_unknown_network_is_bad_input(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(BadInputError, match="unknown network 'meliusnet2'"):
        cite(["meliusnet22", "meliusnet2"])
    assert capsys.readouterr().out == ""


def test_citing_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom meliuscli.cli.cite import cite\ncite(['pokebnn-1.0'])\n"
        "print({'torch', 'pandas', 'optuna', 'fvcore', 'numpy'} & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == "set()\n"
