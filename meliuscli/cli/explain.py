"""``meliuscli explain``: pages on counting, and on where the literature disagrees."""

from __future__ import annotations

from typing import Annotated

import typer

from meliuscli.cli import completion, options
from meliuscli.cli.console import answer, answer_page
from meliuscli.report.explain import explain_page, topics


def explain(
    topic: Annotated[
        str | None,
        typer.Argument(
            metavar="TOPIC",
            help="A topic (without one they are listed), or a network.",
            show_default=False,
            autocompletion=completion.topics,
        ),
    ] = None,
    output: options.Output = None,
) -> None:
    """Explain how things are counted, and why published numbers differ.

    Example: meliuscli explain conventions"""
    if topic is None:
        answer("".join(f"{line}\n" for line in topics()), output)
    else:
        answer_page(explain_page(topic), output)
