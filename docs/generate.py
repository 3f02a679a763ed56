"""Write the reference pages from the commands, the models and the tables: ``python docs/generate.py``.

A test holds the committed pages against what this makes (``tests/test_reference.py``)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from generators.answers import json_page
from generators.commands import commands_page, exit_codes_page
from generators.fields import conventions_page, networks_page, recipes_page, spaces_page
from generators.signatures import python_page

DOCS = Path(__file__).parent
HEAD = "<!-- Made by docs/generate.py: change what it is made from, not this page. -->\n\n"


def main() -> None:
    for name, text in pages().items():
        path = DOCS / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def pages() -> dict[str, str]:
    """Path in docs -> text of every generated page."""
    made: dict[str, Callable[[], str]] = {
        "reference/commands.md": commands_page,
        "reference/networks.md": networks_page,
        "reference/spaces.md": spaces_page,
        "reference/recipes.md": recipes_page,
        "reference/json.md": json_page,
        "reference/conventions.md": conventions_page,
        "reference/exit-codes.md": exit_codes_page,
        "reference/python.md": python_page,
    }
    written = {name: HEAD + page() for name, page in made.items()}
    written |= explanation_pages()
    return {**written, "llms.txt": llms_page(written)}


def llms_page(written: Mapping[str, str]) -> str:
    """The pages of the site with the sentence that each begins with, for programs that read it (llmstxt.org)."""
    by_hand = {path.relative_to(DOCS).as_posix(): path.read_text(encoding="utf-8") for path in DOCS.rglob("*.md")}
    texts = {**by_hand, **written}
    lines = [f"- [{_title(texts[name])}]({name}): {_first_sentence(texts[name])}" for name in sorted(texts)]
    return "\n".join(["# meliuscli", "", f"> {_first_sentence(texts['index.md'])}", "", "## Pages", "", *lines, ""])


def _title(text: str) -> str:
    return next(line.removeprefix("# ") for line in text.splitlines() if line.startswith("# "))


def _first_sentence(text: str) -> str:
    body = text.removeprefix(HEAD).partition("\n\n")[2].strip().partition("\n\n")
    first = body[0] if not body[0].startswith("`meliuscli explain") else body[2].partition("\n\n")[0]
    plain = re.sub(r"[*]{2}|<!--.*?-->|\[([^\]]*)\]\([^)]*\)", r"\1", first)
    return re.split(r"(?<=[.:])\s", " ".join(plain.split()))[0]


def explanation_pages() -> dict[str, str]:
    """The pages of ``meliuscli explain``, as Markdown."""
    from meliuscli.report.explain import TOPICS, topic_markdown

    return {f"explanation/{name}.md": HEAD + topic_markdown(name) for name in TOPICS}


if __name__ == "__main__":
    main()
