"""``meliuscli explain``: pages on counting, and on where the literature disagrees."""

from __future__ import annotations

from typing import Annotated

import typer

from meliuscli.cli import options
from meliuscli.cli.console import answer
from meliuscli.report.explain import explain_page, topics


def explain(
    topic: Annotated[
        str | None,
        typer.Argument(help="conventions, contradictions, bits, size, roads, or a network.", show_default=False),
    ] = None,
    output: options.Output = None,
) -> None:
    """Explain how things are counted, and why published numbers differ."""
    answer(topics() if topic is None else explain_page(topic), output)
