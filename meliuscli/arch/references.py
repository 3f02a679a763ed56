"""What to cite: meliuscli itself and the papers behind networks, as BibTeX."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from meliuscli.arch.spec import ArchSpec
from meliuscli.version import __version__


@dataclass(frozen=True, slots=True)
class Reference:
    """A BibTeX entry. Its texts are BibTeX: braces keep capitals, authors are ``Last, First``. What is empty or None is
    left out of the entry."""

    key: str
    title: str
    authors: tuple[str, ...] = ()
    year: int | None = None
    journal: str = ""
    booktitle: str = ""
    eprint: str = ""
    note: str = ""


@cache
def _papers() -> tuple[tuple[Reference, tuple[dict[str, Any], ...]], ...]:
    """references.toml: every paper with the fields of the networks that it is behind."""
    table = tomllib.loads(Path(__file__).with_name("references.toml").read_text(encoding="utf-8"))
    papers = []
    for key, fields in table.items():
        behind, authors = tuple(fields.pop("behind")), tuple(fields.pop("authors"))
        papers.append((Reference(key=key, authors=authors, **fields), behind))
    return tuple(papers)


def references_for(spec: ArchSpec) -> tuple[Reference, ...]:
    """The papers behind a network, told by its family and fields, whatever its name."""
    fields = spec.model_dump()
    return tuple(paper for paper, behind in _papers() if any(part.items() <= fields.items() for part in behind))


def tool_reference() -> Reference:
    """The entry of meliuscli itself, as CITATION.cff has it."""
    return Reference("meliuscli", "meliuscli", ("{The meliuscli maintainers}",), note=f"Version {__version__}")


def to_bibtex(reference: Reference) -> str:
    """An entry that BibTeX and biblatex read: ``@article``, ``@inproceedings`` or, when only on arXiv, ``@misc``."""
    kind = "article" if reference.journal else "inproceedings" if reference.booktitle else "misc"
    fields = {
        "title": reference.title,
        "author": " and ".join(reference.authors),
        "year": "" if reference.year is None else str(reference.year),
        "journal": reference.journal,
        "booktitle": reference.booktitle,
        "howpublished": f"arXiv:{reference.eprint}" if kind == "misc" and reference.eprint else "",
        "eprint": reference.eprint,
        "archiveprefix": "arXiv" if reference.eprint else "",
        "note": reference.note,
    }
    lines = [f"  {name} = {{{value}}}," for name, value in fields.items() if value]
    return "\n".join([f"@{kind}{{{reference.key},", *lines, "}"]) + "\n"
